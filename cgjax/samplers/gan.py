"""The mapping network trained against a critic [Georgopoulos et al. 2022, supplementary].

The same network T_c as IMLE's, and a critic D_c on latents, non-saturating losses with the R1
penalty [Mescheder et al. 2018]:

    critic   mean softplus(-D(z)) + mean softplus(D(T(e))) + gamma/2 mean ||grad_z D(z)||^2
    mapping  mean softplus(-D(T(e)))

The paper does not state its settings; these are ours. The penalty keeps the factor 1/2 of its own
paper.

Symbols: z latent, e code, k clusters, b batch.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from cgjax.numerics.networks import Arrays
from cgjax.samplers.base import DataParallelEpoch, Members
from cgjax.samplers.mapping import CodeSampler
from cgjax.samplers.training import ONE_DEVICE, Devices, dense, init_dense, pass_over, update


class GanState(NamedTuple):
    """All clusters' networks and Adam moments, stacked on a leading axis."""

    mapping: Arrays
    critic: Any
    mapping_moments: Any
    critic_moments: Any


@dataclasses.dataclass(frozen=True)
class LatentGan(CodeSampler):
    """The mapping network trained as a GAN's generator; hyper-parameters beside `CodeSampler`'s.

    Attributes:
        critic_dim: width of the critic's two hidden layers.
        num_epochs: passes over the members.
        num_latents: prior latents whose members are learnt from; None uses those of the run.
        batch: members of each cluster per step.
        learning_rate: of both networks.
        beta1: Adam's.
        beta2: Adam's.
        penalty: gamma.
    """

    critic_dim: int = 256
    num_epochs: int = 400
    num_latents: int | None = None
    batch: int = 128
    learning_rate: float = 2e-4
    beta1: float = 0.5
    beta2: float = 0.999
    penalty: float = 1.0

    @functools.cached_property
    def adam(self) -> optax.GradientTransformation:
        """Adam without its learning rate."""
        return optax.scale_by_adam(b1=self.beta1, b2=self.beta2)

    def init(self, key: PRNGKeyArray, members: Members) -> GanState:
        """Return new networks, one pair per cluster."""
        key_t, key_d = jax.random.split(key)
        k, w = members.counts.shape[0], self.critic_dim
        mapping = jax.vmap(self.mapping.init)(jax.random.split(key_t, k))
        critic = jax.vmap(lambda s: init_dense(s, (self.latent_dim, w, w, 1)))(
            jax.random.split(key_d, k)
        )
        start = jax.vmap(self.adam.init)
        return GanState(mapping, critic, start(mapping.params), start(critic))

    def data_parallel_epoch(self, members: Members, epoch: int) -> DataParallelEpoch:
        """Return a pass over the members; "loss" is the mapping's loss, "critic" the critic's."""
        return DataParallelEpoch(epoch_, jnp.float32(epoch), {"sampler": self})


def step(
    state: GanState,
    z: Float[Array, "b d"],
    key: PRNGKeyArray,
    *,
    sampler: LatentGan,
    devices: Devices = ONE_DEVICE,
) -> tuple[GanState, tuple[Array, Array]]:
    """One step of one cluster's critic and mapping (no leading axis)."""
    rate, b = sampler.learning_rate, z.shape[0]
    codes = jax.random.normal(key, (2, b, sampler.mapping.code_dim), jnp.float32)
    z, codes = devices.shard(z, 0), devices.shard(codes, 1)
    # Padding rows count in neither the moments nor the means; sums run over all devices.
    mask = devices.shard(jnp.ones(b, bool), 0)
    weight = devices.shard(jnp.full(b, 1.0 / b, jnp.float32), 0)
    apply = functools.partial(
        sampler.mapping.apply, mask=mask, train=True, axis_name=devices.axis_name
    )

    def score(critic: Any, rows: Array) -> Array:
        return dense(critic, rows)[:, 0]

    fake, stats = apply(state.mapping, codes[0])

    def critic_loss(critic: Any) -> Array:
        slope = jax.vmap(jax.grad(lambda row: score(critic, row[None])[0]))(z)
        penalty = 0.5 * sampler.penalty * jnp.sum(jnp.square(slope), axis=1)
        on_real, on_fake = (jax.nn.softplus(s) for s in (-score(critic, z), score(critic, fake)))
        return weight @ (on_real + on_fake + penalty)

    loss_d, gradient = devices.sum(jax.value_and_grad(critic_loss)(state.critic))
    critic, critic_moments = update(
        sampler.adam, gradient, state.critic_moments, state.critic, rate
    )

    def mapping_loss(params: Any) -> tuple[Array, Any]:
        fake, new_stats = apply(Arrays(params, stats), codes[1])
        return weight @ jax.nn.softplus(-score(critic, fake)), new_stats

    (loss, stats), gradient = jax.value_and_grad(mapping_loss, has_aux=True)(state.mapping.params)
    loss, gradient = devices.sum((loss, gradient))
    params, mapping_moments = update(
        sampler.adam, gradient, state.mapping_moments, state.mapping.params, rate
    )
    new = GanState(Arrays(params, stats), critic, mapping_moments, critic_moments)
    return new, (loss, loss_d)


def epoch_(
    state: GanState,
    members: Members,
    key: PRNGKeyArray,
    epoch: Float[Array, ""],
    *,
    sampler: LatentGan,
    devices: Devices = ONE_DEVICE,
) -> tuple[GanState, dict[str, Array]]:
    """One epoch on all clusters, without jit; it does not depend on `epoch`."""
    one_step = jax.vmap(functools.partial(step, sampler=sampler, devices=devices))
    state, (loss, critic) = pass_over(one_step, state, members, key, sampler.batch)
    return state, {"loss": loss, "critic": critic}
