"""IMLE's modern forms: other matches, and the variance that least squares leave out.

* `matching="adaptive"` [Aghabozorgi et al. 2023]: every member keeps its code. It is matched again
  once its distance fell below its threshold, then set to a share of the new distance, or after
  `force_epochs`. Hard members keep their code until it is learnt.
* `matching="rejection"` [Vashist et al. 2024]: what the pool holds within eps of some member is
  left out of the match, so that the codes used are those that a sample will be drawn with. eps is a
  quantile of the members' distances to their own nearest neighbours, never an absolute number.
* `residual`: z = T(e) + mean + L n, n ~ N(0, I), with mean and shrunk covariance L L^T of
  z_i - T(e_match(i)) after the last epoch: matching explains little variance in many dimensions,
  and this puts the rest back.

Against the published loop: Adam keeps its moments, the pool is larger, members are matched every
`match_epochs` only.

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
from cgjax.samplers.base import Members
from cgjax.samplers.gaussian import factor_of, shrunk_covariance
from cgjax.samplers.imle import Imle, ImleState, draw_pool, train_on_matches
from cgjax.samplers.mapping import MappingState

MATCHINGS = ("nearest", "adaptive", "rejection")


class ModernState(NamedTuple):
    """All clusters' networks and what is remembered of every member.

    Attributes:
        mapping: T_c, stacked.
        optimizer: Adam's moments, stacked.
        codes: (k, m, d_e) code of each member.
        thresholds: (k, m) squared distance below which a member is matched again.
        ages: (k, m) epochs since the match.
        near: (k,) squared eps.
        mean: (k, d) of the residual.
        factor: (k, d, d) of its covariance; zero before the last epoch.
    """

    mapping: MappingState
    optimizer: Any
    codes: Float[Array, "k m d_e"]
    thresholds: Float[Array, "k m"]
    ages: Int[Array, "k m"]
    near: Float[Array, " k"]
    mean: Float[Array, "k d"]
    factor: Float[Array, "k d d"]


@dataclasses.dataclass(frozen=True)
class ModernImle(Imle):
    """IMLE with another match and a residual; hyper-parameters beside `Imle`'s.

    Attributes:
        matching: one of `MATCHINGS`.
        residual: add the residual to samples.
        match_epochs: epochs between two matches.
        force_epochs: adaptive: epochs after which a member is matched again in any case.
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
            raise UserError(f"matcher={self.matcher!r}; IMLE's modern forms match with jax only")
        if self.matching not in MATCHINGS:
            raise UserError(f"matching={self.matching!r}; expected one of {', '.join(MATCHINGS)}")

    def init(self, key: PRNGKeyArray, members: Members) -> ModernState:  # type: ignore[override]
        """Return fresh networks; every member is due for its first match."""
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
            jnp.zeros((k, m, self.dims[0]), jnp.float32),
            jnp.full((k, m), jnp.inf, jnp.float32),
            jnp.full((k, m), self.force_epochs, jnp.int32),
            near,
            jnp.zeros((k, d), jnp.float32),
            jnp.zeros((k, d, d), jnp.float32),
        )

    def epoch(  # type: ignore[override]
        self, state: ModernState, members: Members, key: PRNGKeyArray, epoch: int
    ) -> tuple[ModernState, dict[str, Array]]:
        """Match where it is due, take one pass of steps; (k,) "loss" as IMLE's."""
        key_pool, key_order = jax.random.split(key)
        if epoch % self.match_epochs == 0:
            state = _rematch(state, members, key_pool, sampler=self)
        state, loss = _train(state, members, key_order, self.rate(epoch), sampler=self)
        if self.residual and epoch + 1 == self.num_epochs:
            state = _measure_residual(state, members, sampler=self)
        return state, {"loss": loss}

    def data_parallel_epoch(self, members: Members, epoch: int) -> None:
        """Return None: its epochs differ by what is due, and members keep codes."""
        return None

    def sample(  # type: ignore[override]
        self, state: ModernState, key: PRNGKeyArray, cluster: int, num: int, margin: float = 0.0
    ) -> Float[Array, "num d"]:
        """Map fresh codes and, with `residual`, add the residual's noise."""
        z = self.map_codes(state.mapping, key, cluster, num)
        if not self.residual:
            return z
        noise = jax.random.normal(jax.random.fold_in(key, 1), z.shape, jnp.float32)
        return z + state.mean[cluster][None] + noise @ state.factor[cluster].T


def near_distance(
    z: Float[Array, "m d"], count: Int[Array, ""], quantile: float
) -> Float[Array, ""]:
    """Return a quantile of the members' squared distances to their nearest other member."""
    is_member = jnp.arange(z.shape[0], dtype=jnp.int32) < count
    # The nearest of all is the member itself.
    _, distance = k_nearest(z, z, min(2, z.shape[0]), valid=is_member)
    return jnp.nan_to_num(jnp.nanquantile(jnp.where(is_member, distance[:, -1], jnp.nan), quantile))


def usable(
    generated: Float[Array, "g d"],
    valid: Bool[Array, " g"],
    z: Float[Array, "m d"],
    count: Int[Array, ""],
    near: Float[Array, ""],
) -> Bool[Array, " g"]:
    """Return which generated latents lie further than eps from every member.

    All valid ones where none would be left.
    """
    _, distance = nearest(generated, z, valid=jnp.arange(z.shape[0], dtype=jnp.int32) < count)
    far = valid & (distance > near)
    return jnp.where(jnp.any(far), far, valid)


@functools.partial(jax.jit, static_argnames=("sampler",))
def _rematch(
    state: ModernState, members: Members, key: PRNGKeyArray, *, sampler: ModernImle
) -> ModernState:
    (k, m, _), b = members.latents.shape, sampler.batch
    batches = sampler.pool_factor * max(1, m // b)
    used = sampler.pool_factor * jnp.maximum(1, members.counts // b)
    e = jax.random.normal(key, (k, batches, b, sampler.dims[0]), jnp.float32)
    generated, stats = jax.vmap(functools.partial(draw_pool, sampler=sampler))(
        state.mapping, e, used
    )

    def one(args: tuple[Array, ...]) -> tuple[Array, Array]:
        z, count, made, num, near = args
        valid = jnp.arange(made.shape[0], dtype=jnp.int32) < num
        if sampler.matching == "rejection":
            valid = usable(made, valid, z, count, near)
        return nearest(z, made, valid=valid)

    index, distance = jax.lax.map(
        one, (members.latents, members.counts, generated, used * b, state.near)
    )
    codes = jnp.take_along_axis(e.reshape(k, batches * b, -1), index[..., None], axis=1)
    state = state._replace(mapping=MappingState(state.mapping.params, stats))
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
    """Return each member's squared distance to its code's latent, batch norm at rest."""
    made = jax.vmap(lambda t, e: sampler.functions.apply(t, e)[0])(state.mapping, state.codes)
    return jnp.sum(jnp.square(members.latents - made), axis=2)


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
    def one(args: tuple[Any, Array, Array, Array]) -> tuple[Array, Array]:
        mapping, e, z, count = args
        rest = z - sampler.functions.apply(mapping, e)[0]
        weights = (jnp.arange(z.shape[0], dtype=jnp.int32) < count).astype(z.dtype)
        mean, covariance = shrunk_covariance(rest, weights)
        return mean, factor_of(covariance)

    mean, factor = jax.lax.map(one, (state.mapping, state.codes, members.latents, members.counts))
    return state._replace(mean=mean, factor=factor)
