"""IMLE's modern variants: other ways to match, and the variance that least squares leaves out.

* `matching="adaptive"` [Aghabozorgi et al. 2023]: every member keeps its code until its distance
  falls below its threshold, or for `force_epochs`. It is then matched again, and its threshold set
  to a share of the new distance. Hard members thus keep their code until it is learnt.
* `matching="rejection"` [Vashist et al. 2024]: generated latents within eps of any member are
  excluded from the match, so that training uses the codes that sampling will draw. eps is a
  quantile of the members' distances to their own nearest neighbours, never an absolute number.
* `residual`: z = T(e) + mean + L n, n ~ N(0, I), with the mean and the shrunk covariance L L^T of
  z_i - T(e_match(i)) after the last epoch: matching explains little variance in many dimensions,
  and this restores the remainder.

Differences from the published loop: Adam keeps its moments, the pool is larger, and members are
matched only every `match_epochs`.

Symbols: z latent, e code, k clusters, m padded members, g codes in the pool.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from cgjax.errors import UserError
from cgjax.kernels.distance import k_nearest, nearest
from cgjax.numerics.networks import Arrays
from cgjax.samplers.base import Members, first_rows
from cgjax.samplers.gaussian import factor_of, shrunk_covariance
from cgjax.samplers.imle import Imle, ImleState, draw_pools, train_on_matches

MATCHINGS = ("nearest", "adaptive", "rejection")


class ModernState(NamedTuple):
    """All clusters' networks, and what is kept for every member.

    Attributes:
        mapping: T_c, stacked.
        optimizer: Adam's moments, stacked.
        codes: (k, m, d_e) code of each member.
        thresholds: (k, m) squared distance below which a member is matched again.
        ages: (k, m) epochs since the match.
        near: (k,) squared eps.
        mean: (k, d) mean of the residual.
        factor: (k, d, d) Cholesky factor of its covariance; zero before the last epoch.
    """

    mapping: Arrays
    optimizer: Any
    codes: Float[Array, "k m d_e"]
    thresholds: Float[Array, "k m"]
    ages: Int[Array, "k m"]
    near: Float[Array, " k"]
    mean: Float[Array, "k d"]
    factor: Float[Array, "k d d"]


@dataclasses.dataclass(frozen=True)
class ModernImle(Imle):
    """IMLE with another match and a residual; hyper-parameters in addition to `Imle`'s.

    Attributes:
        matching: one of `MATCHINGS`.
        residual: add the residual to samples.
        match_epochs: epochs between two matches.
        force_epochs: adaptive: epochs after which a member is matched again regardless.
        threshold: adaptive: share of the distance at the match that counts as learnt.
        quantile: rejection: eps as a quantile of the members' nearest distances.
    """

    num_epochs: int = 150
    pool_factor: int = 4
    decay_epochs: int = 50
    reset_optimizer: bool = False
    matching: str = "nearest"
    residual: bool = True
    match_epochs: int = 5
    force_epochs: int = 30
    threshold: float = 0.96
    quantile: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.matcher != "jax":
            raise UserError(f"matcher={self.matcher!r}; IMLE's modern variants match with jax only")
        if self.matching not in MATCHINGS:
            raise UserError(f"matching={self.matching!r}; expected one of {', '.join(MATCHINGS)}")

    def init(self, key: PRNGKeyArray, members: Members) -> ModernState:  # type: ignore[override]
        """Return new networks; every member is due for its first match."""
        start = super().init(key, members)
        k, m, d = members.latents.shape
        near = jnp.zeros(k, jnp.float32)
        if self.matching == "rejection":
            near = jax.lax.map(
                lambda pair: near_distance(pair[0], pair[1], self.quantile),
                (members.latents, members.counts),
            )
        return ModernState(
            start.mapping,
            start.optimizer,
            jnp.zeros((k, m, self.mapping.code_dim), jnp.float32),
            jnp.full((k, m), jnp.inf, jnp.float32),
            jnp.full((k, m), self.force_epochs, jnp.int32),
            near,
            jnp.zeros((k, d), jnp.float32),
            jnp.zeros((k, d, d), jnp.float32),
        )

    def epoch(  # type: ignore[override]
        self, state: ModernState, members: Members, key: PRNGKeyArray, epoch: int
    ) -> tuple[ModernState, dict[str, Array]]:
        """Match if it is due, then take one pass of steps; (k,) "loss" as in IMLE."""
        key_pool, key_order = jax.random.split(key)
        if epoch % self.match_epochs == 0:
            state = _rematch(state, members, key_pool, sampler=self)
        state, loss = _train(state, members, key_order, self.rate(epoch), sampler=self)
        if self.residual and epoch + 1 == self.num_epochs:
            state = _measure_residual(state, members, sampler=self)
        return state, {"loss": loss}

    def data_parallel_epoch(self, members: Members, epoch: int) -> None:
        """Return None: epochs differ in what is due, and members keep their codes."""
        return None

    def sample(
        self, state: ModernState, key: PRNGKeyArray, cluster: int, num: int, margin: float = 0.0
    ) -> Float[Array, "num d"]:
        """Map fresh codes and, with `residual`, add the residual's noise."""
        z = super().sample(state, key, cluster, num)
        if not self.residual:
            return z
        noise = jax.random.normal(jax.random.fold_in(key, 1), z.shape, jnp.float32)
        return z + state.mean[cluster][None] + noise @ state.factor[cluster].T


def near_distance(
    z: Float[Array, "m d"], count: Int[Array, ""], quantile: float
) -> Float[Array, ""]:
    """Return a quantile of the members' squared distances to their nearest other member."""
    is_member = first_rows(z.shape[0], count)
    # A member's nearest is itself, hence the second.
    _, distance = k_nearest(z, z, min(2, z.shape[0]), valid=is_member)
    return jnp.nan_to_num(jnp.nanquantile(jnp.where(is_member, distance[:, -1], jnp.nan), quantile))


def usable(
    generated: Float[Array, "g d"],
    valid: Bool[Array, " g"],
    z: Float[Array, "m d"],
    count: Int[Array, ""],
    near: Float[Array, ""],
) -> Bool[Array, " g"]:
    """Return which valid latents lie farther than eps from every member; if none do, all."""
    _, distance = nearest(generated, z, valid=first_rows(z.shape[0], count))
    far = valid & (distance > near)
    return jnp.where(jnp.any(far), far, valid)


@functools.partial(jax.jit, static_argnames=("sampler",))
def _rematch(
    state: ModernState, members: Members, key: PRNGKeyArray, *, sampler: ModernImle
) -> ModernState:
    pool = draw_pools(state.mapping, members, key, sampler=sampler)

    def match(cluster: tuple[Array, ...]) -> tuple[Array, Array]:
        z, count, generated, size, near = cluster
        valid = first_rows(generated.shape[0], size)
        if sampler.matching == "rejection":
            valid = usable(generated, valid, z, count, near)
        return nearest(z, generated, valid=valid)

    index, distance = jax.lax.map(
        match, (members.latents, members.counts, pool.generated, pool.sizes, state.near)
    )
    codes = jnp.take_along_axis(pool.codes, index[..., None], axis=1)
    state = state._replace(mapping=Arrays(state.mapping.params, pool.stats))
    if sampler.matching != "adaptive":
        return state._replace(codes=codes)
    learnt = distances(state, members, sampler) < state.thresholds
    due = learnt | (state.ages >= sampler.force_epochs)
    return state._replace(
        codes=jnp.where(due[..., None], codes, state.codes),
        thresholds=jnp.where(due, sampler.threshold * distance, state.thresholds),
        ages=jnp.where(due, 0, state.ages),
    )


def distances(state: ModernState, members: Members, sampler: ModernImle) -> Float[Array, "k m"]:
    """Return each member's squared distance to its code's latent, in inference mode."""
    mapped = jax.vmap(lambda t, e: sampler.mapping.apply(t, e)[0])(state.mapping, state.codes)
    return jnp.sum(jnp.square(members.latents - mapped), axis=2)


@functools.partial(jax.jit, static_argnames=("sampler",), donate_argnames=("state",))
def _train(
    state: ModernState, members: Members, key: PRNGKeyArray, rate: Array, *, sampler: ModernImle
) -> tuple[ModernState, Float[Array, " k"]]:
    (mapping, optimizer), loss = train_on_matches(
        ImleState(state.mapping, state.optimizer), members, state.codes, key, rate, sampler=sampler
    )
    return state._replace(mapping=mapping, optimizer=optimizer, ages=state.ages + 1), loss


@functools.partial(jax.jit, static_argnames=("sampler",))
def _measure_residual(state: ModernState, members: Members, *, sampler: ModernImle) -> ModernState:
    def measure(cluster: tuple[Any, Array, Array, Array]) -> tuple[Array, Array]:
        mapping, e, z, count = cluster
        residuals = z - sampler.mapping.apply(mapping, e)[0]
        mean, covariance = shrunk_covariance(
            residuals, first_rows(z.shape[0], count).astype(z.dtype)
        )
        return mean, factor_of(covariance)

    mean, factor = jax.lax.map(
        measure, (state.mapping, state.codes, members.latents, members.counts)
    )
    return state._replace(mean=mean, factor=factor)
