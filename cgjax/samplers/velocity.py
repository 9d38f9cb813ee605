"""The flow's network v(x, t, c, q), one for all clusters, and its pure functions.

Symbols: x point on the path, t time, c cluster, q margin quantile, k clusters.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from cgjax.numerics.networks import Arrays, Network

TIME_FREQUENCIES = 4


class VelocityNetwork(nnx.Module):
    """v(x, t, c, q): three dense layers; t and q enter as waves, the cluster as a bias."""

    def __init__(self, latent_dim: int, hidden_dim: int, num_clusters: int, *, rngs: nnx.Rngs):
        """Initialise; the last layer is zero so that training starts from the prior."""
        normal, waves = nnx.initializers.lecun_normal(), 2 * TIME_FREQUENCIES + 1
        self.inner = nnx.Param(normal(rngs.params(), (latent_dim, hidden_dim), jnp.float32))
        self.waves = nnx.Param(normal(rngs.params(), (waves, hidden_dim), jnp.float32))
        shape = (num_clusters, hidden_dim)
        self.cluster = nnx.Param(0.5 * jax.random.normal(rngs.params(), shape, jnp.float32))
        self.hidden = nnx.Param(normal(rngs.params(), (hidden_dim, hidden_dim), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(hidden_dim, jnp.float32))
        self.outer = nnx.Param(jnp.zeros((hidden_dim, latent_dim), jnp.float32))
        self.shift = nnx.Param(jnp.zeros(latent_dim, jnp.float32))

    def __call__(
        self,
        x: Float[Array, "n d"],
        t: Float[Array, " n"],
        c: Int[Array, " n"],
        q: Float[Array, " n"],
    ) -> Float[Array, "n d"]:
        """Return the velocity.

        Args:
            x: (n, d) float32, points on the path.
            t: (n,) float32 in [0, 1].
            c: (n,) int32 cluster ids.
            q: (n,) float32 in [0, 1), margin quantiles.
        """
        angle = (
            (0.5 * math.pi)
            * t[:, None]
            * jnp.arange(1.0, TIME_FREQUENCIES + 1, dtype=jnp.float32)[None]
        )
        waves = jnp.concatenate([jnp.sin(angle), jnp.cos(angle), 2.0 * q[:, None]], axis=1)
        a = x @ self.inner[...] + waves @ self.waves[...] + self.cluster[...][c]
        a = jax.nn.silu(a)
        a = jax.nn.silu(a @ self.hidden[...] + self.bias[...][None])
        return a @ self.outer[...] + self.shift[...][None]


def init_velocity(key: PRNGKeyArray, latent_dim: int, hidden_dim: int, num_clusters: int) -> Any:
    """Return the arrays of a new network, a nested dict."""
    return _network(latent_dim, hidden_dim, num_clusters).init(key).params


def num_clusters_of(params: Any) -> int:
    """Return how many clusters a network's arrays are for."""
    return len(params["cluster"])


@functools.cache
def _network(latent_dim: int, hidden_dim: int, num_clusters: int) -> Network:
    return Network(lambda rngs: VelocityNetwork(latent_dim, hidden_dim, num_clusters, rngs=rngs))


def velocity(
    params: Any,
    x: Float[Array, "n d"],
    t: Float[Array, " n"],
    c: Int[Array, " n"],
    q: Float[Array, " n"],
) -> Float[Array, "n d"]:
    """Return v(x, t, c, q) from plain arrays; see `VelocityNetwork`."""
    network = _network(*params["inner"].shape, num_clusters_of(params))
    return network.apply(Arrays(params, {}), lambda module: module(x, t, c, q))[0]
