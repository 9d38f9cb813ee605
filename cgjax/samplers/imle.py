"""Implicit maximum likelihood estimation, as published [Georgopoulos et al. 2022, Algorithm 1].

Every epoch draws g codes per cluster and maps them, matches every member to its *nearest generated*
latent (not the other way round: every member pulls on something), and takes minibatch Adam steps on

    mean ||z_i - T_c(e_match(i))||^2.

`epoch_` is that algorithm: `draw_pools`, `matching.match_all`, `train_on_matches`. `Imle` holds the
hyper-parameters and the schedule. The settings are those of GLANN [Hoshen et al. 2019], whose IMLE
part agrees with the paper's text: Adam restarts at every re-match, the pool is drawn in batch
norm's train mode, partial batches are dropped, and the learning rate is halved every 50 epochs.
docs/results.md measures what that does to a cluster's diversity.

Symbols: z latent, e code, k clusters, m padded members, g codes in the pool, b batch.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from cgjax.errors import UserError
from cgjax.numerics.networks import Arrays
from cgjax.samplers.base import DataParallelEpoch, Members
from cgjax.samplers.mapping import BN_MOMENTUM, CodeSampler
from cgjax.samplers.matching import MATCHERS, match_all, match_by_faiss
from cgjax.samplers.training import ONE_DEVICE, Devices, update


class ImleState(NamedTuple):
    """All clusters' mapping networks and optimisers, stacked on a leading axis."""

    mapping: Arrays
    optimizer: Any


@dataclasses.dataclass(frozen=True)
class Imle(CodeSampler):
    """The published sampler; hyper-parameters beside `CodeSampler`'s, the paper's and GLANN's.

    Attributes:
        num_epochs: 400 in the paper.
        batch: members per step.
        pool_factor: the pool has `pool_factor * floor(members / batch) * batch` codes.
        learning_rate: Adam's.
        beta1: Adam's.
        beta2: Adam's.
        weight_decay: L2 added to the gradient, not decoupled.
        decay_epochs: epochs between two halvings of the learning rate; 0 keeps it constant.
        reset_optimizer: whether Adam's moments restart at every re-match.
        matcher: one of `MATCHERS`: "jax" matches inside the compiled epoch, "faiss" with FAISS's
            exact index on the host, between the epoch's two compiled halves.
    """

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

    @functools.cached_property
    def optimizer(self) -> optax.GradientTransformation:
        """Adam with L2 inside; `epoch` applies the learning rate."""
        return optax.chain(
            optax.add_decayed_weights(self.weight_decay),
            optax.scale_by_adam(b1=self.beta1, b2=self.beta2),
        )

    def init(self, key: PRNGKeyArray, members: Members) -> ImleState:
        """Return new networks, one per cluster."""
        keys = jax.random.split(key, members.counts.shape[0])
        mapping = jax.vmap(self.mapping.init)(keys)
        return ImleState(mapping, jax.vmap(self.optimizer.init)(mapping.params))

    def epoch(
        self, state: ImleState, members: Members, key: PRNGKeyArray, epoch: int
    ) -> tuple[ImleState, dict[str, Array]]:
        """Draw a pool, match, and take one pass of minibatch steps.

        "loss" is the mean squared error per coordinate, "match" the mean squared distance of a
        member to its match.
        """
        if self.matcher == "jax":
            return super().epoch(state, members, key, epoch)
        key_pool, key_order = jax.random.split(key)
        pool = _draw_pools(state.mapping, members, key_pool, sampler=self)
        matches = match_by_faiss(members, pool.generated, pool.sizes)
        return _learn(state, members, pool, matches, key_order, self.rate(epoch), sampler=self)

    def data_parallel_epoch(self, members: Members, epoch: int) -> DataParallelEpoch | None:
        """Return the epoch as one function for several devices; None if the host matches."""
        if self.matcher != "jax":
            return None
        return DataParallelEpoch(epoch_, self.rate(epoch), {"sampler": self})

    def rate(self, epoch: int) -> Array:
        """Return the learning rate of an epoch, a float32 scalar."""
        halvings = epoch // self.decay_epochs if self.decay_epochs else 0
        return jnp.float32(self.learning_rate * 0.5**halvings)


def epoch_(
    state: ImleState,
    members: Members,
    key: PRNGKeyArray,
    rate: Float[Array, ""],
    *,
    sampler: Imle,
    devices: Devices = ONE_DEVICE,
) -> tuple[ImleState, dict[str, Array]]:
    """One epoch on all clusters, without jit: see `Imle.epoch`.

    Every device holds the whole (small) state and all members. The pool is split by batches, and
    each device matches the members against its part; every minibatch is split by rows, and
    gradients and batch-norm moments are summed, so the result equals one device's up to rounding.
    Runs under `jax.pmap` and `jax.shard_map`.

    Cost per cluster: 2 g m d operations for the match, 6 m d_e w + ... for the steps; memory
    O(g d + block g).
    """
    key_pool, key_order = jax.random.split(key)
    pool = draw_pools(state.mapping, members, key_pool, sampler=sampler, devices=devices)
    matches = match_all(members, pool.generated, pool.sizes, devices.axis_name)
    return learn_(state, members, pool, matches, key_order, rate, sampler=sampler, devices=devices)


class Pool(NamedTuple):
    """The codes of all clusters in one epoch, mapped to latents.

    Attributes:
        codes: (k, g, d_e).
        generated: (k, g, d); with several devices, this device's part.
        sizes: (k,) codes of each cluster that count; the rest are padding.
        stats: the batch norms' running moments after the pool.
    """

    codes: Float[Array, "k g d_e"]
    generated: Float[Array, "k g d"]
    sizes: Int[Array, " k"]
    stats: Any


def draw_pools(
    mapping: Arrays,
    members: Members,
    key: PRNGKeyArray,
    *,
    sampler: Imle,
    devices: Devices = ONE_DEVICE,
) -> Pool:
    """Draw and map codes: for each cluster `pool_factor` times the rows of its whole batches."""
    (k, m, _), b = members.latents.shape, sampler.batch
    num_batches = sampler.pool_factor * max(1, m // b)
    used = sampler.pool_factor * jnp.maximum(1, members.counts // b)
    e = jax.random.normal(key, (k, num_batches, b, sampler.mapping.code_dim), jnp.float32)
    draw = functools.partial(map_pool, sampler=sampler, devices=devices)
    generated, stats = jax.vmap(draw)(mapping, devices.shard(e, 1), used)
    return Pool(e.reshape(k, num_batches * b, -1), generated, used * b, stats)


def map_pool(
    mapping: Arrays,
    e: Float[Array, "s b d_e"],
    used: Int[Array, ""],
    sampler: Imle,
    devices: Devices = ONE_DEVICE,
) -> tuple[Float[Array, "g d"], Any]:
    """Map one cluster's codes batch by batch in batch norm's train mode.

    Args:
        mapping: the cluster's network.
        e: (s, b, d_e) codes in s batches, those of this device.
        used: number of batches that count, over all devices.
        sampler: the hyper-parameters.
        devices: those that the batches are spread over.

    Returns:
        (s*b, d) latents and the running moments after the used batches.
    """
    z, stats = jax.vmap(lambda batch: sampler.mapping.apply(mapping, batch, train=True))(e)
    # Every batch moved the old moments once: old + momentum * (batch's - old). Undo that to get
    # each batch's own moments, then apply the used ones in order, in closed form.
    position = jnp.arange(e.shape[0], dtype=jnp.int32)
    if devices.axis_name is not None:
        position = position + jax.lax.axis_index(devices.axis_name) * e.shape[0]
    decay = (1.0 - BN_MOMENTUM) ** jnp.maximum(used - 1 - position, 0).astype(jnp.float32)
    weight = jnp.where(position < used, decay, 0.0)
    kept = (1.0 - BN_MOMENTUM) ** used.astype(jnp.float32)

    def fold(old: Array, moved: Array) -> Array:
        fresh = moved - (1.0 - BN_MOMENTUM) * old[None]
        return jnp.einsum("s,s...->...", weight, fresh)

    folded = devices.sum(jax.tree.map(fold, mapping.stats, stats))
    stats = jax.tree.map(lambda old, new: kept * old + new, mapping.stats, folded)
    return z.reshape(-1, z.shape[-1]), stats


def learn_(
    state: ImleState,
    members: Members,
    pool: Pool,
    matches: tuple[Int[Array, "k m"], Float[Array, "k m"]],
    key: PRNGKeyArray,
    rate: Float[Array, ""],
    *,
    sampler: Imle,
    devices: Devices = ONE_DEVICE,
) -> tuple[ImleState, dict[str, Array]]:
    """Train on the matches (each member's code index and squared distance); see `Imle.epoch`."""
    index, distance = matches
    state, loss = train_on_matches(
        ImleState(Arrays(state.mapping.params, pool.stats), state.optimizer),
        members,
        jnp.take_along_axis(pool.codes, index[..., None], axis=1),
        key,
        rate,
        sampler=sampler,
        devices=devices,
    )
    total = jnp.sum(jnp.where(members.mask, distance, 0.0), axis=1)
    count = jnp.maximum(members.counts, 1).astype(jnp.float32)
    return state, {"loss": loss, "match": total / count}


def train_on_matches(
    state: ImleState,
    members: Members,
    matched: Float[Array, "k m d_e"],
    key: PRNGKeyArray,
    rate: Float[Array, ""],
    *,
    sampler: Imle,
    devices: Devices = ONE_DEVICE,
) -> tuple[ImleState, Float[Array, " k"]]:
    """Take one pass of minibatch steps over members and the codes matched to them.

    Args:
        state: all clusters' networks and optimisers.
        members: the latents of every cluster.
        matched: (k, m, d_e) code of each member.
        key: for the order of the members.
        rate: the learning rate.
        sampler: the hyper-parameters.
        devices: those that every minibatch's rows are spread over.

    Returns:
        The new state and the (k,) mean squared error per coordinate.
    """
    batches = tuple(
        devices.shard(rows, 2) for rows in _shuffled_batches(members, matched, key, sampler.batch)
    )
    steps_of = jnp.maximum(1, members.counts // sampler.batch)  # (k,)
    mapping, optimizer = state
    if sampler.reset_optimizer:
        optimizer = jax.vmap(sampler.optimizer.init)(mapping.params)
    step = functools.partial(_step, rate=rate, sampler=sampler, devices=devices)

    def body(carry: Any, data: Any) -> tuple[Any, Array]:
        number, rows = data
        new, loss = jax.vmap(step)(carry, rows)
        active = number < steps_of  # a smaller cluster has fewer batches
        keep = jax.tree.map(lambda a, o: _where(active, a, o), new, carry)
        return keep, jnp.where(active, loss, 0.0)

    numbers = jnp.arange(len(batches[0]), dtype=jnp.int32)
    (mapping, optimizer), losses = jax.lax.scan(body, (mapping, optimizer), (numbers, batches))
    loss = jnp.sum(losses, axis=0) / steps_of.astype(jnp.float32)
    return ImleState(mapping, optimizer), loss


def _shuffled_batches(
    members: Members, matched: Float[Array, "k m d_e"], key: PRNGKeyArray, b: int
) -> tuple[Float[Array, "s k b d"], Float[Array, "s k b d_e"], Bool[Array, "s k b"]]:
    """Return latents, codes and masks in s batches of a random order, each cluster's padding last.

    A partial batch is dropped, unless it is the only one; that one is padded.
    """
    k, m, _ = members.latents.shape
    num_steps = max(1, m // b)
    noise = jax.random.uniform(key, (k, m), jnp.float32)
    order = jnp.argsort(jnp.where(members.mask, noise, 2.0), axis=1)

    def batches(rows: Array) -> Array:
        rows = jnp.take_along_axis(rows, order.reshape(k, m, *[1] * (rows.ndim - 2)), axis=1)
        rows = jnp.pad(rows, [(0, 0), (0, max(0, num_steps * b - m))] + [(0, 0)] * (rows.ndim - 2))
        rows = rows[:, : num_steps * b].reshape(k, num_steps, b, *rows.shape[2:])
        return jnp.moveaxis(rows, 1, 0)

    return batches(members.latents), batches(matched), batches(members.mask)


def _step(
    carry: tuple[Arrays, Any],
    rows: tuple[Array, Array, Array],
    *,
    rate: Array,
    sampler: Imle,
    devices: Devices,
) -> tuple[tuple[Arrays, Any], Array]:
    """One Adam step of one cluster on this device's rows of a minibatch."""
    (mapping, optimizer), (z, e, mask) = carry, rows
    weight = mask.astype(jnp.float32)
    count = devices.sum(jnp.sum(weight))
    scale = 1.0 / (jnp.maximum(count, 1.0) * z.shape[1])

    def loss_of(params: Any) -> tuple[Array, Any]:
        generated, stats = sampler.mapping.apply(
            Arrays(params, mapping.stats), e, mask, train=True, axis_name=devices.axis_name
        )
        return scale * (weight @ jnp.sum(jnp.square(z - generated), axis=1)), stats

    (loss, stats), gradient = jax.value_and_grad(loss_of, has_aux=True)(mapping.params)
    # Each device divided its loss by the count of all devices, so the losses add up.
    loss, gradient = devices.sum((loss, gradient))
    params, optimizer = update(sampler.optimizer, gradient, optimizer, mapping.params, rate)
    return (Arrays(params, stats), optimizer), loss


def _where(active: Array, new: Array, old: Array) -> Array:
    return jnp.where(active.reshape(-1, *[1] * (new.ndim - 1)), new, old)


_draw_pools = jax.jit(draw_pools, static_argnames="sampler")
_learn = jax.jit(learn_, static_argnames="sampler", donate_argnames=("state",))
