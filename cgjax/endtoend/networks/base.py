"""What the trainer asks of networks: pure functions of parameters and running moments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

Made = TypeVar("Made")


class Arrays(NamedTuple):
    """The arrays of one network.

    Attributes:
        params: what the optimiser moves, a nested dict.
        stats: running moments of batch norms, a nested dict; empty where there are none.
    """

    params: Any
    stats: Any


@runtime_checkable
class Generator(Protocol):
    """Latents and labels to rows."""

    def __call__(
        self, z: Float[Array, "n d"], labels: Int[Array, " n"], *, train: bool
    ) -> Float[Array, "n ..."]:
        """Generate; in train mode batch norms use the batch's moments and move the running ones."""


@runtime_checkable
class Discriminator(Protocol):
    """Rows to features, and features to one logit or several."""

    def features(self, x: Float[Array, "n ..."], *, train: bool) -> Float[Array, "n f"]:
        """Return what is clustered: the input of the last layer."""

    def __call__(self, x: Float[Array, "n ..."], *, train: bool) -> Float[Array, "n outputs"]:
        """Return all logits."""


@runtime_checkable
class Architecture(Protocol):
    """The two networks of an experiment; hashable, so that a compiled program may be keyed by it.

    Attributes:
        latent_dim: length of z.
        is_rowwise: whether the discriminator treats every row on its own, so that real and
            generated rows may go through it in one pass. With batch norm in it they may not.
    """

    @property
    def latent_dim(self) -> int: ...  # noqa: D102

    @property
    def is_rowwise(self) -> bool: ...  # noqa: D102

    def generator(self, num_labels: int, rngs: nnx.Rngs) -> Generator:
        """Return a generator; with one label it is unconditional."""

    def generators(self, num_labels: int, rngs: nnx.Rngs) -> Generator:
        """Return as many generators that share all but their first layer."""

    def discriminator(self, num_outputs: int, pack: int, rngs: nnx.Rngs) -> Discriminator:
        """Return a discriminator of `pack` rows at a time."""


class Network:
    """A flax module as pure functions; allocates nothing itself.

    Example:
        >>> network = Network(lambda rngs: nnx.Linear(2, 3, rngs=rngs))
        >>> arrays = network.init(jax.random.key(0))
        >>> network.apply(arrays, lambda module: module(jax.numpy.ones((5, 2))))[0].shape
        (5, 3)
    """

    def __init__(self, build: Callable[[nnx.Rngs], Any]):
        """Take a function that builds the module from its random numbers."""
        self._build = build
        self._graph = nnx.graphdef(nnx.eval_shape(lambda: build(nnx.Rngs(0))))

    def init(self, key: PRNGKeyArray) -> Arrays:
        """Return the arrays of a fresh network."""
        module = self._build(nnx.Rngs(key))
        params, stats = nnx.state(module, nnx.Param), nnx.state(module, nnx.BatchStat)
        return Arrays(nnx.to_pure_dict(params), nnx.to_pure_dict(stats))

    def apply(self, arrays: Arrays, call: Callable[[Any], Made]) -> tuple[Made, Any]:
        """Return what `call` makes of the module, and the running moments after it."""
        module = nnx.merge(self._graph, arrays.params, arrays.stats)
        result = call(module)
        return result, nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))


def count_parameters(arrays: Arrays) -> int:
    """Return how many numbers the optimiser moves."""
    return sum(leaf.size for leaf in jax.tree.leaves(arrays.params))
