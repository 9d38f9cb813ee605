"""The interface of networks: pure functions of parameters and running moments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

Result = TypeVar("Result")


class Arrays(NamedTuple):
    """The arrays of one network.

    Attributes:
        params: what the optimiser updates, a nested dict.
        stats: running moments of batch norms, a nested dict; empty if there are none.
    """

    params: Any
    stats: Any


@runtime_checkable
class Generator(Protocol):
    """Maps latents and labels to rows."""

    def __call__(
        self, z: Float[Array, "n d"], labels: Int[Array, " n"], *, train: bool
    ) -> Float[Array, "n ..."]:
        """Generate; in train mode batch norms use the batch's moments and move the running ones."""


@runtime_checkable
class Discriminator(Protocol):
    """Maps rows to features, and features to one or more logits."""

    def features(self, x: Float[Array, "n ..."], *, train: bool) -> Float[Array, "n f"]:
        """Return the features to cluster: the input of the last layer."""

    def __call__(self, x: Float[Array, "n ..."], *, train: bool) -> Float[Array, "n outputs"]:
        """Return all logits."""


@runtime_checkable
class Architecture(Protocol):
    """The two networks of an experiment; hashable, so that it can be a static argument of jit.

    Attributes:
        latent_dim: length of z.
        is_rowwise: whether the discriminator treats every row independently, so that real and
            generated rows can go through it in one pass; false with batch norms.
    """

    @property
    def latent_dim(self) -> int: ...  # noqa: D102

    @property
    def is_rowwise(self) -> bool: ...  # noqa: D102

    def generator(self, num_labels: int, rngs: nnx.Rngs) -> Generator:
        """Return a generator, unconditional if there is only one label."""

    def generators(self, num_labels: int, rngs: nnx.Rngs) -> Generator:
        """Return one generator per label, sharing all but their first layer."""

    def discriminator(self, num_outputs: int, pack: int, rngs: nnx.Rngs) -> Discriminator:
        """Return a discriminator that judges `pack` rows together."""


class Network:
    """A flax module as pure functions; holds no arrays itself.

    Example:
        >>> import jax
        >>> network = Network(lambda rngs: nnx.Linear(2, 3, rngs=rngs))
        >>> arrays = network.init(jax.random.key(0))
        >>> network.apply(arrays, lambda module: module(jax.numpy.ones((5, 2))))[0].shape
        (5, 3)
    """

    def __init__(self, build: Callable[[nnx.Rngs], Any]):
        """Take a function that builds the module from its random streams."""
        self._build = build
        self._graph = nnx.graphdef(nnx.eval_shape(lambda: build(nnx.Rngs(0))))

    def init(self, key: PRNGKeyArray) -> Arrays:
        """Return the arrays of a freshly initialised network."""
        module = self._build(nnx.Rngs(key))
        params, stats = nnx.state(module, nnx.Param), nnx.state(module, nnx.BatchStat)
        return Arrays(nnx.to_pure_dict(params), nnx.to_pure_dict(stats))

    def apply(self, arrays: Arrays, call: Callable[[Any], Result]) -> tuple[Result, Any]:
        """Return `call` of the module with these arrays, and the running moments after it."""
        module = nnx.merge(self._graph, arrays.params, arrays.stats)
        result = call(module)
        return result, nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))
