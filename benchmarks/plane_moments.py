"""Batch norm in the plane: scores of points by a batch's own moments, beside the running ones.

    python benchmarks/plane_moments.py --workdir=RUN

RUN is a training in the plane, for example of `--config=configs/scgan_grid.py:code`. In training, a
batch norm normalises by the moments of the batch. Those of 100 points vary from batch to batch, so
that one latent becomes slightly different points, and the discriminator sees these. The scored
points, as in the paper's code, are generated with the running moments and have no such jitter. The
last column is the variance of the points around the mean of their label, over that of a mode: what
the latents contribute. Both rows are of the newest weights; if the training averages its weights, a
row of the average follows, which is the one that is scored. The last line says what variance would
remain if each label gave a single point.
"""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np

from cgjax.clustering import kmeans
from cgjax.endtoend.experiment import Experiment, GeneratedRows
from cgjax.endtoend.state import TrainState
from cgjax.run.training import open_training
from cgjax.runtime.keys import named_key
from cgjax.runtime.signals import Interrupts
from cgjax.stages.endtoend import TrainingStage


def main() -> None:
    """Restore every trial and score it in both ways."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, required=True)
    given = parser.parse_args()
    stage = TrainingStage(open_training(given.workdir, None), Interrupts())
    experiment = stage.experiment
    states, iteration, _ = stage.restored()
    if not iteration:
        raise SystemExit(f"{given.workdir} holds no checkpoint; train it first")
    print(f"{given.workdir}, {iteration} iterations")
    names = ("modes", "box", "KL, nats", "variance ratio", "within labels")
    print(f"{'trial':<8}{'moments':<12}" + "".join(f"{name:>16}" for name in names))
    for trial, state in enumerate(experiment.per_trial(states)):
        newest = partial(of_newest, experiment, state, iteration)
        ways = {"running": newest(train=False), "a batch's": newest(train=True)}
        if experiment.trainer.average:
            ways["average"] = experiment.sample(state, trial, iteration)
        for name, samples in ways.items():
            scores = experiment.scores(samples)
            within = within_labels(samples) / np.square(experiment.data.sd)
            print(
                f"{trial:<8}{name:<12}{scores['modes']:>16.0f}{scores['high_quality_box']:>16.4f}"
                f"{scores['reverse_kl_nats']:>16.5f}{scores['variance_ratio']:>16.2f}{within:>16.4f}"
            )
    num = experiment.trainer.method.num_labels // experiment.data.num_classes
    if num:
        print(f"a point for each label, {num} to a mode: variance ratio {of_points(num):.2f}")


def of_points(num_points: int) -> float:
    """Return the most of a planar Gaussian's variance that `num_points` points can have."""
    rows = np.random.default_rng(0).standard_normal((20_000, 2), np.float32)
    inertia = kmeans(rows, num_points, key=jax.random.key(0)).inertia
    return 1 - float(inertia) / float(np.square(rows - rows.mean(axis=0)).sum())


def within_labels(samples: GeneratedRows) -> float:
    """Return the variance of points around the mean of their label, in one coordinate."""
    labels = [samples.labels == label for label in np.unique(samples.labels)]
    return float(
        np.average(
            [samples.points[own].var(axis=0).mean() for own in labels],
            weights=[own.sum() for own in labels],
        )
    )


def of_newest(
    experiment: Experiment, state: TrainState, iteration: int, *, train: bool
) -> GeneratedRows:
    """Generate as many points as are scored, by the newest weights, in training batches."""
    trainer, method = experiment.trainer, experiment.trainer.method

    @jax.jit
    def batch(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        key_label, key_code = jax.random.split(key)
        labels = method.sample_labels(key_label, state.partition, trainer.batch)
        z, wanted = method.codes(key_code, labels, trainer.networks.latent_dim)
        arrays = state.generator.arrays
        points = trainer.generator.apply(arrays, lambda g: g(z, wanted, train=train))[0]
        return points, wanted

    num = -(-experiment.config["score"]["num"] // trainer.batch)
    keys = jax.random.split(named_key(jax.random.key(0), "batches", iteration), num)
    return GeneratedRows(*map(np.concatenate, zip(*map(batch, keys), strict=True)))


if __name__ == "__main__":
    main()
