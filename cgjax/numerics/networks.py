"""A flax module as pure functions of its arrays, which are a plain tree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from flax import nnx
from jaxtyping import PRNGKeyArray

Result = TypeVar("Result")


class Arrays(NamedTuple):
    """The arrays of one network, or of many stacked on a leading axis.

    Attributes:
        params: what the optimiser updates, a nested dict.
        stats: running moments of batch norms, a nested dict; empty if there are none.
    """

    params: Any
    stats: Any


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
        """Take a function that builds the module from its random streams; allocates nothing."""
        self._build = build
        self._graph = nnx.graphdef(nnx.eval_shape(lambda: build(nnx.Rngs(0))))

    def init(self, key: PRNGKeyArray) -> Arrays:
        """Return the arrays of a freshly initialised network; vmap over keys to stack several."""
        module = self._build(nnx.Rngs(key))
        params, stats = nnx.state(module, nnx.Param), nnx.state(module, nnx.BatchStat)
        return Arrays(nnx.to_pure_dict(params), nnx.to_pure_dict(stats))

    def apply(self, arrays: Arrays, call: Callable[[Any], Result]) -> tuple[Result, Any]:
        """Return `call` of the module with these arrays, and the running moments after it."""
        module = nnx.merge(self._graph, arrays.params, arrays.stats)
        result = call(module)
        return result, nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))
