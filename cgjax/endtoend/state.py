"""What training changes: networks with their optimisers, and the labels of the training rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from cgjax.numerics.networks import Arrays
from cgjax.numerics.optimisers import take_step


class Partition(NamedTuple):
    """What a method knows about the training rows; all of it is checkpointed.

    Attributes:
        labels: (n,) int32, of every training row.
        centroids: (k, f) of the last clustering, in the order of the labels; (0, 0) without one.
        counts: (k,) float32, number of rows that have moved each centroid; (0,) without a
            clustering.
    """

    labels: Int[Array, "*trials n"]
    centroids: Float[Array, "*trials k f"]
    counts: Float[Array, "*trials k"]

    @classmethod
    def clustered(cls, labels: ArrayLike, centroids: ArrayLike) -> Partition:
        """Return a partition by centroids that no row has moved yet."""
        centroids = jnp.asarray(centroids)
        return cls(jnp.asarray(labels), centroids, jnp.zeros(len(centroids), jnp.float32))

    @classmethod
    def unclustered(cls, labels: Int[Array, " n"]) -> Partition:
        """Return a partition that does not come from a clustering."""
        return cls(labels, jnp.zeros((0, 0), jnp.float32), jnp.zeros((0,), jnp.float32))


class Learner(NamedTuple):
    """A network's arrays and its optimiser's state."""

    arrays: Arrays
    moments: Any


class TrainState(NamedTuple):
    """Everything that training changes; of stacked trials every leaf has a leading axis of trials.

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


def updated(
    learner: Learner,
    gradient: Any,
    stats: Any,
    optimiser: optax.GradientTransformation,
    rate: Float[Array, ""] | float = 1.0,
) -> Learner:
    """Return a network after `rate` times its optimiser's step, with new running moments."""
    params, moments = take_step(optimiser, gradient, learner.moments, learner.arrays.params, rate)
    return Learner(Arrays(params, stats), moments)
