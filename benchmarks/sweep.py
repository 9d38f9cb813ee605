"""Seconds of a sweep, beside the least work that it contains.

    python benchmarks/sweep.py [--config=dcgan_pose] [--latents=5000] [--rounds=3]

The least work is encoding every layer's features and one k-means a layer at the largest number of
clusters. The sweep also clusters into all other numbers, chooses the number from fresh rows with
its null, judges images and draws figures. Both run in one process, in turns, already compiled.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from cgjax.config.plain import to_plain
from cgjax.config.schema import complete
from cgjax.run.opening import open_run
from cgjax.run.run import Run
from cgjax.runtime.keys import named_key
from cgjax.runtime.signals import Interrupts
from cgjax.stages.encoding import LayerEncoder
from cgjax.stages.latents import latents_of
from cgjax.stages.pipeline import Pipeline


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="dcgan_pose")
    parser.add_argument("--latents", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    config = importlib.import_module(f"configs.{options.config}").get_config()
    config.latents.num = options.latents
    plain = complete(to_plain(config))
    least, whole = [], []
    for _ in range(options.rounds + 1):  # the first compiles
        with folder() as root:
            pipeline = Pipeline(open_run(root, plain, mode="sweep"), Interrupts())
            latents_of(pipeline.run, pipeline.maker)
            start = time.perf_counter()
            for layer in pipeline.run.held.sweep_layers:
                encode_and_cluster(pipeline.run, layer)
            least.append(time.perf_counter() - start)
            start = time.perf_counter()
            text = pipeline.sweep()
            whole.append(time.perf_counter() - start)
            costs = pipeline.run.manifests.costs()
    low, high = statistics.median(least[1:]), statistics.median(whole[1:])
    print(text)
    print(
        f"encodings and one k-means a layer at {pipeline.run.held.sweep_numbers[-1]}: {low:.1f} s"
    )
    print(f"the sweep: {high:.1f} s, {high / low:.2f} times as much (aim: at most 2.5)")
    print(costs)


def encode_and_cluster(run: Run, layer: str) -> None:
    """Encode a layer and cluster it once."""
    encoder = LayerEncoder(run.generator.at_layer(layer), run.config["cluster"], run.folder.root)
    most = run.held.sweep_numbers[-1]
    encoded = encoder.encode(run.held.latents, most)
    with contextlib.closing(encoded):
        encoder.cluster(encoded, [most], run.held.latents, named_key(run.root_key, layer))


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    root = Path(tempfile.mkdtemp())
    try:
        yield root / "run"
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
