"""MGAN: many generators that share all but their first layer [Hoang et al. 2018].

The discriminator has one logit for "real", and k logits for which generator made a row:

    L_D = mean softplus(-D(x)) + mean softplus(D(G(z))) + CE(which generator)
    L_G = mean softplus(-D(G(z))) + weight * CE(which generator)

Every generator gets the same latents, as in the authors' code.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from cgjax.endtoend.methods.base import UniformLabels
from cgjax.endtoend.networks.base import Architecture, Discriminator, Generator


@dataclasses.dataclass(frozen=True)
class Mgan(UniformLabels):
    """Hyper-parameters.

    Attributes:
        weight: of the cross entropy in the generators' loss.
        per_generator: number of latents in a batch. Every generator gets all of them; they are what
            its first batch norm averages over.
    """

    weight: float = 0.01
    per_generator: int = 12

    def generator(self, networks: Architecture, rngs: nnx.Rngs) -> Generator:
        """Build the generators."""
        return networks.generators(self.num_labels, rngs)

    def discriminator(self, networks: Architecture, rngs: nnx.Rngs) -> Discriminator:
        """Build the discriminator with both heads."""
        return networks.discriminator(1 + self.num_labels, self.pack, rngs)

    def codes(
        self, key: PRNGKeyArray, labels: Int[Array, " b"], latent_dim: int
    ) -> tuple[Float[Array, "m d"], Int[Array, " m"]]:
        """Draw latents once and give them to every generator, in order."""
        z = self.latents(key, self.per_generator, latent_dim)
        generators = jnp.arange(self.num_labels, dtype=jnp.int32)
        return jnp.tile(z, (self.num_labels, 1)), jnp.repeat(generators, self.per_generator)

    def score(self, logits: Float[Array, "p k"], labels: Int[Array, " p"]) -> Float[Array, " p"]:
        """Return the logit of "real"."""
        return logits[:, 0]

    def discriminator_loss(
        self,
        real: Float[Array, "p k"],
        real_labels: Int[Array, " p"],
        fake: Float[Array, "q k"],
        fake_labels: Int[Array, " q"],
    ) -> Float[Array, ""]:
        """Return L_D."""
        loss = super().discriminator_loss(real, real_labels, fake, fake_labels)
        return loss + generator_cross_entropy(fake, fake_labels)

    def generator_loss(
        self, fake: Float[Array, "q k"], fake_labels: Int[Array, " q"]
    ) -> Float[Array, ""]:
        """Return L_G."""
        loss = super().generator_loss(fake, fake_labels)
        return loss + self.weight * generator_cross_entropy(fake, fake_labels)


def generator_cross_entropy(
    logits: Float[Array, "n k1"], labels: Int[Array, " n"]
) -> Float[Array, ""]:
    """Return the mean cross entropy of the logits for which generator made each row."""
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits[:, 1:], labels))
