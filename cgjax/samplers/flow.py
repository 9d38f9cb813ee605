"""Flow matching on the trigonometric path: the sampler that keeps a cluster's full diversity.

The path between a code e ~ N(0, I) and a member z of cluster c is

    x_t = cos(pi t / 2) e + sin(pi t / 2) z,          0 <= t <= 1,

and one network v(x, t, c, q) for all clusters learns its mean velocity [Lipman et al. 2023;
Albergo et al. 2023] by least squares,

    mean || v(x_t, t, c, q) - (pi / 2) (-sin(pi t / 2) e + cos(pi t / 2) z) ||^2.

Sampling follows v from a code at t = 0 to a latent at t = 1, by default in two midpoint steps.

Why this path: if z followed the prior N(0, I), so would x_t, and the mean velocity would be exactly
zero. For a cluster it is (pi / 2) cot(pi t / 2) grad_x log P(c | x_t): the network, whose output
starts at zero, has to learn only the few directions in which the cluster differs from the prior. It
also makes guidance free: the prior's velocity is zero, so classifier-free guidance [Ho & Salimans
2021] by w is w v.

q sets how strongly a sample shows the cluster's attribute: it is the share of the cluster, smallest
margins first, that is left out. Half of the rows are trained with q = 0, and half with q uniform up
to `MAX_MARGIN` on the members above that quantile of the margin.

In this file: `Flow` (hyper-parameters), `losses` (the least squares), `take_steps` (an epoch of
them), `descend` (one optimiser step and its schedule), `integrate` (sampling). The network is in
`velocity`.

Symbols: z latent, e code, x point on the path, t time, c cluster, q margin quantile, k clusters,
m padded members, b rows of a cluster in a batch.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from cgjax.samplers.base import DataParallelEpoch, Members, SamplerBase, as_cluster
from cgjax.samplers.training import ONE_DEVICE, Devices, members_at, update
from cgjax.samplers.velocity import init_velocity, num_clusters_of, velocity

MAX_MARGIN = 0.95


class FlowState(NamedTuple):
    """The network, its moving average and the optimiser, shared by all clusters.

    Attributes:
        params: the trained parameters, a nested dict.
        average: exponential moving average of `params`, used for sampling.
        optimizer: Adam's moments.
    """

    params: Any
    average: Any
    optimizer: Any


@dataclasses.dataclass(frozen=True)
class Flow(SamplerBase):
    """Latent flow matching; hyper-parameters.

    Attributes:
        latent_dim: d.
        hidden_dim: width of the two hidden layers; None means 256, or 512 if d is 256 or more.
        num_epochs: passes over the members.
        num_latents: prior latents whose members are learnt from; if the run has fewer, more are
            drawn and assigned. None uses those of the run.
        batch: rows per step, all clusters together.
        learning_rate: Adam's at the start; falls to zero along a half cosine.
        average: decay per step of the parameters' moving average; the configs train for longer and
            set 0.999.
        num_steps: midpoint steps of sampling, two network calls each.
        guidance: factor on the velocity; 1 is the cluster as it is, more exaggerates it.
    """

    latent_dim: int
    hidden_dim: int | None = None
    num_epochs: int = 60
    num_latents: int | None = None
    batch: int = 512
    learning_rate: float = 5e-3
    average: float = 0.995
    num_steps: int = 2
    guidance: float = 1.0

    aims_at_margin = True
    starts_at_prior = True
    needs_margin_order = True
    sampling_leaves: ClassVar[tuple[str, ...]] = ("num_steps", "guidance")

    def for_share(self, share: float) -> Flow:
        """Return it with the epochs scaled up so that the number of steps stays the same."""
        return dataclasses.replace(self, num_epochs=max(1, round(self.num_epochs / share)))

    @property
    def width(self) -> int:
        """Width of the hidden layers."""
        return self.hidden_dim or (256 if self.latent_dim < 256 else 512)

    @functools.cached_property
    def optimizer(self) -> optax.GradientTransformation:
        """Adam; `descend` applies the learning rate."""
        return optax.scale_by_adam(b1=0.9, b2=0.99)

    def init(self, key: PRNGKeyArray, members: Members) -> FlowState:
        """Return a new network; the members must be sorted by margin."""
        members.require_order()
        k = members.counts.shape[0]
        params = init_velocity(key, self.latent_dim, self.width, k)
        average = jax.tree.map(jnp.array, params)  # its own buffers, since both are donated
        return FlowState(params, average, self.optimizer.init(params))

    def data_parallel_epoch(self, members: Members, epoch: int) -> DataParallelEpoch:
        """Return as many steps as the members, sorted by margin, have batches.

        "loss" is the mean squared error per coordinate.
        """
        members.require_order()
        num_steps = max(1, int(np.sum(members.counts)) // self.batch)
        return DataParallelEpoch(
            epoch_, jnp.float32(epoch), {"sampler": self, "num_steps": num_steps}
        )

    def sample(
        self,
        state: FlowState,
        key: PRNGKeyArray,
        cluster: int,
        num: int,
        margin: float = 0.0,
    ) -> Float[Array, "num d"]:
        """Follow the flow of a cluster, or its part above a margin quantile, from fresh codes."""
        return _sample(
            state.average,
            key,
            as_cluster(cluster, num_clusters_of(state.average)),
            jnp.float32(min(margin, MAX_MARGIN)),
            sampler=self,
            num=num,
        )

    def follow(
        self, params: Any, e: Float[Array, "n d"], c: Int[Array, " n"], q: Float[Array, " n"]
    ) -> Float[Array, "n d"]:
        """Return where a network leads from codes, each for its own cluster and margin quantile."""
        return integrate(params, e, c, q, num_steps=self.num_steps, guidance=self.guidance)


def path(
    e: Float[Array, "n d"], z: Float[Array, "n d"], t: Float[Array, " n"]
) -> tuple[Float[Array, "n d"], Float[Array, "n d"]]:
    """Return the point of the trigonometric path at time t, and its velocity there."""
    angle = (0.5 * math.pi) * t[:, None]
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    return cos * e + sin * z, (0.5 * math.pi) * (cos * z - sin * e)


def draw_rows(
    members: Members, key: PRNGKeyArray, rows: int
) -> tuple[Float[Array, "k b d"], Float[Array, "k b"]]:
    """Draw members of every cluster, half of them above a random quantile of the margin.

    Args:
        members: k clusters, each sorted by margin, smallest first.
        key: a typed key.
        rows: b, drawn from each cluster with replacement.

    Returns:
        (k, b, d) latents and (k, b) quantiles.
    """
    key_q, key_row = jax.random.split(key)
    shape = (members.counts.shape[0], rows)
    q = jnp.maximum(jax.random.uniform(key_q, shape, jnp.float32, -MAX_MARGIN, MAX_MARGIN), 0.0)
    u = jax.random.uniform(key_row, shape, jnp.float32)
    return members_at(members, q + (1.0 - q) * u), q


def draw_noise(
    key: PRNGKeyArray, k: int, b: int, d: int
) -> tuple[Float[Array, "k b d"], Float[Array, "k b"]]:
    """Draw codes and times; each of k*b equal parts of [0, 1] holds one time, in random order."""
    key_e, key_t = jax.random.split(key)
    e = jax.random.normal(key_e, (k, b, d), jnp.float32)
    t = jax.random.permutation(key_t, jnp.arange(k * b, dtype=jnp.float32))
    return e, ((t + 0.5) / (k * b)).reshape(k, b)


class Batch(NamedTuple):
    """What one step of all clusters learns from: this device's rows.

    Attributes:
        e: (k, b, d) codes.
        z: (k, b, d) members.
        t: (k, b) times.
        q: (k, b) margin quantiles.
        weight: (1, b) of a row's squared error, summed over coordinates, in the mean per row and
            coordinate; 0 for padding.
    """

    e: Float[Array, "k b d"]
    z: Float[Array, "k b d"]
    t: Float[Array, "k b"]
    q: Float[Array, "k b"]
    weight: Float[Array, "1 b"]


def losses(params: Any, batch: Batch) -> Float[Array, " k"]:
    """Return each cluster's mean squared error of the velocity between codes and members."""
    k, b, d = batch.z.shape
    c, t = jnp.repeat(jnp.arange(k, dtype=jnp.int32), b), batch.t.reshape(-1)
    x, target = path(batch.e.reshape(k * b, d), batch.z.reshape(k * b, d), t)
    error = velocity(params, x, t, c, batch.q.reshape(-1)) - target
    return jnp.sum(batch.weight[..., None] * jnp.square(error).reshape(k, b, d), axis=(1, 2))


def epoch_(
    state: FlowState,
    members: Members,
    key: PRNGKeyArray,
    epoch: Array,
    *,
    sampler: Flow,
    num_steps: int,
    devices: Devices = ONE_DEVICE,
) -> tuple[FlowState, dict[str, Array]]:
    """One epoch without jit: see `Flow.data_parallel_epoch`."""
    return take_steps(
        state, members, key, epoch, losses, sampler=sampler, num_steps=num_steps, devices=devices
    )


def take_steps(
    state: FlowState,
    members: Members,
    key: PRNGKeyArray,
    epoch: Array,
    losses_of: Callable[[Any, Batch], Array],
    *,
    sampler: Flow,
    num_steps: int,
    devices: Devices,
) -> tuple[FlowState, dict[str, Array]]:
    """Take the steps of one epoch down the mean of the clusters' losses.

    Every batch's rows are spread over the devices, as `training` describes.

    Args:
        state: before the first step.
        members: k clusters, each sorted by margin, smallest first.
        key: of this epoch.
        epoch: counted from 0, below `sampler.num_epochs`.
        losses_of: (params, batch) -> (k,) losses, of this device's rows.
        sampler: the hyper-parameters.
        num_steps: steps of an epoch.
        devices: those that every batch's rows are spread over.

    Returns:
        The state after the last step, and (k,) "loss", the mean over the steps.
    """
    k, _, d = members.latents.shape
    rows = max(1, sampler.batch // k)
    local = functools.partial(devices.shard, axis=1)
    weight = local(jnp.full((1, rows), 1.0 / (rows * d), jnp.float32))
    total = float(max(1, sampler.num_epochs * num_steps))

    def body(state: FlowState, step: Array) -> tuple[FlowState, Array]:
        key_rows, key_noise = jax.random.split(jax.random.fold_in(key, step))
        z, q = map(local, draw_rows(members, key_rows, rows))
        e, t = map(local, draw_noise(key_noise, k, rows, d))

        def mean_loss(params: Any) -> tuple[Array, Array]:
            losses = losses_of(params, Batch(e, z, t, q, weight))
            return jnp.mean(losses), losses

        gradient, losses = devices.sum(jax.grad(mean_loss, has_aux=True)(state.params))
        done = epoch * num_steps + step.astype(jnp.float32)
        return descend(state, gradient, done, total, sampler), losses

    state, losses = jax.lax.scan(body, state, jnp.arange(num_steps, dtype=jnp.int32))
    return state, {"loss": jnp.mean(losses, axis=0)}


def descend(
    state: FlowState, gradient: Any, done: Float[Array, ""], total: float, sampler: Flow
) -> FlowState:
    """Take one Adam step, at a rate that falls along a half cosine, and update the average.

    Args:
        state: before the step.
        gradient: of the loss with respect to `state.params`.
        done: steps taken before this one.
        total: steps in all.
        sampler: the hyper-parameters.
    """
    rate = sampler.learning_rate * 0.5 * (1.0 + jnp.cos(math.pi * jnp.minimum(done / total, 1.0)))
    params, moments = update(sampler.optimizer, gradient, state.optimizer, state.params, rate)
    # Early on the average follows the parameters more closely, so that it forgets its start.
    decay = jnp.minimum(sampler.average, 1.0 - 1.0 / (1.0 + done))
    average = jax.tree.map(lambda a, p: decay * a + (1.0 - decay) * p, state.average, params)
    return FlowState(params, average, moments)


def integrate(
    params: Any,
    e: Float[Array, "n d"],
    c: Int[Array, " n"],
    q: Float[Array, " n"],
    *,
    num_steps: int,
    guidance: float = 1.0,
) -> Float[Array, "n d"]:
    """Follow the flow from codes at t = 0 to latents at t = 1 by the midpoint rule.

    Args:
        params: of the network.
        e: (n, d) codes.
        c: (n,) the cluster of each code.
        q: (n,) its margin quantile.
        num_steps: midpoint steps, two network calls each.
        guidance: factor on the velocity.

    Returns:
        (n, d) float32 latents.
    """
    n, h = e.shape[0], 1.0 / num_steps

    def v(x: Array, t: Array) -> Array:
        return guidance * velocity(params, x, jnp.broadcast_to(t, (n,)), c, q)

    def step(x: Array, i: Array) -> tuple[Array, None]:
        t = h * i.astype(jnp.float32)
        middle = x + 0.5 * h * v(x, t)
        return x + h * v(middle, t + 0.5 * h), None

    return jax.lax.scan(step, e, jnp.arange(num_steps, dtype=jnp.int32))[0]


@functools.partial(jax.jit, static_argnames=("sampler", "num"))
def _sample(
    params: Any, key: PRNGKeyArray, c: Array, q: Array, *, sampler: Flow, num: int
) -> Float[Array, "num d"]:
    e = jax.random.normal(key, (num, sampler.latent_dim), jnp.float32)
    return sampler.follow(params, e, jnp.broadcast_to(c, (num,)), jnp.broadcast_to(q, (num,)))
