"""Images drawn from one of the project's generators: a data set without downloads.

A generator with classes gives labelled data: each image's class is drawn uniformly at random, and
is its true class.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray

from cgjax.config.plain import digest
from cgjax.endtoend.data.base import Points
from cgjax.endtoend.data.images import ImageSet
from cgjax.errors import UserError
from cgjax.generators.base import PretrainedGenerator
from cgjax.generators.batching import batch_by_batch
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.generators.registry import load_generator
from cgjax.runtime.keys import named_key
from cgjax.runtime.png import as_uint8

BATCH = 64
"""Images that are generated at a time."""

BLOCK = 1024
"""Images that are cut into batches together; another number would change the last bits of some."""


@dataclasses.dataclass(frozen=True)
class GeneratedImages(ImageSet):
    """Independent draws of a generator, and of one of its classes for each if it has any.

    Attributes:
        source: the embedded generator, a published one, or a folder of converted weights.
        flip: whether training mirrors images.
        features: what distances are measured in; see `ImageSet`.
    """

    source: str = "dcgan_faces"
    flip: bool = False
    features: str = "pca_pixels"

    def __post_init__(self) -> None:
        """Load the generator.

        Raises:
            UserError: there is no such generator.
        """
        _ = self.generator

    @functools.cached_property
    def generator(self) -> ConditionedGenerator:
        """The generator."""
        flag = f"--config.data.path={self.source}"
        if not self.source:
            raise UserError(f"{flag}: expected a generator, such as dcgan_faces, or its folder")
        try:
            generator = load_generator(self.source)
        except UserError as error:
            raise UserError(f"{flag}: {error}") from error
        return ConditionedGenerator(generator, generator.layers[0], {}, BATCH)

    @property
    def num_classes(self) -> int:
        """Number of the generator's classes; 1 if it has none, or is the user's own."""
        return max(1, self._class_length)

    @property
    def _class_length(self) -> int:
        """Length of the generator's class vectors; 0 if it has no classes."""
        generator = self.generator.gen
        return generator.num_classes if isinstance(generator, PretrainedGenerator) else 0

    def row_shape(self) -> tuple[int, ...]:
        """Return the shape of the generator's images."""
        return self.generator.image_shape

    def identity(self) -> str:
        """Return hashes of its weights and architecture; for a user's own generator its name."""
        manifest = getattr(self.generator.gen, "manifest", None)
        # A user's own can be anything.
        if not isinstance(manifest, dict) or "weights_sha256" not in manifest:
            return self.source
        network = digest([manifest.get("family"), manifest.get("architecture")])
        return f"{manifest['weights_sha256']} {network[:16]}"

    def draw(self, key: PRNGKeyArray, num: int) -> Points:
        """Draw latents, and classes if there are any, and generate their images."""
        latents = np.asarray(self.generator.sample_latents(key, num))
        key_classes = named_key(key, "classes")
        classes = np.asarray(jax.random.randint(key_classes, (num,), 0, self.num_classes, np.int32))
        rows, done = np.empty((num, *self.row_shape()), np.uint8), 0
        for begin in range(0, num, BLOCK):
            block = slice(begin, begin + BLOCK)
            for images in self._images(latents[block], classes[block]):
                rows[done : done + len(images)] = as_uint8(images)
                done += len(images)
        return Points(jnp.asarray(rows), jnp.asarray(classes))

    def _images(
        self, latents: Float[np.ndarray, "n d"], classes: Int[np.ndarray, " n"]
    ) -> Iterator[Float[np.ndarray, "m h w c"]]:
        """Generate batch by batch, so that few images are held as floats."""
        if not self._class_length:
            return self.generator.image_blocks(latents)
        vectors = np.eye(self._class_length, dtype=np.float32)[classes]
        generator, width = self.generator.gen, latents.shape[1]
        return batch_by_batch(
            lambda rows: generator.images(rows[:, :width], condition=rows[:, width:]),
            np.concatenate([latents, vectors], axis=1),
            BATCH,
        )
