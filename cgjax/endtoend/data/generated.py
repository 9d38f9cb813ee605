"""Images drawn from a generator of the project: an unlabelled data set that is there offline."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from cgjax.endtoend.data.base import Points
from cgjax.endtoend.data.images import ImageSet, as_bytes
from cgjax.errors import UserError
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.generators.registry import EMBEDDED, load_generator
from cgjax.generators.weights import read_manifest

BATCH = 64
"""Images that are generated at a time."""


@dataclasses.dataclass(frozen=True)
class GeneratedImages(ImageSet):
    """Independent draws of a generator.

    Attributes:
        source: the embedded generator, a published one, or a folder of converted weights.
        flip: whether training mirrors them.
        features: what distances are measured in; see `ImageSet`.
        num_classes: 1: none are known.
    """

    source: str = "dcgan_faces"
    flip: bool = False
    features: str = "pca_pixels"
    num_classes: int = 1

    @functools.cached_property
    def _generator(self) -> ConditionedGenerator:
        try:
            found = load_generator(self.source)
        except UserError as error:
            raise UserError(f"--config.data.path={self.source}: {error}") from error
        return ConditionedGenerator(found, found.layers[0], {}, BATCH)

    def row_shape(self) -> tuple[int, ...]:
        """Of one of its images."""
        generator = self._generator.gen
        channels = getattr(generator, "image_channels", None)
        if channels is None:  # one of the user's own
            channels = self.draw(jax.random.key(0), 1).rows.shape[3]
        return (generator.image_size, generator.image_size, channels)

    def identity(self) -> str:
        """The hash of its weights; of a generator of the user's own its name alone."""
        folder = EMBEDDED.get(self.source, Path(self.source))
        return str(read_manifest(folder)["weights_sha256"]) if folder.is_dir() else self.source

    def draw(self, key: PRNGKeyArray, num: int) -> Points:
        """Draw latents and generate."""
        latents = np.asarray(self._generator.sample_latents(key, num))
        rows = as_bytes(np.asarray(self._generator.images(latents)))
        return Points(jnp.asarray(rows), jnp.zeros(num, jnp.int32))
