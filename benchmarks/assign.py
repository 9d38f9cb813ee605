"""How often an image gets the cluster of the latent that made it, by its distance to the border.

    python -m cgjax.main --config=configs/dcgan_pose.py
    python benchmarks/assign.py --workdir=runs/dcgan_pose [--num=500] [--images=FOLDER ...]

Fresh images of the run's own generator, rounded to 8 bits, are inverted as `--mode=assign` inverts
any image. The cluster of the inverted latent is compared with that of the true one, for the encoder
alone and beside it for encoder and search. Folders of real images can be inverted too; the share of
them that the generator is said not to make is printed. Results are kept in the run's folder: the
same command resumes after an interruption.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from absl import flags, logging
from printing import share_text

from cgjax.run.opening import open_run
from cgjax.runtime.lock import FolderLock
from cgjax.runtime.png import as_uint8, from_uint8
from cgjax.runtime.signals import Interrupts
from cgjax.stages.groups import Clusters, reliability_of
from cgjax.stages.inversion import InversionStage
from cgjax.stages.pipeline import Pipeline

QUANTILES = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Quantiles of the margins of the run's latents that bound the bands of the table."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--num", type=int, default=500)
    parser.add_argument("--images", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    flags.FLAGS(sys.argv[:1])
    logging.set_verbosity(logging.INFO)
    with FolderLock(options.workdir) as lock:
        run = open_run(options.workdir, None, mode="assign", lock=lock)
        pipeline = Pipeline(run, Interrupts())
        stage = InversionStage(run, pipeline.maker, pipeline.interrupts)
        inverter = stage.inverter()
        truth = np.asarray(run.generator.sample_latents(jax.random.key(2026), options.num))

        def read(places: Sequence[int]) -> np.ndarray:
            return from_uint8(as_uint8(run.generator.images(truth[list(places)])))

        ids = [f"benchmark {i}" for i in range(options.num)]
        found = stage.invert(inverter, ids, read, "fresh images")
        clusters, quantile = Clusters(run), run.config["assign"]["quantile"]
        sure = reliability_of(clusters, stage.held_out(inverter), quantile)
        labels, margins = clusters.of(truth, truth)
        by_search = clusters.of(found.latents, found.guesses)[0] == labels
        by_encoder = clusters.of(found.guesses, found.guesses)[0] == labels
        border = np.abs(margins)
        edges = np.quantile(np.abs(run.clustering.margins), QUANTILES)
        print(f"{options.num} fresh images of the generator, {run.clustering.id}")
        print(f"{'margin of the true latent':<28}{'images':>7}  {'encoder':<25}with search")
        for i, (low, high) in enumerate(itertools.pairwise(edges)):
            last = i == len(edges) - 2
            band = (border >= low) & ((border < high) | last)
            band |= (border < low) & (i == 0)
            if band.any():
                words = f"{low:.2f} to {high:.2f} ({QUANTILES[i]:.0%} to {QUANTILES[i + 1]:.0%})"
                print(
                    f"{words:<28}{band.sum():>7}  {share_text(by_encoder[band]):<25}"
                    f"{share_text(by_search[band])}"
                )
        print(f"{'all':<28}{options.num:>7}  {share_text(by_encoder):<25}{share_text(by_search)}")
        for name, z in (("encoder", found.guesses), ("with search", found.latents)):
            print(f"{name}: mean squared error of the latents {np.square(z - truth).mean():.3f}")
        for name, errors in (("error", found.errors), ("encoder_features", found.features)):
            print(f"{name}, 10%, 50%, 90%: {np.quantile(errors, (0.1, 0.5, 0.9)).round(4)}")
        is_foreign = ~sure.limits.keeps(found.errors, found.features)
        print(f"said not to be made by the generator: {share_text(is_foreign)}")
        for folder in options.images:
            print(f"\n{folder}\n{pipeline.assign(folder)}")


if __name__ == "__main__":
    main()
