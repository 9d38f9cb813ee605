"""A generator with its keywords fixed, called in batches: what a run works with."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, PRNGKeyArray

from cgjax.generators.arrays import finite_rows
from cgjax.generators.base import PretrainedGenerator, layer_index
from cgjax.generators.batching import batch_by_batch, filled_up, in_batches
from cgjax.generators.foreign import KEYWORDS, CannotResume, CheckedGenerator, checked
from cgjax.generators.registry import load_generator
from cgjax.runtime.mesh import shard_rows


def source_of(settings: Mapping[str, Any]) -> str:
    """Return what a config's `generator` is loaded by: the weights it gives, or else its name."""
    return str(settings["weights"] or settings["name"])


def load_conditioned(settings: Mapping[str, Any], layer: str | None = None) -> ConditionedGenerator:
    """Load the generator named by a config, with its keywords fixed.

    Args:
        settings: the config's `generator`, plain.
        layer: one of its layers, or its number counted from 1; default: its first.

    Raises:
        UserError: no such generator or layer, or a keyword that it does not take.
    """
    generator = load_generator(source_of(settings))
    keywords = {name: settings[name] for name in KEYWORDS}
    return ConditionedGenerator(
        generator, generator.layers[0] if layer is None else layer, keywords, settings["batch"]
    )


class ConditionedGenerator:
    """One generator, one layer and one set of keywords, so that features are a function of z.

    Attributes:
        gen: the generator; a user's own is wrapped in the checks of `foreign`.
        layer: the representation point's name.
        keywords: condition, truncation, noise, ... as given; unset ones are left out.
        batch: rows per pass.
        mesh: the devices that share the rows of a pass, or None for one device.
    """

    mesh: Mesh | None = None

    def __init__(self, gen: Any, layer: str, keywords: Mapping[str, Any], batch: int):
        """Fix a generator's layer and keywords.

        Args:
            gen: a `Generator`.
            layer: one of its layers, or its number counted from 1.
            keywords: passed to its methods; those that are None are left out.
            batch: rows per pass.

        Raises:
            UserError: an object that is not a generator, a layer that does not exist, a keyword
                that it does not take.
        """
        self.gen = checked(gen)
        self.layer = self.gen.layers[layer_index(self.gen.layers, layer)]
        self.keywords = self._accepted({k: v for k, v in keywords.items() if v is not None})
        self.batch = batch

    def _accepted(self, keywords: dict[str, Any]) -> dict[str, Any]:
        if isinstance(self.gen, CheckedGenerator):
            self.gen.check_keywords(keywords)
        return keywords

    def with_condition(self, condition: Any) -> ConditionedGenerator:
        """Return the same generator and layer with another class.

        Raises:
            UserError: if the generator takes no condition.
        """
        other = copy.copy(self)
        other.keywords = self._accepted({**self.keywords, "condition": condition})
        return other

    def at_layer(self, layer: str) -> ConditionedGenerator:
        """Return the same generator and keywords at another layer."""
        if layer == self.layer:
            return self
        other = copy.copy(self)
        other.layer = self.gen.layers[layer_index(self.gen.layers, layer)]
        return other

    def over(self, mesh: Mesh) -> ConditionedGenerator:
        """Return the same generator with every pass split over the devices of a mesh.

        Each device gets as many rows per pass as the single device does now.
        """
        other = copy.copy(self)
        other.mesh, other.batch = mesh, self.batch * mesh.size
        if isinstance(self.gen, PretrainedGenerator):
            other.gen = self.gen.over(mesh)
        return other

    @property
    def normalizes_latent(self) -> bool:
        """Whether only a latent's direction matters."""
        return bool(getattr(self.gen, "normalizes_latent", False))

    @functools.cached_property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        if isinstance(self.gen, PretrainedGenerator):
            return self.gen.image_size, self.gen.image_size, self.gen.image_channels
        # Of a user's generator, only an image tells.
        _, height, width, channels = self.images(self.one_latent).shape
        return height, width, channels

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of one latent's activation at the layer."""
        if isinstance(self.gen, PretrainedGenerator):
            # Nothing is computed, and a whole batch shares its trace with the real passes.
            z = jax.ShapeDtypeStruct((self.batch, self.gen.latent_dim), jnp.float32)
            return tuple(jax.eval_shape(self.activations, z).shape[1:])
        return tuple(self.activations(jnp.asarray(self.one_latent)).shape[1:])

    @property
    def one_latent(self) -> Float[np.ndarray, "1 d"]:
        """A latent of the prior, always the same, for passes of which only the shape matters.

        Zeros would not do: a user's generator may divide by a latent's length, or refuse them.
        """
        return np.asarray(self.sample_latents(jax.random.key(0), 1))

    def sample_latents(self, key: PRNGKeyArray, n: int) -> Float[Array, "n d"]:
        """Draw latents from the prior, truncated where the family truncates its prior."""
        keywords = {}
        if getattr(self.gen, "truncates_prior", False) and "truncation" in self.keywords:
            keywords = {"truncation": self.keywords["truncation"]}
        z = jnp.asarray(self.gen.sample_latents(key, n, **keywords))
        self._check_finite("sample_latents", z)
        return z

    def activations(self, z: Float[Array, "n d"]) -> Float[Array, "n ..."]:
        """Run up to the layer, all rows in one pass on one device, in the layer's own shape."""
        return self.gen.features(z, self.layer, **self.keywords)

    def features(self, z: Float[Array, "n d"]) -> Float[Array, "n f"]:
        """Run up to the layer, all rows in one pass, and flatten each row."""
        h = self._split(self.activations, z)
        return h.reshape(h.shape[0], -1)

    def all_features(self, z: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n f"]:
        """Compute `features` in batches, collected on the host."""
        return in_batches(self.features, z, self.batch)

    def images(self, z: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n s s c"]:
        """Generate in batches, collected on the host.

        Raises:
            UserError: a user's own generator returned NaN or infinities.
        """
        x = in_batches(self._images, z, self.batch)
        self._check_finite("images", x)
        return x

    def image_blocks(self, z: Float[np.ndarray, "n d"]) -> Iterator[Float[np.ndarray, "m s s c"]]:
        """Generate as `images`, and yield each batch: for images that need not be held together."""
        for block in batch_by_batch(self._images, z, self.batch):
            self._check_finite("images", block)
            yield block

    def _images(self, z: Array) -> Array:
        return self._split(lambda rows: self.gen.images(rows, **self.keywords), z)

    def _check_finite(self, method: str, rows: Array | np.ndarray) -> None:
        # The weights of built-in families were checked on loading, and k-means checks all features.
        if isinstance(self.gen, CheckedGenerator) and not isinstance(rows, jax.core.Tracer):
            finite_rows(f"{self.gen.name}.{method}", rows)

    def _split(self, run: Callable[[Array], Array], z: Float[Array, "n ..."]) -> Array:
        if self.mesh is None:
            return run(z)
        rows = filled_up(z, z.shape[0] + -z.shape[0] % self.mesh.size)
        return run(shard_rows(rows, self.mesh)[0])[: z.shape[0]]

    def image_blocks_from(
        self, h: Float[np.ndarray, "n ..."]
    ) -> Iterator[Float[np.ndarray, "m s s c"]]:
        """Generate from activations alone, and yield each batch.

        Later layers must not read the latent.

        Raises:
            CannotResume: as for `resume`.
        """
        return batch_by_batch(lambda rows: self._split(self.resume, rows), h, self.batch)

    def resume(
        self, h: Float[Array, "n ..."], z: Float[Array, "n d"] | None = None
    ) -> Float[Array, "n s s c"]:
        """Run the rest of the network from activations of the layer.

        Args:
            h: activations in the layer's own shape.
            z: their latents, for the families whose later layers also read them.

        Raises:
            CannotResume: if the generator cannot resume from this layer; a UserError.
        """
        if not hasattr(self.gen, "resume"):
            raise CannotResume("this generator has no resume(h, layer)")
        keywords = dict(self.keywords)
        if z is not None and getattr(self.gen, "resume_needs_latents", False):
            keywords["latents"] = z
        return self.gen.resume(h, self.layer, **keywords)
