"""ClusterGAN: a Wasserstein GAN whose encoder recovers the latents [Mukherjee et al. 2019].

    z = (z_n, z_c),    z_n ~ N(0, sigma^2 I),    z_c uniform over K labels

    L_D   = E D(x_g) - E D(x) + 10 E (||grad D(x_hat)||_2 - 1)^2,    x_hat between x and x_g
    L_G,E = -E D(x_g) + beta_n mean (z_n - z_n_hat)^2 + beta_c CE(z_c, z_c_hat)

with x_g = G(z) and (z_n_hat, z_c_hat) = E(x_g). D is high on real rows here and low on them in the
authors' code; the training is the same. x_hat is interpolated with a weight drawn for each row,
where their code draws one weight per batch. G and E share one optimiser. Each step of G and E
follows five steps of D. Rows are clustered by k-means on the encoder's codes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from cgjax.clustering import kmeans
from cgjax.endtoend.data import Points
from cgjax.endtoend.data.on_disk import RowsOnDisk
from cgjax.endtoend.methods.base import UniformLabels, uniform_labels
from cgjax.endtoend.networks.base import Architecture, Discriminator
from cgjax.endtoend.state import Learner, Losses, Partition, TrainState, updated
from cgjax.numerics.networks import Arrays


@dataclasses.dataclass(frozen=True)
class ClusterGan(UniformLabels):
    """Hyper-parameters; `num_labels` is K, and the networks' latents are z_n.

    Attributes:
        sigma: standard deviation of z_n.
        noise_weight: beta_n.
        label_weight: beta_c.
        critic_steps: number of D steps for each step of G and E.
        slope_weight: weight of the gradient penalty.
        num_init: number of restarts of the k-means that clusters rows.
        max_iter: maximum number of its iterations.
    """

    sigma: float = 0.1
    noise_weight: float = 10.0
    label_weight: float = 10.0
    critic_steps: int = 5
    slope_weight: float = 10.0
    num_init: int = 10
    max_iter: int = 100

    @property
    def batches(self) -> int:
        """One batch for each step of D."""
        return self.critic_steps

    def own_step(self) -> Callable[..., Any]:
        """Return `step` below."""
        return step

    def discriminator(self, networks: Architecture, rngs: nnx.Rngs) -> Discriminator:
        """Build a D with one output."""
        return networks.discriminator(1, self.pack, rngs)

    def latents(self, key: PRNGKeyArray, num: int, latent_dim: int) -> Float[Array, "num d"]:
        """Draw z_n."""
        return self.sigma * jax.random.normal(key, (num, latent_dim), jnp.float32)

    def final_partition(
        self,
        key: PRNGKeyArray,
        points: Points,
        encode: Callable[[Array | RowsOnDisk], Array],
        partition: Partition,
    ) -> Partition:
        """Cluster the rows by k-means on their codes: z_c_hat, and z_n_hat if it was learnt."""
        codes = codes_of(encode(points.rows), self)
        result = kmeans(
            codes, self.num_labels, key=key, num_init=self.num_init, max_iter=self.max_iter
        )
        return Partition.clustered(np.asarray(result.labels), result.centroids)


def codes_of(encoded: Float[Array, "n e"], method: ClusterGan) -> Float[Array, "n f"]:
    """Return what rows are clustered by, from the encoder's output: z_n_hat, and probabilities."""
    noise, logits = encoded[:, : -method.num_labels], encoded[:, -method.num_labels :]
    probabilities = jax.nn.softmax(logits, axis=1)
    parts = [noise, probabilities] if method.noise_weight else [probabilities]
    return jnp.concatenate(parts, axis=1)


def step(
    state: TrainState,
    x: Float[Array, "b ..."],
    rows: Int[Array, " b"],
    key: PRNGKeyArray,
    setup: Any,
    rate: Float[Array, ""] | float = 1.0,
) -> tuple[TrainState, Losses]:
    """Take several steps of the discriminator and one of the generator with its encoder.

    Args:
        state: of one trial; `generator` holds G and E.
        x: real rows, one batch for each step of D.
        rows: not read.
        key: of this iteration.
        setup: the settings, a `step.Setup`.
        rate: factor on both learning rates.
    """
    batches = x.reshape(setup.method.critic_steps, -1, *x.shape[1:])
    keys = jax.random.split(key, len(batches) + 1)

    def critic_step(
        learners: tuple[Learner, Learner], batch: tuple[Array, Array]
    ) -> tuple[tuple[Learner, Learner], Array]:
        return _critic_step(setup, *learners, *batch, rate)

    (g, d), losses = jax.lax.scan(
        critic_step, (state.generator, state.discriminator), (batches, keys[:-1])
    )
    z, labels = _draw(setup, keys[-1], batches.shape[1])

    def loss(params: Any) -> tuple[Array, Any]:
        return generator_loss(setup, Arrays(params, g.arrays.stats), d.arrays, z, labels)

    (loss_g, g_stats), gradient = jax.value_and_grad(loss, has_aux=True)(g.arrays.params)
    g = updated(g, gradient, g_stats, setup.generator_adam, rate)
    return TrainState(g, d, state.partition), Losses(loss_g, losses[-1])


def _draw(setup: Any, key: PRNGKeyArray, num: int) -> tuple[Float[Array, "b d"], Int[Array, " b"]]:
    """Draw z_n and z_c."""
    key_label, key_noise = jax.random.split(key)
    labels = uniform_labels(key_label, num, setup.method.num_labels)
    return setup.method.latents(key_noise, num, setup.networks.latent_dim), labels


def _critic_step(
    setup: Any,
    g: Learner,
    d: Learner,
    real: Float[Array, "b ..."],
    key: PRNGKeyArray,
    rate: Float[Array, ""] | float,
) -> tuple[tuple[Learner, Learner], Float[Array, ""]]:
    """Return G with its new running moments, D after one step, and D's loss before it."""
    key_code, key_mix = jax.random.split(key)
    z, labels = _draw(setup, key_code, len(real))
    fake, g_stats = setup.generator.apply(g.arrays, lambda net: net(z, labels, train=True))
    mix = jax.random.uniform(key_mix, (len(real),), jnp.float32)

    def loss(params: Any) -> tuple[Array, Any]:
        return critic_loss(setup, Arrays(params, d.arrays.stats), real, fake, mix)

    (loss_d, d_stats), gradient = jax.value_and_grad(loss, has_aux=True)(d.arrays.params)
    g = g._replace(arrays=Arrays(g.arrays.params, g_stats))
    return (g, updated(d, gradient, d_stats, setup.discriminator_adam, rate)), loss_d


def critic_loss(
    setup: Any, d: Arrays, real: Array, fake: Array, mix: Float[Array, " b"]
) -> tuple[Float[Array, ""], Any]:
    """Return L_D and D's running moments; `mix` is the real row's weight in x_hat."""
    apply = setup.discriminator.apply

    def total(rows: Array) -> Array:
        return jnp.sum(apply(d, lambda net: net(rows, train=True))[0])

    weight = mix.reshape(-1, *[1] * (real.ndim - 1))
    gradients = jax.grad(total)(weight * real + (1 - weight) * fake)
    norms = jnp.sqrt(jnp.sum(jnp.square(gradients).reshape(len(real), -1), axis=1) + 1e-12)
    both, stats = apply(d, lambda net: net(jnp.concatenate([fake, real]), train=True))
    loss = jnp.mean(both[: len(fake)]) - jnp.mean(both[len(fake) :])
    return loss + setup.method.slope_weight * jnp.mean(jnp.square(norms - 1)), stats


def generator_loss(
    setup: Any, g: Arrays, d: Arrays, z: Float[Array, "b d"], labels: Int[Array, " b"]
) -> tuple[Float[Array, ""], Any]:
    """Return L_G,E and the running moments of G and E."""
    method: ClusterGan = setup.method

    def generate_and_encode(net: Any) -> tuple[Array, Array]:
        fake = net(z, labels, train=True)
        return fake, net.encode(fake, train=True)

    (fake, encoded), stats = setup.generator.apply(g, generate_and_encode)
    scores = setup.discriminator.apply(d, lambda net: net(fake, train=True))[0]
    noise, logits = encoded[:, : z.shape[1]], encoded[:, z.shape[1] :]
    loss = -jnp.mean(scores) + method.noise_weight * jnp.mean(jnp.square(z - noise))
    crossed = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return loss + method.label_weight * jnp.mean(crossed), stats
