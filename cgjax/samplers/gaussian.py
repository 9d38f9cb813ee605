"""A Gaussian, or a mixture of Gaussians, per cluster: the baselines that learning has to beat.

Covariances are shrunk towards a multiple of the identity by the optimal amount [Ledoit & Wolf
2004],

    C = (1 - a) S + a mu I,   mu = tr S / d,   a = min(1, b^2 / ||S - mu I||^2),
    b^2 = (sum_i ||x_i x_i^T - S||^2) / n^2,

with every sum weighted by the responsibilities in a mixture. A mixture is fitted by expectation
maximisation, one iteration per epoch; a single Gaussian needs only one.

Symbols: z latent, x centred latent, k clusters, m padded members, j components, r responsibilities.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from cgjax.samplers.base import Members, SamplerBase, as_cluster, first_rows
from cgjax.samplers.training import draw_members


class GaussianState(NamedTuple):
    """The mixtures of all clusters.

    Attributes:
        weights: (k, j) summing to 1 over j.
        means: (k, j, d).
        factors: (k, j, d, d), lower Cholesky factors of the covariances.
    """

    weights: Float[Array, "k j"]
    means: Float[Array, "k j d"]
    factors: Float[Array, "k j d d"]


@dataclasses.dataclass(frozen=True)
class Gaussian(SamplerBase):
    """One Gaussian per cluster.

    Attributes:
        latent_dim: d.
        num_components: j.
        num_epochs: iterations; one is exact for one component.
        num_latents: prior latents whose members are learnt from; None uses those of the run.
    """

    latent_dim: int
    num_components: int = 1
    num_epochs: int = 1
    num_latents: int | None = None

    def init(self, key: PRNGKeyArray, members: Members) -> GaussianState:
        """Return unit Gaussians at random members."""
        (k, _, d), j = members.latents.shape, self.num_components
        means = draw_members(members, key, j)
        factors = jnp.broadcast_to(jnp.eye(d, dtype=jnp.float32), (k, j, d, d))
        return GaussianState(jnp.full((k, j), 1.0 / j, jnp.float32), means, factors)

    def epoch(
        self, state: GaussianState, members: Members, key: PRNGKeyArray, epoch: int
    ) -> tuple[GaussianState, dict[str, Array]]:
        """Run one iteration; (k,) "loss" is the mean negative log likelihood before it."""
        return _epoch(state, members)

    def sample(
        self, state: GaussianState, key: PRNGKeyArray, cluster: int, num: int, margin: float = 0.0
    ) -> Float[Array, "num d"]:
        """Pick a component for each latent and draw from it."""
        return _sample(state, key, as_cluster(cluster, len(state.means)), num=num)


@dataclasses.dataclass(frozen=True)
class GaussianMixture(Gaussian):
    """Several Gaussians per cluster; see `Gaussian`."""

    num_components: int = 8
    num_epochs: int = 30


def shrunk_covariance(
    z: Float[Array, "m d"], r: Float[Array, " m"]
) -> tuple[Float[Array, " d"], Float[Array, "d d"]]:
    """Return the weighted mean and the Ledoit-Wolf covariance of rows.

    Args:
        z: (m, d) rows.
        r: (m,) weights from 0 to 1; 0 excludes a row.

    Returns:
        (d,) mean and (d, d) covariance: singular of equal rows and of two, see `factor_of`.
    """
    d = z.shape[1]
    n = jnp.maximum(jnp.sum(r), 1e-6)
    mean = (r @ z) / n
    x = z - mean[None]
    s = jnp.matmul(x.T, x * r[:, None], precision="highest") / n
    mu = jnp.trace(s) / d
    eye = jnp.eye(d, dtype=z.dtype)
    spread = jnp.sum(jnp.square(s - mu * eye))
    lengths = jnp.sum(jnp.square(x), axis=1)
    noise = jnp.maximum(r @ jnp.square(lengths) / n - jnp.sum(jnp.square(s)), 0.0) / n
    a = jnp.where(spread > 0.0, jnp.minimum(noise / jnp.maximum(spread, 1e-30), 1.0), 1.0)
    return mean, (1.0 - a) * s + (a * mu) * eye


def log_densities(
    z: Float[Array, "m d"], means: Float[Array, "j d"], factors: Float[Array, "j d d"]
) -> Float[Array, "j m"]:
    """Return every component's log density at every row, one component at a time."""

    def log_density(component: tuple[Array, Array]) -> Array:
        mean, factor = component
        x = jax.scipy.linalg.solve_triangular(factor, (z - mean[None]).T, lower=True)
        half_log_det = jnp.sum(jnp.log(jnp.diagonal(factor)))
        constant = 0.5 * z.shape[1] * math.log(2.0 * math.pi)
        return -0.5 * jnp.sum(jnp.square(x), axis=0) - half_log_det - constant

    return jax.lax.map(log_density, (means, factors))


def factor_of(covariances: Float[Array, "*n d d"]) -> Float[Array, "*n d d"]:
    """Return Cholesky factors; a small diagonal keeps those of equal members finite.

    That of two members is too small: their covariance has a single direction and is not shrunk, and
    rounding may leave other directions below zero. Only there the diagonal is raised above it.
    """
    d, eps = covariances.shape[-1], jnp.finfo(covariances.dtype).eps
    eye = jnp.broadcast_to(jnp.eye(d, dtype=covariances.dtype), covariances.shape)
    factors = jnp.linalg.cholesky(covariances + 1e-6 * eye)
    is_finite = jnp.isfinite(factors).all(axis=(-2, -1))
    rounding = d * eps * jnp.trace(covariances, axis1=-2, axis2=-1)
    # After the first ones, not beside them: XLA has been seen to wait for ever for two at a time.
    floor = jnp.where(is_finite, 1e-6, 1e-6 + rounding)
    return jnp.linalg.cholesky(covariances + floor[..., None, None] * eye)


def iterate(
    state: GaussianState, z: Float[Array, "m d"], count: Int[Array, ""]
) -> tuple[GaussianState, Float[Array, ""]]:
    """One iteration of expectation maximisation on one cluster (no leading axis)."""
    is_member = first_rows(z.shape[0], count).astype(z.dtype)
    joint = log_densities(z, state.means, state.factors) + jnp.log(state.weights)[:, None]
    total = jax.scipy.special.logsumexp(joint, axis=0)
    r = jnp.exp(joint - total[None]) * is_member[None]
    n = jnp.maximum(jnp.sum(is_member), 1.0)
    weights = (jnp.sum(r, axis=1) + 1e-6) / (n + 1e-6 * len(state.weights))
    means, covariances = jax.lax.map(lambda one: shrunk_covariance(z, one), r)
    factors = factor_of(covariances)
    loss = -(is_member @ total) / n
    return GaussianState(weights / jnp.sum(weights), means, factors), loss


@jax.jit
def _epoch(state: GaussianState, members: Members) -> tuple[GaussianState, dict[str, Array]]:
    state, loss = jax.vmap(iterate)(state, members.latents, members.counts)
    return state, {"loss": loss}


@functools.partial(jax.jit, static_argnames=("num",))
def _sample(
    state: GaussianState, key: PRNGKeyArray, cluster: Array, *, num: int
) -> Float[Array, "num d"]:
    key_pick, key_noise = jax.random.split(key)
    mixture = jax.tree.map(lambda x: x[cluster], state)
    j, d = mixture.means.shape
    picked = jax.random.categorical(key_pick, jnp.log(mixture.weights), shape=(num,))
    noise = jax.random.normal(key_noise, (num, d), jnp.float32)

    def add(z: Array, component: tuple[Array, Array, Array]) -> tuple[Array, None]:
        number, mean, factor = component
        drawn = mean[None] + noise @ factor.T
        return jnp.where((picked == number)[:, None], drawn, z), None

    components = (jnp.arange(j, dtype=jnp.int32), mixture.means, mixture.factors)
    return jax.lax.scan(add, noise, components)[0]
