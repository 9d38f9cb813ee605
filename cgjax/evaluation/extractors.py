"""Feature extractors for distances between sets of images.

An extractor has a `name`, which every table prints next to its distances, and an `input` ("images"
or "latents"). It is called on that input, (n, h, w, c) float32 in [-1, 1] or (n, d) latents, and
returns (n, d) float32. All work offline; `InceptionPool3` needs a file from the user, and only its
Frechet distance may be called FID.
"""

from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from cgjax.config.distance_features import INCEPTION, RANDOM_CNN, Feature
from cgjax.evaluation import inception
from cgjax.evaluation.image_batches import (
    as_colour_images,
    at_least_one,
    images_at_a_time,
    in_full_batches,
)
from cgjax.generators.batching import in_batches
from cgjax.numerics.pca import PCA, fit_pca
from cgjax.numerics.rows import as_rows
from cgjax.runtime.png import as_uint8, from_uint8


@runtime_checkable
class FeatureExtractor(Protocol):
    """Anything with a name that turns images or latents into rows of features."""

    @property
    def name(self) -> str:
        """The feature's name in tables."""

    @property
    def input(self) -> Literal["images", "latents"]:
        """What it is called on."""

    def __call__(self, batch: ArrayLike, /) -> NDArray[np.float32]:
        """Return (n, d) float32 features."""


class Pixels:
    """The flattened image itself."""

    input: Literal["images", "latents"] = "images"
    name = "pixels"

    def __call__(self, batch: ArrayLike, /) -> NDArray[np.float32]:
        """Return (n, h * w * c)."""
        return as_rows("the images", batch).astype(np.float32, copy=False)


class Projected:
    """Any extractor, projected onto the principal components of a reference set."""

    def __init__(self, extractor: FeatureExtractor, pca: PCA) -> None:
        self.extractor, self.pca = extractor, pca
        self.input = extractor.input
        self.name = f"pca{len(pca.components)}_{extractor.name}"

    @classmethod
    def fit(cls, extractor: FeatureExtractor, batch: ArrayLike, num_components: int) -> "Projected":
        """Fit the components on the features of a reference batch, normally draws of the prior."""
        return cls(extractor, fit_pca(extractor(batch), num_components))

    def __call__(self, batch: ArrayLike, /) -> NDArray[np.float32]:
        """Return (n, k)."""
        return self.pca.project(self.extractor(batch))


def pca_pixels(images: ArrayLike, num_components: int = 48) -> Projected:
    """Return the default feature: the leading principal components of the prior's images."""
    return Projected.fit(Pixels(), images, num_components)


class GeneratorLayer:
    """A generator's own layer as a feature of latents; project it if it is wide."""

    input: Literal["images", "latents"] = "latents"

    def __init__(
        self, generator: Any, layer: str, *, batch_size: int = 256, **options: Any
    ) -> None:
        """Take any object with `features(latents, layer, **options)` (see the README)."""
        self.generator, self.layer, self.options = generator, layer, options
        self.batch_size = batch_size
        self.name = f"generator_{layer}"

    def __call__(self, batch: ArrayLike, /) -> NDArray[np.float32]:
        """Return the flattened (n, f) features."""
        latents = np.asarray(batch, np.float32)

        def flat(rows: jax.Array) -> jax.Array:
            features = self.generator.features(rows, self.layer, **self.options)
            return jnp.asarray(features).reshape(len(rows), -1)

        return in_batches(flat, at_least_one(latents), self.batch_size)


class RandomCnn:
    """A convolutional network with fixed random weights: crude, but local, and the same everywhere.

    Four 3x3 convolutions of stride 2 with ReLU; the features are the mean and the spatial standard
    deviation of every channel after each. Random filters rank sets of images like a weak texture
    and colour statistic.

    Args:
      seed: of the weights; part of the name unless it is 0.
      widths: channels of the layers; there are 2 * sum(widths) features.
      batch_size: small images per call; see `images_at_a_time`.
    """

    input: Literal["images", "latents"] = "images"

    def __init__(
        self, seed: int = 0, widths: tuple[int, ...] = (16, 32, 64, 96), batch_size: int = 128
    ) -> None:
        self.name = "random_cnn" if seed == 0 else f"random_cnn_seed{seed}"
        # RandomState is legacy, but the only generator NumPy has frozen: the feature never changes.
        random = np.random.RandomState(seed)
        self.kernels = []
        channels = 3
        for width in widths:
            scale = np.sqrt(2.0 / (9 * channels))  # He initialisation
            kernel = random.standard_normal((3, 3, channels, width)) * scale
            self.kernels.append(jnp.asarray(kernel, jnp.float32))
            channels = width
        self.batch_size = batch_size
        self._forward = jax.jit(self._forward_)

    @staticmethod
    def _forward_(kernels: list[jax.Array], images: jax.Array) -> jax.Array:
        x, out = images, []
        for kernel in kernels:
            x = jax.lax.conv_general_dilated(
                x,
                kernel,
                window_strides=(2, 2),
                padding="SAME",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                precision=jax.lax.Precision.HIGHEST,
            )
            x = jax.nn.relu(x)
            mean = x.mean(axis=(1, 2))
            variance = jnp.square(x - mean[:, None, None, :]).mean(axis=(1, 2))
            out += [mean, jnp.sqrt(variance)]
        return jnp.concatenate(out, axis=1)

    def __call__(self, batch: ArrayLike, /) -> NDArray[np.float32]:
        """Return (n, 2 * sum(widths)); grey images are repeated to three channels."""
        images = at_least_one(as_colour_images(batch))
        size = images_at_a_time(self.batch_size, *images.shape[1:3])
        return in_full_batches(lambda part: self._forward(self.kernels, part), images, size)


class InceptionPool3:
    """Inception-v3's 2,048 pooled features, from a file that the user gives: the only FID.

    Images are rounded to 8 bits first, as if they had been saved and read back. FID needs at least
    2,048 rows on each side; published tables use 10,000 or 50,000.

    Args:
      path: safetensors with the tensors of pytorch-fid's Inception under their own names.
      batch_size: images per call.
    """

    input: Literal["images", "latents"] = "images"
    name = "inception_pool3"

    def __init__(self, path: str | Path, batch_size: int = 32) -> None:
        self._weights, self._classifier = inception.load_weights(path)
        self._forward = jax.jit(inception.pool3)
        self.batch_size = batch_size

    def __call__(self, batch: ArrayLike, /) -> NDArray[np.float32]:
        """Return (n, 2048); grey images are repeated to three channels."""
        levels = from_uint8(as_uint8(at_least_one(as_colour_images(batch))))
        return in_full_batches(
            lambda part: self._forward(self._weights, part), levels, self.batch_size
        )

    def logits(self, features: ArrayLike) -> NDArray[np.float32] | None:
        """Return the class outputs without biases; None if the file has no classifier."""
        return None if self._classifier is None else np.asarray(features) @ self._classifier


def fixed_extractor(feature: Feature) -> FeatureExtractor | None:
    """Return the extractor of a feature that is fitted to no images; None for the others."""
    if feature.kind == INCEPTION:
        return InceptionPool3(feature.argument)
    return RandomCnn() if feature.kind == RANDOM_CNN else None
