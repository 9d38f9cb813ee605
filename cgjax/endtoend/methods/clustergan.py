"""ClusterGAN: a Wasserstein GAN whose encoder finds latents again [Mukherjee et al. 2019].

    z = (z_n, z_c),    z_n ~ N(0, sigma^2 I),    z_c one of K, all alike

    L_D   = E D(x_g) - E D(x) + 10 E (||grad D(x_hat)||_2 - 1)^2,    x_hat between x and x_g
    L_G,E = -E D(x_g) + beta_n mean (z_n - z_n_hat)^2 + beta_c CE(z_c, z_c_hat)

with x_g = G(z) and (z_n_hat, z_c_hat) = E(x_g). D is high on real rows here; in the authors' code
it is low on them, which is the same training. x_hat lies at its own place for every row, where
their code takes one place for a batch. G and E have one optimiser. Five steps of D are followed by
one of G and E. Rows are clustered by k-means on the encoder's codes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from cgjax.clustering import kmeans
from cgjax.endtoend.data import Points
from cgjax.endtoend.methods.base import Features, Method, clustered, unclustered, uniform_labels
from cgjax.endtoend.networks.base import Arrays
from cgjax.endtoend.state import Learner, Losses, Partition, TrainState, moved

# Rows whose codes are computed at a time.
BLOCK = 10_000


@dataclasses.dataclass(frozen=True)
class ClusterGan(Method):
    """Hyper-parameters; `num_labels` is K, and the networks' latents are the z_n.

    Attributes:
        sigma: standard deviation of z_n.
        noise_weight: beta_n.
        label_weight: beta_c.
        critic_steps: steps of D for one of G and E.
        slope_weight: of the gradient penalty.
        num_init: restarts of the k-means that clusters rows.
        max_iter: its most iterations.
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
        """A batch of its own for every step of D."""
        return self.critic_steps

    def own_step(self) -> Callable[..., Any]:
        """Return `step` below."""
        return step

    def discriminator(self, networks: Any, rngs: Any) -> Any:
        """Build a D of one output."""
        return networks.discriminator(1, self.pack, rngs)

    def start(self, key: PRNGKeyArray, points: Points, features: Features) -> Partition:
        """Return no clusters: the encoder knows nothing yet."""
        return unclustered(jnp.zeros(len(points.rows), jnp.int32))

    def latents(self, key: PRNGKeyArray, num: int, latent_dim: int) -> Float[Array, "num d"]:
        """Draw z_n."""
        return self.sigma * jax.random.normal(key, (num, latent_dim), jnp.float32)

    def sample_labels(
        self, key: PRNGKeyArray, partition: Partition, num: int
    ) -> Int[Array, " num"]:
        """Draw z_c, all alike."""
        return uniform_labels(key, num, self.num_labels)

    def found(
        self, key: PRNGKeyArray, points: Points, encode: Callable[[Array], Array], known: Partition
    ) -> Partition:
        """Cluster the rows by k-means on their codes: z_c_hat, and z_n_hat if it was learnt."""
        made = [encode(points.rows[i : i + BLOCK]) for i in range(0, len(points.rows), BLOCK)]
        codes = codes_of(jnp.concatenate(made), self)
        result = kmeans(
            codes, self.num_labels, key=key, num_init=self.num_init, max_iter=self.max_iter
        )
        return clustered(np.asarray(result.labels), result.centroids)


def codes_of(encoded: Float[Array, "n e"], method: ClusterGan) -> Float[Array, "n f"]:
    """Return what rows are clustered by, from the encoder's output: probabilities, and z_n_hat."""
    noise, logits = encoded[:, : -method.num_labels], encoded[:, -method.num_labels :]
    probabilities = jax.nn.softmax(logits, axis=1)
    parts = [noise, probabilities] if method.noise_weight else [probabilities]
    return jnp.concatenate(parts, axis=1)


def step(
    state: TrainState,
    x: Float[Array, "b ..."],
    rows: Int[Array, " b"],
    key: PRNGKeyArray,
    trainer: Any,
    rate: Float[Array, ""] | float = 1.0,
) -> tuple[TrainState, Losses]:
    """Take several steps of the discriminator and one of the generator with its encoder.

    Args:
        state: of one trial; `generator` holds G and E.
        x: real rows, a batch for every step of D.
        rows: not read.
        key: of this iteration.
        trainer: the settings.
        rate: the share of the learning rates to take.
    """
    method: ClusterGan = trainer.method
    parts = x.reshape(method.critic_steps, -1, *x.shape[1:])
    size = parts.shape[1]
    keys = jax.random.split(key, method.critic_steps + 1)

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        key_label, key_noise = jax.random.split(key)
        labels = uniform_labels(key_label, size, method.num_labels)
        return method.latents(key_noise, size, trainer.networks.latent_dim), labels

    def criticise(
        before: tuple[Learner, Learner], now: tuple[Array, Array]
    ) -> tuple[tuple[Learner, Learner], Array]:
        (g, d), (real, key) = before, now
        key_code, key_place = jax.random.split(key)
        z, labels = draw(key_code)
        fake, g_stats = trainer.generator.apply(g.arrays, lambda net: net(z, labels, train=True))
        place = jax.random.uniform(key_place, (size,), jnp.float32)

        def loss(params: Any) -> tuple[Array, Any]:
            arrays = Arrays(params, d.arrays.stats)
            return critic_loss(trainer, arrays, real, fake, place)

        (loss_d, d_stats), slope = jax.value_and_grad(loss, has_aux=True)(d.arrays.params)
        g = g._replace(arrays=Arrays(g.arrays.params, g_stats))
        return (g, moved(d, slope, d_stats, trainer.critics_adam, rate)), loss_d

    (g, d), losses = jax.lax.scan(
        criticise, (state.generator, state.discriminator), (parts, keys[:-1])
    )
    z, labels = draw(keys[-1])

    def loss(params: Any) -> tuple[Array, Any]:
        return generator_loss(trainer, Arrays(params, g.arrays.stats), d.arrays, z, labels)

    (loss_g, g_stats), slope = jax.value_and_grad(loss, has_aux=True)(g.arrays.params)
    g = moved(g, slope, g_stats, trainer.generators_adam, rate)
    state = TrainState(g, d, state.partition)
    return state, Losses(loss_g, losses[-1])


def critic_loss(
    trainer: Any, d: Arrays, real: Array, fake: Array, place: Float[Array, " b"]
) -> tuple[Float[Array, ""], Any]:
    """Return L_D and D's running moments; `place` is where x_hat lies, 0 at the generated row."""
    apply = trainer.discriminator.apply

    def total(rows: Array) -> Array:
        return jnp.sum(apply(d, lambda net: net(rows, train=True))[0])

    share = place.reshape(-1, *[1] * (real.ndim - 1))
    slopes = jax.grad(total)(share * real + (1 - share) * fake)
    norms = jnp.sqrt(jnp.sum(jnp.square(slopes).reshape(len(real), -1), axis=1) + 1e-12)
    both, stats = apply(d, lambda net: net(jnp.concatenate([fake, real]), train=True))
    told = jnp.mean(both[: len(fake)]) - jnp.mean(both[len(fake) :])
    return told + trainer.method.slope_weight * jnp.mean(jnp.square(norms - 1)), stats


def generator_loss(
    trainer: Any, g: Arrays, d: Arrays, z: Float[Array, "b d"], labels: Int[Array, " b"]
) -> tuple[Float[Array, ""], Any]:
    """Return L_G,E and the running moments of G and E."""
    method: ClusterGan = trainer.method

    def both(net: Any) -> tuple[Array, Array]:
        fake = net(z, labels, train=True)
        return fake, net.encode(fake, train=True)

    (fake, encoded), stats = trainer.generator.apply(g, both)
    judged = trainer.discriminator.apply(d, lambda net: net(fake, train=True))[0]
    noise, logits = encoded[:, : z.shape[1]], encoded[:, z.shape[1] :]
    loss = -jnp.mean(judged) + method.noise_weight * jnp.mean(jnp.square(z - noise))
    crossed = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return loss + method.label_weight * jnp.mean(crossed), stats
