"""Images drawn from one of the project's generators: an unlabelled data set without downloads."""

from __future__ import annotations

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from cgjax.endtoend.data.base import Points
from cgjax.endtoend.data.images import ImageSet
from cgjax.errors import UserError
from cgjax.generators.base import PretrainedGenerator
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.generators.registry import load_generator
from cgjax.runtime.png import as_uint8

BATCH, BLOCK = 64, 1024
"""Images that are generated at a time, and images that are held as floats at a time."""


@dataclasses.dataclass(frozen=True)
class GeneratedImages(ImageSet):
    """Independent draws of a generator.

    Attributes:
        source: the embedded generator, a published one, or a folder of converted weights.
        flip: whether training mirrors images.
        features: what distances are measured in; see `ImageSet`.
        num_classes: 1, as none are known.
    """

    source: str = "dcgan_faces"
    flip: bool = False
    features: str = "pca_pixels"
    num_classes: int = 1

    @functools.cached_property
    def _generator(self) -> ConditionedGenerator:
        flag = f"--config.data.path={self.source}"
        if not self.source:
            raise UserError(f"{flag}: expected a generator, such as dcgan_faces, or its folder")
        try:
            generator = load_generator(self.source)
        except UserError as error:
            raise UserError(f"{flag}: {error}") from error
        if isinstance(generator, PretrainedGenerator) and generator.num_classes:
            raise UserError(f"{flag}: expected a generator without classes")
        return ConditionedGenerator(generator, generator.layers[0], {}, BATCH)

    def row_shape(self) -> tuple[int, ...]:
        """Return the shape of the generator's images."""
        return self._generator.image_shape

    def identity(self) -> str:
        """Return the hash of its weights; for a user's own generator just its name."""
        manifest = getattr(self._generator.gen, "manifest", None) or {}
        return str(manifest.get("weights_sha256", self.source))

    def draw(self, key: PRNGKeyArray, num: int) -> Points:
        """Draw latents and generate their images."""
        latents = np.asarray(self._generator.sample_latents(key, num))
        blocks = (latents[i : i + BLOCK] for i in range(0, num, BLOCK))
        rows = np.concatenate([as_uint8(self._generator.images(block)) for block in blocks])
        return Points(jnp.asarray(rows), jnp.zeros(num, jnp.int32))
