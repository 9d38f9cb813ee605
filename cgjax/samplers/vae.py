"""The mapping network as a VAE's decoder [Georgopoulos et al. 2022, supplementary].

An encoder q(e | z) = N(mu(z), diag s^2(z)) and the mapping network as p(z | e) = N(T(e), v I) with
a learnt variance v, trained by the evidence lower bound [Kingma & Welling 2014],

    mean ||z - T(e)||^2 / (2 v) + (d / 2) log v + beta KL(q(e | z) || N(0, I)),

with beta rising from 0 to 1. Drawing T(e) alone, as papers do, omits the variance v that the model
itself has learnt; `output_noise` adds it. The paper does not state its settings.

Symbols: z latent, e code, k clusters, b batch, v output variance.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from cgjax.numerics.networks import Arrays
from cgjax.samplers.base import DataParallelEpoch, Members
from cgjax.samplers.mapping import CodeSampler
from cgjax.samplers.training import ONE_DEVICE, Devices, dense, init_dense, pass_over, update


class VaeState(NamedTuple):
    """All clusters' networks and Adam moments, stacked on a leading axis.

    Attributes:
        mapping: the decoder.
        encoder: dense layers.
        log_variance: (k,) log v of the output.
        moments: Adam's, of all three together.
    """

    mapping: Arrays
    encoder: Any
    log_variance: Float[Array, " k"]
    moments: Any


@dataclasses.dataclass(frozen=True)
class Vae(CodeSampler):
    """The mapping network trained as a VAE's decoder; hyper-parameters beside `CodeSampler`'s.

    Attributes:
        encoder_dim: width of the encoder's two hidden layers.
        num_epochs: passes over the members.
        num_latents: prior latents whose members are learnt from; None uses those of the run.
        batch: members of each cluster per step.
        learning_rate: Adam's.
        beta: weight of the divergence.
        warmup_epochs: epochs over which beta rises from 0.
        output_noise: whether samples get noise of the learnt output variance.
    """

    encoder_dim: int = 256
    num_epochs: int = 400
    num_latents: int | None = None
    batch: int = 128
    learning_rate: float = 1e-3
    beta: float = 1.0
    warmup_epochs: int = 20
    output_noise: bool = False

    sampling_leaves: ClassVar[tuple[str, ...]] = ("output_noise",)

    @functools.cached_property
    def adam(self) -> optax.GradientTransformation:
        """Adam without its learning rate."""
        return optax.scale_by_adam(b1=0.9, b2=0.999)

    def init(self, key: PRNGKeyArray, members: Members) -> VaeState:
        """Return new networks, one pair per cluster."""
        key_t, key_q = jax.random.split(key)
        k, w = members.counts.shape[0], self.encoder_dim
        mapping = jax.vmap(self.mapping.init)(jax.random.split(key_t, k))
        dims = (self.latent_dim, w, w, 2 * self.mapping.code_dim)
        encoder = jax.vmap(lambda s: init_dense(s, dims))(jax.random.split(key_q, k))
        log_variance = jnp.zeros(k, jnp.float32)
        moments = jax.vmap(self.adam.init)((mapping.params, encoder, log_variance))
        return VaeState(mapping, encoder, log_variance, moments)

    def data_parallel_epoch(self, members: Members, epoch: int) -> DataParallelEpoch:
        """Return a pass over the members; "loss" is the negative bound per coordinate."""
        beta = self.beta * min(1.0, (epoch + 1) / max(1, self.warmup_epochs))
        return DataParallelEpoch(epoch_, jnp.float32(beta), {"sampler": self})

    def sample(
        self, state: VaeState, key: PRNGKeyArray, cluster: int, num: int, margin: float = 0.0
    ) -> Float[Array, "num d"]:
        """Map fresh codes in inference mode; add the output's noise if `output_noise`."""
        z = super().sample(state, key, cluster, num)
        if not self.output_noise:
            return z
        noise = jax.random.normal(jax.random.fold_in(key, 1), z.shape, jnp.float32)
        return z + jnp.exp(0.5 * state.log_variance[cluster]) * noise


def step(
    state: VaeState,
    z: Float[Array, "b d"],
    key: PRNGKeyArray,
    *,
    beta: Float[Array, ""],
    sampler: Vae,
    devices: Devices = ONE_DEVICE,
) -> tuple[VaeState, Array]:
    """One step of one cluster (no leading axis)."""
    d, d_e, b = sampler.latent_dim, sampler.mapping.code_dim, z.shape[0]
    local = functools.partial(devices.shard, axis=0)
    z, noise = local(z), local(jax.random.normal(key, (b, d_e), jnp.float32))
    # Padding rows count in neither the moments nor the means; sums run over all devices.
    mask = local(jnp.ones(b, bool))
    weight = local(jnp.full(b, 1.0 / b, jnp.float32))

    def loss_of(params: Any) -> tuple[Array, Any]:
        decoder, encoder, log_variance = params
        mean, log_s2 = jnp.split(dense(encoder, z), 2, axis=1)
        log_s2 = jnp.clip(log_s2, -10.0, 10.0)
        e = mean + jnp.exp(0.5 * log_s2) * noise
        decoded, stats = sampler.mapping.apply(
            Arrays(decoder, state.mapping.stats),
            e,
            mask,
            train=True,
            axis_name=devices.axis_name,
        )
        error = jnp.sum(jnp.square(z - decoded), axis=1)
        fit = 0.5 * (error * jnp.exp(-log_variance) + d * log_variance)
        divergence = 0.5 * jnp.sum(jnp.square(mean) + jnp.exp(log_s2) - 1.0 - log_s2, axis=1)
        return weight @ (fit + beta * divergence) / d, stats

    params = (state.mapping.params, state.encoder, state.log_variance)
    (loss, stats), gradient = jax.value_and_grad(loss_of, has_aux=True)(params)
    loss, gradient = devices.sum((loss, gradient))
    params, moments = update(sampler.adam, gradient, state.moments, params, sampler.learning_rate)
    decoder, encoder, log_variance = params
    return VaeState(Arrays(decoder, stats), encoder, log_variance, moments), loss


def epoch_(
    state: VaeState,
    members: Members,
    key: PRNGKeyArray,
    beta: Float[Array, ""],
    *,
    sampler: Vae,
    devices: Devices = ONE_DEVICE,
) -> tuple[VaeState, dict[str, Array]]:
    """One epoch on all clusters, without jit."""
    one_step = jax.vmap(functools.partial(step, beta=beta, sampler=sampler, devices=devices))
    state, loss = pass_over(one_step, state, members, key, sampler.batch)
    return state, {"loss": loss}
