"""GANSpace: principal components of a layer, mapped back to the latent [Harkonen et al. 2020].

1. PCA of a layer's flattened features h: mean, components P (k, f), standard deviations sd.
2. Coordinates A = P (h - mean) / sd of samples, and their latents Z: solve the least squares
   A M = Z.
3. The rows of M, scaled to unit length, are the directions. If the layer *is* the latent to edit
   (StyleGAN's w), its components are the directions.

`ganspace` takes arrays; `ganspace_streaming` takes blocks, for features that do not fit in memory,
with incremental PCA [Ross et al. 2008]; `fit_ganspace` draws the blocks from a generator.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray
from numpy.typing import ArrayLike, NDArray

from cgjax.directions.edits import Directions
from cgjax.errors import UserError
from cgjax.numerics.arguments import as_float32, check_whole
from cgjax.numerics.pca import PCA, PCAState, finish_pca, fit_pca, update_pca
from cgjax.runtime.keys import check_key

Blocks = Callable[[], Iterable[tuple[ArrayLike, ArrayLike]]]
"""Starts a pass over (latents (b, d), features (b, ...)); called twice, for the same blocks."""


@dataclasses.dataclass(frozen=True)
class GANSpace:
    """Latent directions and the layer's components that they come from.

    Attributes:
      directions: (k, d) float32, unit rows; zeros for a component without variance.
      lat_stdev: (k,) float32: standard deviation of the latents along each; 1 by convention in z.
      lat_mean: (d,) float32: mean of the latents.
      pca: the layer's components; `pca.components` (k, f) move the activations themselves.
    """

    directions: NDArray[np.float32]
    lat_stdev: NDArray[np.float32]
    lat_mean: NDArray[np.float32]
    pca: PCA

    @property
    def act_stdev(self) -> NDArray[np.float32]:
        """(k,) standard deviation of the features along each component."""
        return np.sqrt(self.pca.explained_variance)

    def edit_features(self, features: ArrayLike, index: int, alpha: float) -> NDArray[np.float32]:
        """Add `alpha * act_stdev * component` to the layer's features, (n, ...)."""
        array = np.asarray(features, np.float32)
        step = alpha * self.act_stdev[index] * self.pca.components[index]
        return array + step.astype(np.float32).reshape((1, *array.shape[1:]))


def _pair(
    latents: ArrayLike, features: ArrayLike
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return latents and flattened features as float32; a UserError says what is wrong."""
    z = np.asarray(as_float32("latents", latents, "(n, d)"))
    h = np.asarray(as_float32("features", features, "(n, ...)"))
    if z.ndim != 2 or h.ndim < 2 or len(z) != len(h):
        raise UserError(
            f"latents {z.shape} and features {h.shape}; expected (n, d) and (n, ...) of equal n"
        )
    for name, array in (("latents", z), ("features", h)):
        if not np.isfinite(array).all():
            raise UserError(f"the {name} hold NaN or infinities; check the generator's weights")
    return z, h.reshape(len(h), -1)


def _finish(
    pca: PCA,
    gram: NDArray[np.float64],
    cross: NDArray[np.float64],
    moments: tuple[NDArray[np.float64], NDArray[np.float64], int],
    measure_stdev: bool,
) -> GANSpace:
    """Solve the normal equations (A^T A) M = A^T Z, and measure the latents along M's rows."""
    solution = np.linalg.lstsq(gram, cross, rcond=None)[0]
    norms = np.linalg.norm(solution, axis=1, keepdims=True)
    directions = solution / np.where(norms > 0, norms, 1)
    total, squares, n = moments
    mean = total / n
    covariance = squares / n - np.outer(mean, mean)
    spread = np.sqrt(np.maximum(np.einsum("kd,de,ke->k", directions, covariance, directions), 0))
    return GANSpace(
        directions=directions.astype(np.float32),
        lat_stdev=(spread if measure_stdev else np.ones_like(spread)).astype(np.float32),
        lat_mean=mean.astype(np.float32),
        pca=pca,
    )


def _coordinates(pca: PCA, features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return A, (n, k): coordinates in standard deviations; 0 for components without variance."""
    sd = np.sqrt(pca.explained_variance.astype(np.float64))
    projected = pca.project(features).astype(np.float64)
    return np.divide(projected, sd, out=np.zeros_like(projected), where=sd > 1e-6 * sd.max())


def ganspace(
    latents: ArrayLike,
    features: ArrayLike,
    num_components: int = 80,
    *,
    measure_stdev: bool = False,
) -> GANSpace:
    """Return the latent directions of a layer's principal components, from arrays in memory.

    The PCA is exact; it and the regression use the same samples.

    Args:
      latents: (n, d) float32, the inputs.
      features: (n, ...) float32, the layer's outputs; flattened to (n, f).
      num_components: k, at most min(n - 1, f).
      measure_stdev: set `lat_stdev` to the latents' measured standard deviation along each
        direction (for spaces such as w), not to 1.

    Raises:
      UserError: the shapes of latents and features do not match, either is not finite numbers, or k
        is out of range.

    >>> z = np.random.default_rng(0).normal(size=(500, 3))
    >>> result = ganspace(z, z * [1.0, 5.0, 2.0], 2)  # the layer varies most with the second latent
    >>> np.abs(result.directions).argmax(axis=1).tolist()
    [1, 2]
    """
    z, h = _pair(latents, features)
    pca = fit_pca(h, num_components)
    coordinates, wide = _coordinates(pca, h), z.astype(np.float64)
    return _finish(
        pca,
        coordinates.T @ coordinates,
        coordinates.T @ wide,
        (wide.sum(axis=0), wide.T @ wide, len(z)),
        measure_stdev,
    )


def ganspace_streaming(
    blocks: Blocks, num_components: int = 80, *, measure_stdev: bool = False
) -> GANSpace:
    """Return the same from blocks, in two passes: incremental PCA, then the regression.

    Memory: one block, and (k + block) x f numbers. With blocks of max(2000, 3 k) rows the top
    components lose little accuracy; the last block may be smaller.

    Args:
      blocks: starts a pass over (latents, features); must yield the same blocks each time.
      num_components: k, at most f and the rows of the first block less one.
      measure_stdev: as in `ganspace`.

    Raises:
      UserError: there are no blocks, the shapes of a block do not match, it is not finite numbers,
        or k is out of range.

    >>> z = np.random.default_rng(0).normal(size=(500, 3))
    >>> h = z * [1.0, 5.0, 2.0]
    >>> result = ganspace_streaming(lambda: [(z[:300], h[:300]), (z[300:], h[300:])], 2)
    >>> np.abs(result.directions).argmax(axis=1).tolist()
    [1, 2]
    """
    state: PCAState | None = None
    for latents, features in blocks():
        _, h = _pair(latents, features)
        most = min(len(h) - 1, h.shape[1])
        if state is None and not 1 <= num_components <= most:
            raise UserError(
                f"num_components={num_components}: expected at most {most}, for a first block of "
                f"{len(h)} rows of {h.shape[1]} features; ask for fewer or give larger blocks"
            )
        state = update_pca(state, h, num_components)
    if state is None:
        raise UserError("no blocks were given; expected at least one")
    pca = finish_pca(state)
    gram = np.zeros((num_components, num_components))
    cross = total = squares = np.zeros(())
    for latents, features in blocks():
        z, h = _pair(latents, features)
        coordinates, wide = _coordinates(pca, h), z.astype(np.float64)
        gram = gram + coordinates.T @ coordinates
        cross = cross + coordinates.T @ wide
        total, squares = total + wide.sum(axis=0), squares + wide.T @ wide
    return _finish(pca, gram, cross, (total, squares, state.num_rows), measure_stdev)


def generator_blocks(
    generator: Any,
    layer: str,
    key: PRNGKeyArray,
    num_latents: int,
    block_rows: int = 2000,
    *,
    latent_layer: str | None = None,
    batch_size: int = 250,
) -> Blocks:
    """Return blocks of (latents, features at `layer`) of a generator, the same in every pass.

    Args:
      generator: has `sample_latents(key, n)` and `features(z, layer)`.
      layer: the layer whose components are wanted.
      key: typed key; block b uses `fold_in(key, b)`.
      num_latents: total rows.
      block_rows: rows of a block.
      latent_layer: None for z itself, or the layer that holds the space to edit, such as "w".
      batch_size: rows of one forward pass.

    Returns:
      A function that starts a pass; the generator runs only then.
    """

    def one_pass() -> Iterable[tuple[ArrayLike, ArrayLike]]:
        for index, first in enumerate(range(0, num_latents, block_rows)):
            rows = min(block_rows, num_latents - first)
            z = generator.sample_latents(jax.random.fold_in(key, index), rows)

            def run(name: str, z: Any = z, rows: int = rows) -> NDArray[np.float32]:
                parts = [
                    np.asarray(generator.features(z[start : start + batch_size], name), np.float32)
                    for start in range(0, rows, batch_size)
                ]
                return np.concatenate([part.reshape(len(part), -1) for part in parts])

            yield np.asarray(z) if latent_layer is None else run(latent_layer), run(layer)

    return one_pass


def fit_ganspace(
    generator: Any,
    layer: str,
    *,
    key: PRNGKeyArray,
    num_latents: int = 10_000,
    num_components: int = 80,
    latent_layer: str | None = None,
    block_rows: int = 2000,
) -> Directions:
    """Return a generator's GANSpace directions at a layer, by streaming.

    Args:
      generator: see `generator_blocks`.
      layer: the layer whose principal components are wanted.
      key: typed key of the latents.
      num_latents: number of latents drawn, at least 2 (the authors' default is 300,000).
      num_components: k, at most f and `num_latents` less one.
      latent_layer: None to edit z, or the layer to edit, such as "w"; may be `layer` itself.
      block_rows: rows in memory at a time; raised to k + 1 if smaller.

    Returns:
      k directions; `strengths` are the variances of the layer's components.

    Raises:
      UserError: `key` is not a random key, `num_latents` is below 2, the generator has no such
        layer, its features are not finite, or k is out of range.
    """
    check_key(key)
    num_latents = check_whole("num_latents", num_latents, least=2, hint="better 10000")
    num_components = check_whole("num_components", num_components)
    block_rows = check_whole("block_rows", block_rows)
    blocks = generator_blocks(
        generator,
        layer,
        key,
        num_latents,
        max(block_rows, num_components + 1),
        latent_layer=latent_layer,
    )
    result = ganspace_streaming(blocks, num_components, measure_stdev=latent_layer is not None)
    vectors = result.pca.components if latent_layer == layer else result.directions
    return Directions(
        method="ganspace",
        space="z" if latent_layer is None else latent_layer,
        layers=(layer,),
        vectors=vectors,
        strengths=result.pca.explained_variance,
        scales=result.act_stdev if latent_layer == layer else result.lat_stdev,
        mean=result.lat_mean if latent_layer is not None else np.zeros_like(result.lat_mean),
    )
