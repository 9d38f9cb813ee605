"""Implicit maximum likelihood estimation, as published [Georgopoulos et al. 2022, Algorithm 1].

Every epoch draws g codes per cluster, maps them, matches every member to its *nearest generated*
latent (not the other way round: each member pulls something), and takes minibatch Adam steps on

    mean ||z_i - T_c(e_match(i))||^2.

Settings are those of GLANN [Hoshen et al. 2019], with whose IMLE part the paper's text agrees:
Adam re-created at every re-match, the pool drawn in batch norm's train mode, partial batches
dropped, the learning rate halved every 50 epochs. What that does to a cluster's diversity is
measured in docs/results.md.

Symbols: z latent, e code, k clusters, m padded members, g codes in the pool, b batch.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from cgjax.errors import UserError
from cgjax.numerics.optimisers import change_of
from cgjax.runtime.mesh import all_sum
from cgjax.samplers.base import DataParallelEpoch, Members, SamplerBase
from cgjax.samplers.mapping import (
    BN_MOMENTUM,
    MappingFunctions,
    MappingState,
    init_mapping,
    mapping_functions,
)
from cgjax.samplers.matching import MATCHERS, match_all, match_by_faiss
from cgjax.samplers.training import local_shard


class ImleState(NamedTuple):
    """All clusters' mapping networks and optimisers, stacked on a leading axis."""

    mapping: MappingState
    optimizer: Any


@dataclasses.dataclass(frozen=True)
class Imle(SamplerBase):
    """The published sampler; hyper-parameters with the paper's and GLANN's values.

    Attributes:
        latent_dim: d.
        code_dim: d_e; None takes min(d, 64).
        hidden_dim: width; None takes 512 where d is 512 or more, 128 below.
        num_epochs: 400 in the paper.
        batch: members per step.
        pool_factor: the pool has `pool_factor * floor(members / batch) * batch` codes.
        learning_rate: Adam's.
        beta1: Adam's.
        beta2: Adam's.
        weight_decay: L2 added to the gradient, not decoupled.
        decay_epochs: the learning rate is halved as often as this; 0 keeps it.
        reset_optimizer: whether Adam's moments restart at every re-match.
        matcher: one of `MATCHERS`: "jax" matches inside the compiled epoch, "faiss" by FAISS's
            exact index on the host, between the epoch's two compiled halves.
    """

    latent_dim: int
    code_dim: int | None = None
    hidden_dim: int | None = None
    num_epochs: int = 400
    batch: int = 128
    pool_factor: int = 2
    learning_rate: float = 1e-3
    beta1: float = 0.5
    beta2: float = 0.999
    weight_decay: float = 1e-5
    decay_epochs: int = 50
    reset_optimizer: bool = True
    matcher: str = "jax"

    def __post_init__(self) -> None:
        if self.matcher not in MATCHERS:
            raise UserError(f"matcher={self.matcher!r}; expected one of {', '.join(MATCHERS)}")

    @property
    def dims(self) -> tuple[int, int, int]:
        """Sizes of code, hidden layers and latent."""
        hidden = 512 if self.latent_dim >= 512 else 128
        return (
            self.code_dim or min(self.latent_dim, 64),
            self.hidden_dim or hidden,
            self.latent_dim,
        )

    @functools.cached_property
    def functions(self) -> MappingFunctions:
        """The mapping network as pure functions."""
        return mapping_functions(*self.dims)

    @functools.cached_property
    def optimizer(self) -> optax.GradientTransformation:
        """Adam with L2 inside; the learning rate is applied by `epoch`."""
        return optax.chain(
            optax.add_decayed_weights(self.weight_decay),
            optax.scale_by_adam(b1=self.beta1, b2=self.beta2),
        )

    def init(self, key: PRNGKeyArray, members: Members) -> ImleState:
        """Return fresh networks, one a cluster."""
        keys = jax.random.split(key, members.counts.shape[0])
        mapping = jax.vmap(lambda k: init_mapping(k, *self.dims))(keys)
        return ImleState(mapping, jax.vmap(self.optimizer.init)(mapping.params))

    def epoch(
        self, state: ImleState, members: Members, key: PRNGKeyArray, epoch: int
    ) -> tuple[ImleState, dict[str, Array]]:
        """Draw a pool, match, and take one pass of minibatch steps, in one compiled program.

        Args:
            state: as `init` or the epoch before left it; its buffers are donated.
            members: the latents of every cluster.
            key: a key of this epoch's own.
            epoch: counted from 0; sets the learning rate.

        Returns:
            The new state and (k,) metrics: "loss", the mean squared error per coordinate, and
            "match", the mean squared distance of a member to its match.
        """
        if self.matcher == "jax":
            return _epoch(state, members, key, self.rate(epoch), sampler=self)
        pool = _draw(state.mapping, members, key, sampler=self)
        sizes = pool_sizes(members, self)
        matches = match_by_faiss(members, pool.generated, sizes)
        return _learn(state, members, pool, matches, key, self.rate(epoch), sampler=self)

    def data_parallel_epoch(self, members: Members, epoch: int) -> DataParallelEpoch | None:
        """Return the epoch as one function, for several devices; None where the host matches."""
        if self.matcher != "jax":
            return None
        return DataParallelEpoch(epoch_, self.rate(epoch), {"sampler": self})

    def rate(self, epoch: int) -> Array:
        """Return the learning rate of an epoch, a float32 scalar."""
        halvings = epoch // self.decay_epochs if self.decay_epochs else 0
        return jnp.float32(self.learning_rate * 0.5**halvings)

    def sample(
        self, state: ImleState, key: PRNGKeyArray, cluster: int, num: int, margin: float = 0.0
    ) -> Float[Array, "num d"]:
        """Map fresh codes, batch norm in inference mode: a sample does not depend on its batch."""
        return self.map_codes(state.mapping, key, cluster, num)

    def map_codes(
        self, mapping: MappingState, key: PRNGKeyArray, cluster: int, num: int
    ) -> Float[Array, "num d"]:
        """Map fresh codes by the network of one of the clusters, at rest."""
        return _map_codes(mapping, key, jnp.int32(cluster), sampler=self, num=num)


@functools.partial(jax.jit, static_argnames=("sampler", "num"))
def _map_codes(
    mapping: MappingState, key: PRNGKeyArray, cluster: Array, *, sampler: Imle, num: int
) -> Float[Array, "num d"]:
    one = jax.tree.map(lambda x: x[cluster], mapping)
    e = jax.random.normal(key, (num, sampler.dims[0]), jnp.float32)
    return sampler.functions.apply(one, e)[0]


def draw_pool(
    mapping: MappingState,
    e: Float[Array, "s b d_e"],
    used: Int[Array, ""],
    sampler: Imle,
    axis_name: str | None = None,
) -> tuple[Float[Array, "g d"], Any]:
    """Map a pool of codes batch by batch in batch norm's train mode.

    Args:
        mapping: one cluster's network.
        e: (s, b, d_e) codes in s batches; with `axis_name` this device's, s on each.
        used: how many of the batches count, all devices together.
        sampler: the hyper-parameters.
        axis_name: devices over which the batches are spread.

    Returns:
        (s*b, d) latents and the running moments after the used batches.
    """
    z, stats = jax.vmap(lambda batch: sampler.functions.apply(mapping, batch, train=True))(e)
    # Every batch moved the old moments once: old + momentum * (batch's - old). Undo that to get
    # each batch's own, then apply the used ones in order, in closed form.
    position = jnp.arange(e.shape[0], dtype=jnp.int32)
    if axis_name is not None:
        position = position + jax.lax.axis_index(axis_name) * e.shape[0]
    decay = (1.0 - BN_MOMENTUM) ** jnp.maximum(used - 1 - position, 0).astype(jnp.float32)
    weight = jnp.where(position < used, decay, 0.0)
    kept = (1.0 - BN_MOMENTUM) ** used.astype(jnp.float32)

    def fold(old: Array, moved: Array) -> Array:
        fresh = moved - (1.0 - BN_MOMENTUM) * old[None]
        return jnp.einsum("s,s...->...", weight, fresh)

    folded = all_sum(jax.tree.map(fold, mapping.stats, stats), axis_name)
    stats = jax.tree.map(lambda old, new: kept * old + new, mapping.stats, folded)
    return z.reshape(-1, z.shape[-1]), stats


def epoch_(
    state: ImleState,
    members: Members,
    key: PRNGKeyArray,
    rate: Float[Array, ""],
    *,
    sampler: Imle,
    axis_name: str | None = None,
    num_devices: int = 1,
) -> tuple[ImleState, dict[str, Array]]:
    """One epoch on all clusters, without jit: see `Imle.epoch`.

    With `axis_name` every device holds all of the (small) state and members; the pool is split by
    batches, each device matches the members against its part, and every minibatch is split by
    rows; gradients and batch-norm moments are summed, so that the result equals one device's up to
    rounding. Runs under `jax.pmap` and `jax.shard_map`.

    Cost per cluster: 2 g m d operations for the match, 6 m d_e w + ... for the steps; memory
    O(g d + block g).
    """
    on: dict[str, Any] = {"axis_name": axis_name, "num_devices": num_devices}
    pool = draw_(state.mapping, members, key, sampler=sampler, **on)
    matches = match_all(members, pool.generated, pool_sizes(members, sampler), axis_name)
    return learn_(state, members, pool, matches, key, rate, sampler=sampler, **on)


class Pool(NamedTuple):
    """All clusters' codes of one epoch, mapped.

    Attributes:
        codes: (k, g, d_e).
        generated: (k, g, d); with several devices this one's part.
        stats: the batch norms' running moments after the pool.
    """

    codes: Float[Array, "k g d_e"]
    generated: Float[Array, "k g d"]
    stats: Any


def pool_sizes(members: Members, sampler: Imle) -> Int[Array, " k"]:
    """Return how many codes of each cluster's pool count."""
    return sampler.pool_factor * jnp.maximum(1, members.counts // sampler.batch) * sampler.batch


def draw_(
    mapping: MappingState,
    members: Members,
    key: PRNGKeyArray,
    *,
    sampler: Imle,
    axis_name: str | None = None,
    num_devices: int = 1,
) -> Pool:
    """Draw and map the codes of an epoch: its first half."""
    (k, m, _), b = members.latents.shape, sampler.batch
    key_pool, _ = jax.random.split(key)
    pool_steps = sampler.pool_factor * max(1, m // b)
    e = jax.random.normal(key_pool, (k, pool_steps, b, sampler.dims[0]), jnp.float32)
    draw = functools.partial(draw_pool, sampler=sampler, axis_name=axis_name)
    generated, stats = jax.vmap(draw)(
        mapping, local_shard(e, 1, axis_name, num_devices), pool_sizes(members, sampler) // b
    )
    return Pool(e.reshape(k, pool_steps * b, -1), generated, stats)


def learn_(
    state: ImleState,
    members: Members,
    pool: Pool,
    matches: tuple[Int[Array, "k m"], Float[Array, "k m"]],
    key: PRNGKeyArray,
    rate: Float[Array, ""],
    *,
    sampler: Imle,
    axis_name: str | None = None,
    num_devices: int = 1,
) -> tuple[ImleState, dict[str, Array]]:
    """Train on the matches, index and squared distance of each member: an epoch's second half."""
    index, distance = matches
    _, key_order = jax.random.split(key)
    matched = jnp.take_along_axis(pool.codes, index[..., None], axis=1)
    is_member = jnp.arange(index.shape[1], dtype=jnp.int32)[None] < members.counts[:, None]
    state, loss = train_on_matches(
        ImleState(MappingState(state.mapping.params, pool.stats), state.optimizer),
        members,
        matched,
        key_order,
        rate,
        sampler=sampler,
        axis_name=axis_name,
        num_devices=num_devices,
    )
    metrics = {
        "loss": loss,
        "match": jnp.sum(jnp.where(is_member, distance, 0.0), axis=1)
        / jnp.maximum(members.counts, 1).astype(jnp.float32),
    }
    return state, metrics


def train_on_matches(
    state: ImleState,
    members: Members,
    matched: Float[Array, "k m d_e"],
    key: PRNGKeyArray,
    rate: Float[Array, ""],
    *,
    sampler: Imle,
    axis_name: str | None = None,
    num_devices: int = 1,
) -> tuple[ImleState, Float[Array, " k"]]:
    """Take one pass of minibatch steps over members and the codes matched to them.

    Args:
        state: all clusters' networks and optimisers.
        members: the latents of every cluster.
        matched: (k, m, d_e) code of each member.
        key: of the order of the members.
        rate: the learning rate.
        sampler: the hyper-parameters.
        axis_name: as in `epoch_`.
        num_devices: as in `epoch_`.

    Returns:
        The new state and the (k,) mean squared error per coordinate.
    """
    (k, m, _), b = members.latents.shape, sampler.batch
    num_steps = max(1, m // b)
    steps_of = jnp.maximum(1, members.counts // b)  # (k,)

    # A random order of each cluster's members, the padding last.
    is_member = jnp.arange(m, dtype=jnp.int32)[None] < members.counts[:, None]
    noise = jax.random.uniform(key, (k, m), jnp.float32)
    order = jnp.argsort(jnp.where(is_member, noise, 2.0), axis=1)

    def batches(rows: Array) -> Array:
        rows = jnp.take_along_axis(rows, order.reshape(k, m, *[1] * (rows.ndim - 2)), axis=1)
        short = num_steps * b - m
        rows = jnp.pad(rows, [(0, 0), (0, max(0, short))] + [(0, 0)] * (rows.ndim - 2))
        rows = rows[:, : num_steps * b].reshape(k, num_steps, b, *rows.shape[2:])
        return jnp.moveaxis(local_shard(rows, 2, axis_name, num_devices), 1, 0)

    step_data = (batches(members.latents), batches(matched), batches(is_member))

    mapping, optimizer = state
    if sampler.reset_optimizer:
        optimizer = jax.vmap(sampler.optimizer.init)(mapping.params)
    step = functools.partial(_step, rate=rate, sampler=sampler, axis_name=axis_name)

    def body(carry: Any, data: Any) -> tuple[Any, Array]:
        (mapping, optimizer), (number, rows) = carry, data
        new, loss = jax.vmap(step)((mapping, optimizer), rows)
        active = number < steps_of
        keep = jax.tree.map(lambda a, o: _where(active, a, o), new, (mapping, optimizer))
        return keep, jnp.where(active, loss, 0.0)

    numbers = jnp.arange(num_steps, dtype=jnp.int32)
    (mapping, optimizer), losses = jax.lax.scan(body, (mapping, optimizer), (numbers, step_data))
    loss = jnp.sum(losses, axis=0) / steps_of.astype(jnp.float32)
    return ImleState(mapping, optimizer), loss


_epoch = jax.jit(
    epoch_, static_argnames=("sampler", "axis_name", "num_devices"), donate_argnames=("state",)
)
_draw = jax.jit(draw_, static_argnames="sampler")
_learn = jax.jit(learn_, static_argnames="sampler", donate_argnames=("state",))


def _step(
    carry: tuple[MappingState, Any],
    rows: tuple[Array, Array, Array],
    *,
    rate: Array,
    sampler: Imle,
    axis_name: str | None,
) -> tuple[tuple[MappingState, Any], Array]:
    """One Adam step of one cluster on this device's rows of a minibatch."""
    (mapping, optimizer), (z, e, mask) = carry, rows
    weight = mask.astype(jnp.float32)
    count = all_sum(jnp.sum(weight), axis_name)
    scale = 1.0 / (jnp.maximum(count, 1.0) * z.shape[1])

    def loss_of(params: Any) -> tuple[Array, Any]:
        generated, stats = sampler.functions.apply(
            MappingState(params, mapping.stats), e, mask, train=True, axis_name=axis_name
        )
        return scale * (weight @ jnp.sum(jnp.square(z - generated), axis=1)), stats

    (loss, stats), gradient = jax.value_and_grad(loss_of, has_aux=True)(mapping.params)
    # The loss of all devices is the sum of theirs, each already divided by the whole count.
    loss, gradient = all_sum((loss, gradient), axis_name)
    update, optimizer = change_of(sampler.optimizer, gradient, optimizer, mapping.params)
    params = optax.apply_updates(mapping.params, jax.tree.map(lambda u: -rate * u, update))
    return (MappingState(params, stats), optimizer), loss


def _where(active: Array, new: Array, old: Array) -> Array:
    return jnp.where(active.reshape(-1, *[1] * (new.ndim - 1)), new, old)
