"""What training changes: networks with their optimisers, and the labels of the training rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import optax
from jaxtyping import Array, Float, Int

from cgjax.endtoend.networks.base import Arrays
from cgjax.numerics.optimisers import change_of


class Partition(NamedTuple):
    """What a method knows of the training rows; all of it is in the checkpoint.

    Attributes:
        labels: (n,) int32, of every training row.
        centroids: (k, f) of the last clustering, in the order of the labels; (0, 0) without one.
        counts: (k,) float32, rows that moved each centroid; (0,) without a clustering.
    """

    labels: Int[Array, "*trials n"]
    centroids: Float[Array, "*trials k f"]
    counts: Float[Array, "*trials k"]


class Learner(NamedTuple):
    """A network and its optimiser's moments."""

    arrays: Arrays
    moments: Any


class TrainState(NamedTuple):
    """All that changes in training; every leaf begins with an axis of trials where there are any.

    Attributes:
        generator: G.
        discriminator: D.
        partition: the labels of the training rows.
        average: G's parameters averaged over iterations; empty without an average.
    """

    generator: Learner
    discriminator: Learner
    partition: Partition
    average: Any = ()


class Losses(NamedTuple):
    """The two losses of each iteration."""

    generator: Float[Array, "*trials steps"]
    discriminator: Float[Array, "*trials steps"]


def moved(
    learner: Learner,
    slope: Any,
    stats: Any,
    optimiser: optax.GradientTransformation,
    share: Float[Array, ""] | float = 1.0,
) -> Learner:
    """Return a network after a share of its optimiser's step, with new running moments."""
    params = learner.arrays.params
    change, moments = change_of(optimiser, slope, learner.moments, params)
    change = jax.tree.map(lambda leaf: share * leaf, change)
    return Learner(Arrays(optax.apply_updates(params, change), stats), moments)
