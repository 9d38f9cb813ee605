"""A generator with its keywords fixed, called in batches: what a run works with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from cgjax.generators.base import Generator, in_batches, layer_index


class BoundGenerator:
    """One generator, one layer and one set of keywords, so that features are a function of z.

    Attributes:
        gen: the generator.
        layer: the representation point's name.
        keywords: condition, truncation, noise, ... as given; unset ones are left out.
    """

    def __init__(self, gen: Generator, layer: str, keywords: Mapping[str, Any], batch: int):
        """Bind; raises UserError for a layer that is not there."""
        self.gen = gen
        self.layer = gen.layers[layer_index(gen.layers, layer)]
        self.keywords = {k: v for k, v in keywords.items() if v is not None}
        self.batch = batch

    def with_condition(self, condition: Any) -> BoundGenerator:
        """Return the same generator and layer for another class."""
        keywords = {**self.keywords, "condition": condition}
        return BoundGenerator(self.gen, self.layer, keywords, self.batch)

    @property
    def normalizes_latent(self) -> bool:
        """Whether only a latent's direction matters to the generator."""
        return bool(getattr(self.gen, "normalizes_latent", False))

    def sample_latents(self, key: PRNGKeyArray, n: int) -> Float[Array, "n d"]:
        """Draw latents of the prior, truncated where the family truncates its prior."""
        if getattr(self.gen, "family", None) == "biggan" and "truncation" in self.keywords:
            keywords = {"truncation": self.keywords["truncation"]}
            return jax.numpy.asarray(self.gen.sample_latents(key, n, **keywords))
        return jax.numpy.asarray(self.gen.sample_latents(key, n))

    def features(self, z: Float[Array, "n d"]) -> Float[Array, "n f"]:
        """Run up to the layer and flatten; all rows in one pass."""
        h = self.gen.features(z, self.layer, **self.keywords)
        return h.reshape(h.shape[0], -1)

    def all_features(self, z: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n f"]:
        """As `features`, in batches, collected on the host."""
        return in_batches(self.features, z, self.batch)

    def images(self, z: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n s s c"]:
        """Generate in batches, collected on the host."""
        return in_batches(lambda rows: self.gen.images(rows, **self.keywords), z, self.batch)

    def resume(self, h: Float[Array, "n ..."], z: Float[Array, "n d"]) -> Float[Array, "n s s c"]:
        """Run the rest of the network from activations of the layer.

        Args:
            h: activations in the layer's own shape.
            z: latents for the families whose later layers read them too.
        """
        own = getattr(self.gen, "resume_needs_latents", False)
        return self.gen.resume(h, self.layer, **self.keywords, **({"latents": z} if own else {}))
