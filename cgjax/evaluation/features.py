"""Feature extractors for distances between sets of images, and the PCA they share.

An extractor has a `name`, which every table prints beside its distances, an `input` ("images" or
"latents") and is called on that input: (n, h, w, c) float32 in [-1, 1], or (n, d) latents. It
returns (n, d) float32. All of them work offline; `InceptionPool3` needs a file that the user names,
and only its Frechet distance may be called FID.
"""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh

from cgjax.errors import UserError
from cgjax.evaluation import inception
from cgjax.numerics.rows import BLOCK_ROWS, as_rows

# Up to this many rows (or columns, if fewer) the Gram matrix is decomposed exactly; beyond it,
# randomised.
EXACT_LIMIT = 4096


@runtime_checkable
class FeatureExtractor(Protocol):
    """Anything with a name that turns images (or latents) into rows of features."""

    @property
    def name(self) -> str:
        """What the tables call this feature."""

    @property
    def input(self) -> Literal["images", "latents"]:
        """Which of the two it is called on."""

    def __call__(self, batch: ArrayLike, /) -> NDArray[np.float32]:
        """Return (n, d) float32 features."""


@dataclasses.dataclass(frozen=True)
class PCA:
    """Principal components of a set of rows.

    Attributes:
      mean: (f,) float32.
      components: (k, f) float32, orthonormal rows, most variance first; the entry of largest
        magnitude of each is positive, so that the sign does not depend on the solver.
      explained_variance: (k,) float32, unbiased (divided by n - 1).
      total_variance: of all f features together.
    """

    mean: NDArray[np.float32]
    components: NDArray[np.float32]
    explained_variance: NDArray[np.float32]
    total_variance: float

    def project(self, rows: ArrayLike) -> NDArray[np.float32]:
        """Return the (n, k) coordinates of (n, f) rows; images are flattened."""
        wide = as_rows("the rows to project", rows)
        if wide.shape[1] != len(self.mean):
            raise UserError(
                f"rows of {wide.shape[1]} features do not fit a PCA of {len(self.mean)}; "
                "project what was fitted"
            )
        out = np.empty((len(wide), len(self.components)), np.float32)
        for first in range(
            0, len(wide), BLOCK_ROWS
        ):  # centred block by block: no second copy of all
            block = wide[first : first + BLOCK_ROWS] - self.mean
            out[first : first + BLOCK_ROWS] = block @ self.components.T
        return out


def fix_signs(vectors: NDArray[Any]) -> NDArray[Any]:
    """Flip each row so that its entry of largest magnitude is positive."""
    largest = np.argmax(np.abs(vectors), axis=1)
    signs = np.sign(vectors[np.arange(len(vectors)), largest])
    return vectors * np.where(signs == 0, 1, signs)[:, None].astype(vectors.dtype)


def _randomised_basis(
    centred: NDArray[np.float32], num_components: int, seed: int, num_iterations: int = 7
) -> NDArray[np.float32]:
    """Return (f, k + 20) columns that span nearly the top components [Halko et al. 2011, 4.4]."""
    rng = np.random.default_rng(seed)
    width = min(num_components + 20, *centred.shape)
    basis = rng.standard_normal((centred.shape[1], width)).astype(np.float32)
    for _ in range(num_iterations):
        basis = np.linalg.qr(centred.T @ (centred @ np.linalg.qr(basis)[0]))[0]
    return basis


def fit_pca(
    rows: ArrayLike,
    num_components: int,
    *,
    method: Literal["auto", "exact", "randomised"] = "auto",
    seed: int = 0,
) -> PCA:
    """Fit the top principal components.

    Exact: the eigenvectors of the smaller of X X^T and X^T X (X centred), then one Rayleigh-Ritz
    step on their span, which restores orthonormality and the small variances that the squared
    condition number of a float32 product blurs. Above `EXACT_LIMIT` in both n and f the span comes
    from a randomised subspace iteration instead. O(n f min(n, f)) time and O(min(n, f)^2) memory
    beside one centred copy.

    Args:
      rows: (n, f) float; images are flattened.
      num_components: k, at most min(n - 1, f).
      method: "exact", "randomised" or, by size, "auto".
      seed: of the randomised method.

    Raises:
      UserError: k does not fit, or a row is not finite.

    >>> x = np.random.default_rng(0).normal(size=(100, 5)).astype(np.float32)
    >>> fit_pca(x, 2).project(x).shape
    (100, 2)
    """
    wide = as_rows("the rows", rows, min_rows=2)
    n, f = wide.shape
    if not 1 <= num_components <= min(n - 1, f):
        raise UserError(
            f"num_components={num_components} does not fit {n} rows of {f} features; "
            f"expected 1 to {min(n - 1, f)}"
        )
    if method not in ("auto", "exact", "randomised"):
        raise UserError(f"method={method!r}; expected 'auto', 'exact' or 'randomised'")
    mean = wide.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = (wide - mean).astype(np.float32, copy=False)
    if method == "randomised" or (method == "auto" and min(n, f) > EXACT_LIMIT):
        basis = _randomised_basis(centred, num_components, seed)
    elif n < f:
        basis = centred.T @ _top_eigenvectors(centred @ centred.T, num_components)
    else:
        basis = _top_eigenvectors(centred.T @ centred, num_components)
    basis = np.linalg.qr(basis.astype(np.float64))[0]
    coordinates = (centred @ basis.astype(np.float32)).astype(np.float64)
    coordinates -= coordinates.mean(axis=0)
    _, singular, rotation = np.linalg.svd(coordinates, full_matrices=False)
    components = fix_signs((basis @ rotation[:num_components].T).T)
    return PCA(
        mean=mean,
        components=components.astype(np.float32),
        explained_variance=(singular[:num_components] ** 2 / (n - 1)).astype(np.float32),
        total_variance=float(np.einsum("ij,ij->", centred, centred, dtype=np.float64) / (n - 1)),
    )


def _top_eigenvectors(gram: NDArray[np.float32], num: int) -> NDArray[np.float32]:
    """Return the (m, num) eigenvectors of the largest eigenvalues, largest first."""
    size = len(gram)
    _, vectors = eigh(gram.astype(np.float64), subset_by_index=[size - num, size - 1])
    return vectors[:, ::-1].astype(np.float32)


class Pixels:
    """The flattened image itself."""

    input: Literal["images", "latents"] = "images"
    name = "pixels"

    def __call__(self, batch: ArrayLike, /) -> NDArray[np.float32]:
        """Return (n, h * w * c)."""
        return as_rows("the images", batch).astype(np.float32, copy=False)


class Projected:
    """Any extractor, projected on the principal components of a reference set."""

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
    """Return the default feature: the first principal components of the prior's images."""
    return Projected.fit(Pixels(), images, num_components)


class GeneratorLayer:
    """A generator's own layer, as a feature of latents; project it if it is wide."""

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
        parts = [
            np.asarray(self.generator.features(jnp.asarray(part), self.layer, **self.options))
            for part in _batches(latents, self.batch_size)
        ]
        return np.concatenate([part.reshape(len(part), -1) for part in parts])


def _batches(array: NDArray[Any], size: int) -> Iterator[NDArray[Any]]:
    if len(array) == 0:
        raise UserError("no rows were given; expected at least one")
    for first in range(0, len(array), size):
        yield array[first : first + size]


def as_colour_images(images: ArrayLike) -> NDArray[np.float32]:
    """Return (n, h, w, 3) float32 of finite images; grey ones are repeated to three channels."""
    array = np.asarray(images, np.float32)
    if array.ndim != 4 or array.shape[-1] not in (1, 3):
        raise UserError(f"images have shape {array.shape}; expected (n, h, w, 3) or (n, h, w, 1)")
    if not np.isfinite(array).all():
        raise UserError("the images hold NaN or infinities; expected numbers in [-1, 1]")
    return np.repeat(array, 3, axis=-1) if array.shape[-1] == 1 else array


def _padded_batches(
    function: Callable[[jax.Array], jax.Array], images: NDArray[np.float32], size: int
) -> NDArray[np.float32]:
    """Apply a function batch by batch; the last is padded, so that one shape is compiled."""
    parts = []
    for part in _batches(images, size):
        padded = np.zeros((size, *part.shape[1:]), np.float32)
        padded[: len(part)] = part
        parts.append(np.asarray(function(jnp.asarray(padded)))[: len(part)])
    return np.concatenate(parts)


class RandomCnn:
    """A convolutional network with fixed random weights: crude, but local, and the same everywhere.

    Four 3x3 convolutions of stride 2 with ReLU; after each, the mean and the spatial standard
    deviation of every channel. Random filters rank sets of images as a weak texture and colour
    statistic would.

    Args:
      seed: of the weights; part of the name when it is not 0.
      widths: channels of the layers; the feature has 2 * sum(widths) numbers.
      batch_size: images a call.
    """

    input: Literal["images", "latents"] = "images"

    def __init__(
        self, seed: int = 0, widths: tuple[int, ...] = (16, 32, 64, 96), batch_size: int = 128
    ) -> None:
        self.name = "random_cnn" if seed == 0 else f"random_cnn_seed{seed}"
        # RandomState, though legacy, is the one stream that NumPy has frozen: the feature never
        # changes.
        stream = np.random.RandomState(seed)
        self.kernels = []
        channels = 3
        for width in widths:
            scale = np.sqrt(2.0 / (9 * channels))  # He: keeps the activations' variance
            kernel = stream.standard_normal((3, 3, channels, width)) * scale
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
        return _padded_batches(
            lambda part: self._forward(self.kernels, part), as_colour_images(batch), self.batch_size
        )


class InceptionPool3:
    """Inception-v3's 2,048 pooled features, from a file that the user names: the only FID.

    Images are rounded to 8 bits first, as if they had been saved and read again. FID wants at least
    2,048 rows on each side, published tables 10,000 or 50,000.

    Args:
      path: safetensors with the tensors of pytorch-fid's Inception under their own names.
      batch_size: images a call.
    """

    input: Literal["images", "latents"] = "images"
    name = "inception_pool3"

    def __init__(self, path: str | Path, batch_size: int = 32) -> None:
        self._weights = inception.load_weights(path)
        self._forward = jax.jit(inception.pool3)
        self.batch_size = batch_size

    def __call__(self, batch: ArrayLike, /) -> NDArray[np.float32]:
        """Return (n, 2048); grey images are repeated to three channels."""
        images = as_colour_images(batch)
        levels = np.floor((np.clip(images, -1, 1) + 1) * 127.5 + 0.5) / 127.5 - 1
        return _padded_batches(
            lambda part: self._forward(self._weights, part), levels, self.batch_size
        )
