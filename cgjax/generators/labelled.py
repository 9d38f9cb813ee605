"""A class-conditional generator as an unconditional one: the class becomes part of the latent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from cgjax.generators.base import PretrainedGenerator


class Labelled:
    """A generator whose latents are those of another one followed by a one-hot class.

    Attributes:
        layers: a single layer, whose features are the class.
        latent_dim: the other generator's, plus the number of classes.
        image_size: height and width of an image.
        num_labels: number of classes, and length of the class at the end of a latent.
    """

    layers: Sequence[str] = ("label",)

    def __init__(self, generator: PretrainedGenerator, num_labels: int):
        """Wrap a generator with that many classes."""
        self._generator, self.num_labels = generator, num_labels
        self.latent_dim = generator.latent_dim + num_labels
        self.image_size = generator.image_size

    def sample_latents(self, key: PRNGKeyArray, n: int) -> Float[Array, "n d"]:
        """Draw latents, with every class equally likely."""
        key_class, key_latent = jax.random.split(key)
        labels = jax.random.randint(key_class, (n,), 0, self.num_labels, jnp.int32)
        z = self._generator.sample_latents(key_latent, n)
        return jnp.concatenate([z, jax.nn.one_hot(labels, self.num_labels)], axis=1)

    def features(self, z: Float[Array, "n d"], layer: str) -> Float[Array, "n k"]:
        """Return the class vectors."""
        return z[:, -self.num_labels :]

    def images(self, z: Float[Array, "n d"]) -> Float[Array, "n s s c"]:
        """Generate each row with its own class."""
        latents, classes = jnp.split(z, [self._generator.latent_dim], axis=1)
        return self._generator.images(latents, condition=classes)


def num_labels_of(gen: Any) -> int:
    """Return how many numbers at the end of a latent are its class; 0 if it has none."""
    own = getattr(gen, "own", gen)  # without the checks around a user's generator
    return own.num_labels if isinstance(own, Labelled) else 0
