"""T_c, the small network that maps auxiliary codes to latents of one cluster.

Three dense layers without biases, batch norm and ReLU between them, linear output
[Georgopoulos et al. 2022, section 3; layout as in Hoshen et al. 2019].

Symbols: e code (n, d_e), z latent (n, d).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from cgjax.numerics.networks import Arrays, Network
from cgjax.runtime.mesh import all_sum
from cgjax.samplers.base import SamplerBase, SamplerState, as_cluster

BN_EPS = 1e-5
BN_MOMENTUM = 0.1  # share of the newest batch in the running statistics, PyTorch's default


class MaskedBatchNorm(nnx.Module):
    """Batch norm whose moments count valid rows only, over all devices.

    flax's own batch norm averages the devices' masked means without weighting them by their counts,
    which is wrong whenever a batch does not divide evenly.
    """

    def __init__(self, width: int):
        self.scale = nnx.Param(jnp.ones(width, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(width, jnp.float32))
        self.mean = nnx.BatchStat(jnp.zeros(width, jnp.float32))
        self.var = nnx.BatchStat(jnp.ones(width, jnp.float32))

    def __call__(
        self,
        x: Float[Array, "n w"],
        counted: tuple[Float[Array, " n"], Float[Array, ""]] | None,
        axis_name: str | None,
    ) -> Float[Array, "n w"]:
        """Normalise.

        Args:
            x: this device's rows.
            counted: in train mode, each row's weight in the moments (0 or 1) and their sum over all
                devices; the batch's moments are then used, and update the running ones. None in
                inference mode.
            axis_name: mesh axis that the batch is spread over.
        """
        if counted is None:
            mean, var = self.mean[...], self.var[...]
        else:
            weight, count = counted
            safe = jnp.maximum(count, 1.0)
            mean = all_sum(weight @ x, axis_name) / safe
            var = all_sum(weight @ jnp.square(x - mean[None]), axis_name) / safe
            # The running variance is the unbiased one, as in PyTorch.
            unbiased = var * (safe / jnp.maximum(count - 1.0, 1.0))
            self.mean[...] = (1 - BN_MOMENTUM) * self.mean[...] + BN_MOMENTUM * mean
            self.var[...] = (1 - BN_MOMENTUM) * self.var[...] + BN_MOMENTUM * unbiased
        scale = self.scale[...] * jax.lax.rsqrt(var + BN_EPS)
        return (x - mean[None]) * scale[None] + self.bias[...][None]


class MappingNetwork(nnx.Module):
    """T_c: (n, d_e) codes to (n, d) latents."""

    def __init__(self, code_dim: int, hidden_dim: int, latent_dim: int, *, rngs: nnx.Rngs):
        """Initialise the three layers as PyTorch does: uniform within 1/sqrt(inputs)."""
        dims = (code_dim, hidden_dim, hidden_dim, latent_dim)
        self.kernels = nnx.List(
            nnx.Param(jax.random.uniform(rngs.params(), (i, o), jnp.float32, -(i**-0.5), i**-0.5))
            for i, o in itertools.pairwise(dims)
        )
        self.norms = nnx.List(MaskedBatchNorm(hidden_dim) for _ in range(2))

    def __call__(
        self,
        e: Float[Array, "n d_e"],
        mask: Bool[Array, " n"] | None = None,
        *,
        train: bool = False,
        axis_name: str | None = None,
    ) -> Float[Array, "n d"]:
        """Map codes to latents.

        Args:
            e: (n, d_e) float32, unit normal.
            mask: (n,) rows that count in the batch's moments; all by default.
            train: whether to normalise with the batch's moments and update the running ones.
            axis_name: mesh axis that the batch is spread over.

        Returns:
            (n, d) float32.
        """
        counted = None
        if train:
            weight = jnp.ones(e.shape[:1], e.dtype) if mask is None else mask.astype(e.dtype)
            counted = weight, all_sum(jnp.sum(weight), axis_name)
        x = e
        for kernel, norm in zip(self.kernels[:-1], self.norms, strict=True):
            x = jax.nn.relu(norm(x @ kernel[...], counted, axis_name))
        return x @ self.kernels[-1][...]


class CodeMapping(NamedTuple):
    """The mapping networks of given sizes, as pure functions of their arrays; hashable.

    Attributes:
        code_dim: d_e.
        hidden_dim: width of the two hidden layers.
        latent_dim: d.
    """

    code_dim: int
    hidden_dim: int
    latent_dim: int

    def init(self, key: PRNGKeyArray) -> Arrays:
        """Return the arrays of a new network; vmap over keys to stack clusters."""
        return _network(self).init(key)

    def apply(
        self,
        arrays: Arrays,
        e: Float[Array, "n d_e"],
        mask: Bool[Array, " n"] | None = None,
        *,
        train: bool = False,
        axis_name: str | None = None,
    ) -> tuple[Float[Array, "n d"], Any]:
        """Return the latents and the batch norms' running moments after the call."""
        return _network(self).apply(
            arrays, lambda network: network(e, mask, train=train, axis_name=axis_name)
        )


@functools.cache
def _network(mapping: CodeMapping) -> Network:
    return Network(lambda rngs: MappingNetwork(*mapping, rngs=rngs))


@functools.partial(jax.jit, static_argnames=("mapping", "num"))
def _draw(
    stacked: Arrays, key: PRNGKeyArray, cluster: Array, *, mapping: CodeMapping, num: int
) -> Float[Array, "num d"]:
    one = jax.tree.map(lambda x: x[cluster], stacked)
    e = jax.random.normal(key, (num, mapping.code_dim), jnp.float32)
    return mapping.apply(one, e)[0]


@dataclasses.dataclass(frozen=True)
class CodeSampler(SamplerBase):
    """A sampler that maps fresh codes; its state holds the stacked networks as `mapping`.

    Attributes:
        latent_dim: d.
        code_dim: d_e; None takes min(d, 64).
        hidden_dim: width of the mapping; None takes 512 where d is 512 or more, 128 below.
    """

    latent_dim: int
    code_dim: int | None = None
    hidden_dim: int | None = None

    @functools.cached_property
    def mapping(self) -> CodeMapping:
        """The mapping network."""
        d, width = self.latent_dim, 512 if self.latent_dim >= 512 else 128
        return CodeMapping(self.code_dim or min(d, 64), self.hidden_dim or width, d)

    def sample(
        self, state: SamplerState, key: PRNGKeyArray, cluster: int, num: int, margin: float = 0.0
    ) -> Float[Array, "num d"]:
        """Map fresh codes in inference mode: a sample does not depend on its batch."""
        c = as_cluster(cluster, len(jax.tree.leaves(state.mapping)[0]))
        return _draw(state.mapping, key, c, mapping=self.mapping, num=num)
