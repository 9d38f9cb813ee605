"""One iteration of training: a discriminator step, then a generator step.

Both steps use the same labels and latents, and G does not change between them. So one forward pass
of G serves both: D learns from its output, and G's backward pass waits for the gradient through the
updated D. Two passes would give the same, except that the second moves the batch norms' running
moments by the same batch once more; `layers.moved_again` makes up for that.

ClusterGAN has a step of its own, in `methods.clustergan`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from cgjax.endtoend.methods.base import Method, of_packs, packed
from cgjax.endtoend.networks.base import Architecture
from cgjax.endtoend.networks.layers import moved_again
from cgjax.endtoend.state import Learner, Losses, TrainState, updated
from cgjax.numerics.networks import Arrays, Network


def unprepared(rows: Array, key: PRNGKeyArray | None = None) -> Array:
    """Return rows unchanged."""
    return rows


@dataclasses.dataclass(frozen=True)
class Setup:
    """What an iteration needs besides its state: the method, the networks and their optimisers.

    Attributes:
        method: see `methods`.
        networks: see `networks`.
        batch: real rows per iteration. Each epoch is a fresh permutation of the rows; rows that do
            not fill a batch are left out.
        learning_rate: Adam's for G; D's is `critic_factor` times that.
        beta1: decay of Adam's first moment.
        beta2: decay of Adam's second moment.
        penalty: weight of E ||grad_x D(x)||^2 over real rows, without the factor 1/2 of
            [Mescheder et al. 2018].
        average: decay of the running average of G's parameters; 0 for no average. ClusterGAN's step
            keeps none.
        critic_factor: D's learning rate over G's [Heusel et al. 2017].
        cooldown: number of final iterations over which both learning rates fall linearly to zero
            [Zhu et al. 2017]; 0 for none.
        iterations: length of the whole training; read only with a cooldown, 0 without one.
        prepare: maps stored rows to rows as the networks see them; see `DataSet.prepare`.
    """

    method: Method
    networks: Architecture
    batch: int = 100
    learning_rate: float = 1e-4
    beta1: float = 0.8
    beta2: float = 0.999
    penalty: float = 0.0
    average: float = 0.0
    critic_factor: float = 1.0
    cooldown: int = 0
    iterations: int = 0
    prepare: Callable[..., Array] = unprepared

    @functools.cached_property
    def generator(self) -> Network:
        """G as pure functions."""
        return Network(lambda rngs: self.method.generator(self.networks, rngs))

    @functools.cached_property
    def discriminator(self) -> Network:
        """D as pure functions."""
        return Network(lambda rngs: self.method.discriminator(self.networks, rngs))

    @functools.cached_property
    def generator_adam(self) -> optax.GradientTransformation:
        """The optimiser of G."""
        return optax.adam(self.learning_rate, self.beta1, self.beta2)

    @functools.cached_property
    def discriminator_adam(self) -> optax.GradientTransformation:
        """The optimiser of D."""
        return optax.adam(self.critic_factor * self.learning_rate, self.beta1, self.beta2)

    def rate(self, iteration: Int[Array, ""]) -> Float[Array, ""] | float:
        """Return the factor on both learning rates in an iteration: 1 until the cooldown.

        Example:
            >>> from cgjax.endtoend.methods.base import Gan
            >>> from cgjax.endtoend.networks.planar import Planar
            >>> setup = Setup(Gan(), Planar(), cooldown=4, iterations=10)
            >>> [float(setup.rate(jnp.int32(iteration))) for iteration in (0, 6, 7, 9)]
            [1.0, 1.0, 0.75, 0.25]
        """
        if not self.cooldown:
            return 1.0
        left = (self.iterations - iteration).astype(jnp.float32)
        return jnp.clip(left / self.cooldown, 0, 1)


class Packs(NamedTuple):
    """What the discriminator sees: rows joined into packs, and each pack's label."""

    rows: Float[Array, "p ..."]
    labels: Int[Array, " p"]


def step(
    state: TrainState,
    x: Float[Array, "b ..."],
    rows: Int[Array, " b"],
    key: PRNGKeyArray,
    setup: Setup,
    rate: Float[Array, ""] | float = 1.0,
) -> tuple[TrainState, Losses]:
    """Take one step of the discriminator and one of the generator.

    Args:
        state: of one trial.
        x: real rows.
        rows: their indices among the training rows.
        key: of this iteration.
        setup: the settings.
        rate: factor on both learning rates.
    """
    method, pack = setup.method, setup.method.pack
    g, d = state.generator, state.discriminator
    key_label, key_code = jax.random.split(key)

    def features() -> Array:
        return setup.discriminator.apply(d.arrays, lambda net: net.features(x, train=False))[0]

    labels, partition = method.label(key_label, state.partition, rows, features)
    z, z_labels = method.codes(key_code, labels, setup.networks.latent_dim)

    def generate(params: Any) -> tuple[Array, Any]:
        arrays = Arrays(params, g.arrays.stats)
        return setup.generator.apply(arrays, lambda net: net(z, z_labels, train=True))

    fake, backward, g_stats = jax.vjp(generate, g.arrays.params, has_aux=True)
    real_packs = Packs(packed(x, pack), of_packs(labels, pack))
    fake_packs = Packs(packed(fake, pack), of_packs(z_labels, pack))
    d, loss_d = _discriminator_step(setup, d, real_packs, fake_packs, rate)
    loss_g, d_stats, gradient = _generator_loss(setup, d.arrays, fake, fake_packs.labels)
    d = d._replace(arrays=Arrays(d.arrays.params, d_stats))
    g_stats = moved_again(g.arrays.stats, g_stats)
    g = updated(g, backward(gradient)[0], g_stats, setup.generator_adam, rate)
    average = state.average
    if setup.average:
        average = jax.tree.map(
            lambda old, new: setup.average * old + (1 - setup.average) * new,
            state.average,
            g.arrays.params,
        )
    return TrainState(g, d, partition, average), Losses(loss_g, loss_d)


def _discriminator_step(
    setup: Setup, d: Learner, real: Packs, fake: Packs, rate: Float[Array, ""] | float
) -> tuple[Learner, Float[Array, ""]]:
    """Return the discriminator after its step, and its loss before it."""

    def loss(params: Any) -> tuple[Array, Any]:
        arrays = Arrays(params, d.arrays.stats)
        of_real, of_fake, stats = _logits(setup, arrays, real.rows, fake.rows)
        loss = setup.method.discriminator_loss(of_real, real.labels, of_fake, fake.labels)
        if setup.penalty:
            loss = loss + setup.penalty * _squared_gradient(setup, arrays, real)
        return loss, stats

    (value, stats), gradient = jax.value_and_grad(loss, has_aux=True)(d.arrays.params)
    return updated(d, gradient, stats, setup.discriminator_adam, rate), value


def _logits(setup: Setup, d: Arrays, real: Array, fake: Array) -> tuple[Array, Array, Any]:
    """Return the logits of real and generated packs, from one pass where that gives the same."""
    apply = setup.discriminator.apply
    if setup.networks.is_rowwise:
        both, stats = apply(d, lambda net: net(jnp.concatenate([real, fake]), train=True))
        return both[: len(real)], both[len(real) :], stats
    of_real, stats = apply(d, lambda net: net(real, train=True))
    of_fake, stats = apply(Arrays(d.params, stats), lambda net: net(fake, train=True))
    return of_real, of_fake, stats


def _squared_gradient(setup: Setup, d: Arrays, real: Packs) -> Array:
    """Return the mean of ||grad_x D(x, y)||^2 over real packs: the R1 penalty, unweighted."""

    def total(x: Array) -> Array:
        logits = setup.discriminator.apply(d, lambda net: net(x, train=True))[0]
        return jnp.sum(setup.method.score(logits, real.labels))

    squares = jnp.square(jax.grad(total)(real.rows))
    return jnp.sum(squares) / len(real.rows)


def _generator_loss(
    setup: Setup, d: Arrays, fake: Float[Array, "m ..."], labels: Int[Array, " p"]
) -> tuple[Float[Array, ""], Any, Float[Array, "m ..."]]:
    """Return the generator's loss, D's new running moments, and the loss's gradient by `fake`."""

    def loss(fake: Array) -> tuple[Array, Any]:
        logits, stats = setup.discriminator.apply(
            d, lambda net: net(packed(fake, setup.method.pack), train=True)
        )
        return setup.method.generator_loss(logits, labels), stats

    (value, stats), gradient = jax.value_and_grad(loss, has_aux=True)(fake)
    return value, stats, gradient
