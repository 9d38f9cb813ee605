"""The mapping network trained against a critic [Georgopoulos et al. 2022, supplementary].

The same network T_c as IMLE's, and a critic D_c on latents, non-saturating losses with the R1
penalty [Mescheder et al. 2018]:

    critic   mean softplus(-D(z)) + mean softplus(D(T(e))) + gamma/2 mean ||grad_z D(z)||^2
    mapping  mean softplus(-D(T(e)))

The paper does not state its settings; these are ours. The penalty has its 1/2, as in its paper.

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

from cgjax.samplers.base import Members
from cgjax.samplers.imle import Imle
from cgjax.samplers.mapping import MappingState, init_mapping
from cgjax.samplers.training import dense, draw_members, init_dense, num_batches, update


class GanState(NamedTuple):
    """All clusters' networks and moments, stacked on a leading axis."""

    mapping: MappingState
    critic: Any
    mapping_moments: Any
    critic_moments: Any


@dataclasses.dataclass(frozen=True)
class Gan:
    """The mapping by a GAN; hyper-parameters.

    Attributes:
        latent_dim: d.
        code_dim: as IMLE's.
        hidden_dim: as IMLE's.
        critic_dim: width of the critic's two hidden layers.
        num_epochs: passes over the members.
        num_latents: prior latents whose members are learnt from; None takes those of the run.
        batch: members of a cluster per step.
        learning_rate: of both networks.
        beta1: Adam's.
        beta2: Adam's.
        penalty: gamma.
    """

    latent_dim: int
    code_dim: int | None = None
    hidden_dim: int | None = None
    critic_dim: int = 256
    num_epochs: int = 400
    num_latents: int | None = None
    batch: int = 128
    learning_rate: float = 2e-4
    beta1: float = 0.5
    beta2: float = 0.999
    penalty: float = 1.0

    always_verified = False

    @functools.cached_property
    def generator(self) -> Imle:
        """IMLE with the same mapping network: its sizes and its way to sample."""
        return Imle(self.latent_dim, self.code_dim, self.hidden_dim)

    @functools.cached_property
    def adam(self) -> optax.GradientTransformation:
        """Adam without its learning rate."""
        return optax.scale_by_adam(b1=self.beta1, b2=self.beta2)

    def init(self, key: PRNGKeyArray, members: Members) -> GanState:
        """Return fresh networks, one pair a cluster."""
        key_t, key_d = jax.random.split(key)
        k, w = members.counts.shape[0], self.critic_dim
        mapping = jax.vmap(lambda s: init_mapping(s, *self.generator.dims))(
            jax.random.split(key_t, k)
        )
        critic = jax.vmap(lambda s: init_dense(s, (self.latent_dim, w, w, 1)))(
            jax.random.split(key_d, k)
        )
        start = jax.vmap(self.adam.init)
        return GanState(mapping, critic, start(mapping.params), start(critic))

    def epoch(
        self, state: GanState, members: Members, key: PRNGKeyArray, epoch: int
    ) -> tuple[GanState, dict[str, Array]]:
        """Pass over the members; (k,) "loss" is the mapping's, "critic" the critic's."""
        return _epoch(state, members, key, sampler=self)

    def sample(
        self, state: GanState, key: PRNGKeyArray, cluster: int, num: int
    ) -> Float[Array, "num d"]:
        """Map fresh codes, batch norm in inference mode."""
        return self.generator.sample(state, key, cluster, num)  # type: ignore[arg-type]


def step(
    state: GanState, z: Float[Array, "b d"], key: PRNGKeyArray, *, sampler: Gan
) -> tuple[GanState, tuple[Array, Array]]:
    """One step of critic and mapping of one cluster (no leading axis)."""
    functions, rate = sampler.generator.functions, sampler.learning_rate
    codes = jax.random.normal(key, (2, z.shape[0], sampler.generator.dims[0]), jnp.float32)

    def score(critic: Any, rows: Array) -> Array:
        return dense(critic, rows)[:, 0]

    fake, stats = functions.apply(state.mapping, codes[0], train=True)

    def critic_loss(critic: Any) -> Array:
        slope = jax.vmap(jax.grad(lambda row: score(critic, row[None])[0]))(z)
        penalty = 0.5 * sampler.penalty * jnp.mean(jnp.sum(jnp.square(slope), axis=1))
        real = jnp.mean(jax.nn.softplus(-score(critic, z)))
        return real + jnp.mean(jax.nn.softplus(score(critic, fake))) + penalty

    loss_d, gradient = jax.value_and_grad(critic_loss)(state.critic)
    critic, critic_moments = update(
        sampler.adam, gradient, state.critic_moments, state.critic, rate
    )

    def mapping_loss(params: Any) -> tuple[Array, Any]:
        made, moved = functions.apply(MappingState(params, stats), codes[1], train=True)
        return jnp.mean(jax.nn.softplus(-score(critic, made))), moved

    (loss, stats), gradient = jax.value_and_grad(mapping_loss, has_aux=True)(state.mapping.params)
    params, mapping_moments = update(
        sampler.adam, gradient, state.mapping_moments, state.mapping.params, rate
    )
    new = GanState(MappingState(params, stats), critic, mapping_moments, critic_moments)
    return new, (loss, loss_d)


@functools.partial(jax.jit, static_argnames=("sampler",), donate_argnames=("state",))
def _epoch(
    state: GanState, members: Members, key: PRNGKeyArray, *, sampler: Gan
) -> tuple[GanState, dict[str, Array]]:
    one_step = jax.vmap(functools.partial(step, sampler=sampler))
    k = members.counts.shape[0]

    def body(state: GanState, number: Array) -> tuple[GanState, tuple[Array, Array]]:
        key_rows, key_codes = jax.random.split(jax.random.fold_in(key, number))
        z = draw_members(members, key_rows, sampler.batch)
        return one_step(state, z, jax.random.split(key_codes, k))

    steps = jnp.arange(num_batches(members, sampler.batch))
    state, (loss, critic) = jax.lax.scan(body, state, steps)
    return state, {"loss": jnp.mean(loss, axis=0), "critic": jnp.mean(critic, axis=0)}
