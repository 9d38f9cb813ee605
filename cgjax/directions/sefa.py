"""SeFa: edit directions from the weights alone [Shen & Zhou 2021].

The directions are the unit vectors v that change the output of the first layer most: the maxima of
||A^T v||^2, i.e. the top eigenvectors of A A^T, where A (d, m) is the weight that reads the latent,
each column scaled to unit norm. That scaling cancels any constant factor of a column (equalised
learning rates, the scale of a following batch norm).

The authors' code uses a general eigen-solver and keeps its order and signs; here the directions are
sorted and their signs fixed, so an index quoted from a paper may mean another one, or its
opposite.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cgjax.directions.edits import Directions
from cgjax.errors import UserError
from cgjax.generators.base import layer_index
from cgjax.numerics.arguments import as_float32, as_real, is_whole
from cgjax.numerics.pca import fix_signs


def sefa(
    matrix: ArrayLike, num_directions: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the top eigenvectors of A A^T, columns of A normalised, by `eigh` in float64.

    Args:
      matrix: A, (d, m): one row for each latent coordinate. All-zero columns stay zero.
      num_directions: k, at most d; by default all.

    Returns:
      (k, d) float32 unit directions, largest eigenvalue first, each with its entry of largest
      magnitude positive; and their (k,) float32 eigenvalues, which sum to the number of columns if
      k = d.

    Raises:
      UserError: A is not a finite matrix, or k is out of range.

    >>> directions, eigenvalues = sefa([[3.0, 1.0, 0.0], [0.0, 0.0, 2.0]])
    >>> directions.tolist(), eigenvalues.tolist()
    ([[1.0, 0.0], [0.0, 1.0]], [2.0, 1.0])
    """
    # A copy: it is scaled in place.
    a = np.array(as_real("SeFa's weights", matrix, "(latent_dim, m)"), np.float64)
    if a.ndim != 2 or 0 in a.shape or not np.isfinite(a).all():
        raise UserError(
            f"SeFa's matrix has shape {a.shape}; expected a finite (latent_dim, m) matrix"
        )
    k = len(a) if num_directions is None else num_directions
    if not is_whole(k) or k > len(a):
        raise UserError(f"num_directions={k} does not fit {len(a)} latents; expected 1 to {len(a)}")
    norms = np.linalg.norm(a, axis=0)
    a /= np.where(norms > 0, norms, 1)
    values, vectors = np.linalg.eigh(a @ a.T)
    order = np.argsort(-values, kind="stable")[:k]
    directions = fix_signs(vectors[:, order].T)
    return directions.astype(np.float32), np.maximum(values[order], 0).astype(np.float32)


def _owner(generator: Any) -> Any:
    """Return the object that has the weights: the generator or its network."""
    for owner in (generator, getattr(generator, "network", None)):
        if hasattr(owner, "latent_weights"):
            return owner
    raise UserError(
        f"{type(generator).__name__} does not say which weight reads its latent; give it a method "
        "latent_weights(layers) -> (latent_dim, m), or use GANSpace, which does not need it"
    )


def latent_weights(generator: Any, layers: Sequence[str] | None = None) -> NDArray[np.float32]:
    """Return A, the weight that reads the latent, (d, m).

    It depends on the family: the dense weight of the first layer (DCGAN, PGAN), or the style
    weights of the given layers, side by side, which read w (StyleGAN).

    Args:
      generator: it, or its `network`, has `latent_weights(layers)` or `latent_weights()`, and
        `edit_space` unless that is "z".
      layers: names of the layers, if several read the latent; by default all.

    Returns:
      (d, m) float32, one row for each latent coordinate.

    Raises:
      UserError: the generator has no such weight, no such layer, or no layers to choose from.
    """
    method, name = _owner(generator).latent_weights, "the weights that read the latent"
    if layers is None:
        return np.asarray(as_float32(name, method(), "(latent_dim, m)"))
    if isinstance(layers, str) or not isinstance(layers, Sequence) or not layers:
        raise UserError(f"layers={layers!r}: expected some layers' names, such as ['layer1']")
    if not inspect.signature(method).parameters:
        raise UserError(
            f"layers={list(layers)}: the latent enters this generator at one place only; "
            "leave layers out"
        )
    known = tuple(getattr(generator, "layers", layers))
    chosen = tuple(known[layer_index(known, layer)] for layer in layers)
    return np.asarray(as_float32(name, method(chosen), "(latent_dim, m)"))


def _mean_of(matrix: NDArray[np.float32], mean: ArrayLike) -> NDArray[np.float32]:
    array = as_float32("the numbers of mean", mean, f"({len(matrix)},)")
    if array.shape != (len(matrix),) or not np.isfinite(array).all():
        raise UserError(f"mean has shape {array.shape}; expected ({len(matrix)},) finite numbers")
    return np.asarray(array)


def fit_sefa(
    generator: Any,
    layers: Sequence[str] | None = None,
    *,
    num_directions: int | None = None,
    space: str | None = None,
    mean: ArrayLike | None = None,
) -> Directions:
    """Return a generator's SeFa directions, in the space that its weights read.

    For a StyleGAN they move w, not z [Shen & Zhou 2021]: `directions.space` is "w", and
    `generator.resume(directions.edit(generator.features(z, "w"), 0, 2.0), "w")` are edited images.

    Args:
      generator: see `latent_weights`.
      layers: see `latent_weights`.
      num_directions: k, at most d; by default all.
      space: for a generator without `edit_space`: "z", the default, or the layer that holds the
        space.
      mean: (d,) mean latent of that space; by default zero.

    Returns:
      k directions; `strengths` are the eigenvalues, `scales` are 1.

    Raises:
      UserError: the generator has no such weight, it is not finite, or it reads another space; or
        k or the mean is invalid.

    >>> class TwoLatents:
    ...     def latent_weights(self):
    ...         return [[3.0, 1.0, 0.0], [0.0, 0.0, 2.0]]
    >>> fit_sefa(TwoLatents(), num_directions=1).vectors.tolist()
    [[1.0, 0.0]]
    """
    own = getattr(_owner(generator), "edit_space", None)
    if None not in (own, space) and own != space:
        raise UserError(f"space={space!r}: this generator's weights read {own!r}; leave space out")
    matrix = latent_weights(generator, layers)
    vectors, eigenvalues = sefa(matrix, num_directions)
    return Directions(
        method="sefa",
        space=space or own or "z",
        layers=tuple(layers) if layers is not None else (),
        vectors=vectors,
        strengths=eigenvalues,
        scales=np.ones(len(vectors), np.float32),
        mean=np.zeros(len(matrix), np.float32) if mean is None else _mean_of(matrix, mean),
    )
