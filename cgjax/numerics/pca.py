"""Principal components, of rows in memory or block by block."""

import dataclasses
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh

from cgjax.errors import UserError
from cgjax.numerics.arguments import is_whole
from cgjax.numerics.rows import BLOCK_ROWS, as_rows

# The largest Gram matrix, in rows or columns, that is decomposed exactly; beyond it the method is
# randomised.
EXACT_LIMIT = 4096


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
                "project rows like those it was fitted to"
            )
        out = np.empty((len(wide), len(self.components)), np.float32)
        # Centred block by block, which avoids a second copy of all rows.
        for first in range(0, len(wide), BLOCK_ROWS):
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
    """Return (f, k + 20) columns that nearly span the top components [Halko et al. 2011, 4.4]."""
    rng = np.random.default_rng(seed)
    width = min(num_components + 20, *centred.shape)
    basis = rng.standard_normal((centred.shape[1], width)).astype(np.float32)
    for _ in range(num_iterations):
        projected = _product(centred, np.linalg.qr(basis)[0])
        basis = np.linalg.qr(_product(centred.T, projected))[0]
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
    step on their span, which restores orthonormality and the small variances that are lost to the
    squared condition number of a float32 product. Above `EXACT_LIMIT` in both n and f the span
    comes from a randomised subspace iteration instead. O(n f min(n, f)) time and O(min(n, f)^2)
    memory beside one centred copy.

    Args:
      rows: (n, f) float; images are flattened.
      num_components: k, at most min(n - 1, f).
      method: "exact", "randomised", or "auto" to choose by size.
      seed: seed of the randomised method.

    Raises:
      UserError: k is out of range, a row is not finite, or squares overflow float32.

    >>> x = np.random.default_rng(0).normal(size=(100, 5)).astype(np.float32)
    >>> fit_pca(x, 2).project(x).shape
    (100, 2)
    """
    wide = as_rows("the rows", rows, min_rows=2)
    n, f = wide.shape
    if not is_whole(num_components) or num_components > min(n - 1, f):
        raise UserError(
            f"num_components={num_components} is out of range for {n} rows of {f} features; "
            f"expected 1 to {min(n - 1, f)}"
        )
    if method not in ("auto", "exact", "randomised"):
        raise UserError(f"method={method!r}; expected 'auto', 'exact' or 'randomised'")
    mean = wide.mean(axis=0, dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # `_product` refuses overflow
        mean = mean.astype(np.float32)
        centred = (wide - mean).astype(np.float32, copy=False)
    if method == "randomised" or (method == "auto" and min(n, f) > EXACT_LIMIT):
        basis = _randomised_basis(centred, num_components, seed)
    elif n < f:
        basis = centred.T @ _top_eigenvectors(_product(centred, centred.T), num_components)
    else:
        basis = _top_eigenvectors(_product(centred.T, centred), num_components)
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


def _product(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a product of matrices; refuse rows whose squares overflow float32."""
    with np.errstate(over="ignore", invalid="ignore"):
        product = a @ b
    if not np.isfinite(product).all():
        raise UserError(
            "the rows are too large: their squares overflow float32; divide them by a constant "
            "first"
        )
    return product


def _top_eigenvectors(gram: NDArray[np.float32], num: int) -> NDArray[np.float32]:
    """Return the (m, num) eigenvectors of the largest eigenvalues, largest first."""
    size = len(gram)
    _, vectors = eigh(gram.astype(np.float64), subset_by_index=[size - num, size - 1])
    return vectors[:, ::-1].astype(np.float32)


def fit_pca_in_blocks(blocks: Iterable[ArrayLike], num_components: int) -> PCA:
    """Fit nearly the same from blocks of rows, of which one is held at a time.

    Incremental PCA (`update_pca`) that carries twice as many components along, so that those which
    are returned lose little. Memory: 2 k + b rows.

    Args:
      blocks: (b, f) float each; images are flattened.
      num_components: k, at most min(n - 1, f).

    Raises:
      UserError: as `fit_pca`.

    >>> x = np.random.default_rng(0).normal(size=(100, 5)).astype(np.float32)
    >>> fit_pca_in_blocks([x[:50], x[50:]], 2).project(x).shape
    (100, 2)
    """
    state: PCAState | None = None
    for rows in blocks:
        block = as_rows("the rows", rows).astype(np.float32, copy=False)
        state = update_pca(state, block, 2 * num_components)
    n, f = (0, 0) if state is None else (state.num_rows, len(state.mean))
    if state is None or num_components > min(n - 1, f):
        raise UserError(
            f"num_components={num_components} is out of range for {n} rows of {f} features"
        )
    # Ordered, and nearly orthogonal: the first rows hold the components that are asked for.
    return finish_pca(dataclasses.replace(state, scaled=state.scaled[:num_components]))


@dataclasses.dataclass(frozen=True)
class PCAState:
    """State of incremental PCA: row count, mean (f,), scaled components (k, f), total scatter."""

    num_rows: int
    mean: NDArray[np.float64]
    scaled: NDArray[np.float32]
    scatter: float


def update_pca(state: PCAState | None, rows: NDArray[np.float32], num_components: int) -> PCAState:
    """Add one block of rows to an incremental PCA [Ross et al. 2008, figure 1].

    The top components of the rows seen so far (as k rows, scaled by their singular values), the
    centred block, and one row for the shift of the mean are decomposed together through their small
    Gram matrix, in O((k + b) f min(k + b, f)) time. Exact while k is at least the rank of the rows
    seen so far; otherwise the truncated components are lost.

    Args:
      state: the state after the previous blocks; None for the first.
      rows: (b, f) float32.
      num_components: k.
    """
    n, b = (0 if state is None else state.num_rows), len(rows)
    block_mean = rows.mean(axis=0, dtype=np.float64)
    centred = rows - block_mean.astype(np.float32)
    scatter = float(np.einsum("ij,ij->", centred, centred, dtype=np.float64))
    if state is None:
        stacked, mean = centred, block_mean
    else:
        shift = np.sqrt(n * b / (n + b)) * (state.mean - block_mean)
        stacked = np.concatenate([state.scaled, centred, shift[None].astype(np.float32)])
        mean = (n * state.mean + b * block_mean) / (n + b)
        scatter += state.scatter + float(shift @ shift)
    k = min(num_components, *stacked.shape)
    is_wide = len(stacked) < stacked.shape[1]
    gram = _product(stacked, stacked.T) if is_wide else _product(stacked.T, stacked)
    kept = [len(gram) - k, len(gram) - 1]
    values, vectors = eigh(gram.astype(np.float64), subset_by_index=kept)
    if is_wide:  # U^T X: its rows have the singular values as norms; nothing small is divided by
        scaled = vectors[:, ::-1].T.astype(np.float32) @ stacked
    else:
        lengths = np.sqrt(np.maximum(values[::-1], 0))[:, None]
        scaled = (lengths * vectors[:, ::-1].T).astype(np.float32)
    return PCAState(n + b, mean, scaled, scatter)


def finish_pca(state: PCAState) -> PCA:
    """Turn the state of an incremental PCA into components, ordered and with fixed signs."""
    _, singular, components = np.linalg.svd(state.scaled.astype(np.float64), full_matrices=False)
    return PCA(
        mean=state.mean.astype(np.float32),
        components=fix_signs(components).astype(np.float32),
        explained_variance=(singular**2 / (state.num_rows - 1)).astype(np.float32),
        total_variance=state.scatter / (state.num_rows - 1),
    )
