"""Measures of diversity; report each as a ratio to that of true members."""

import numpy as np
from numpy.typing import ArrayLike

from cgjax.errors import UserError
from cgjax.numerics.rows import as_rows, distance_blocks


def participation_ratio(rows: ArrayLike) -> float:
    """Return the effective rank (tr S)^2 / tr S^2 of the rows' covariance S.

    Between 1 (all variance on one axis) and d (equal on all axes). An estimate from n rows is too
    low by a factor of about 1 + PR / n, so compare sets of equal n. O(n d min(n, d)) time.

    Args:
      rows: (n, d), n at least 2.

    Raises:
      UserError: fewer than two rows, one that is not finite, or all rows equal.

    >>> float(participation_ratio([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
    2.0
    """
    wide = as_rows("the set", rows, min_rows=2)
    wide = wide - wide.mean(axis=0, dtype=np.float64).astype(wide.dtype)
    # tr S^2 = ||X^T X||_F^2 = ||X X^T||_F^2: take the smaller of the two products.
    product = wide @ wide.T if len(wide) < wide.shape[1] else wide.T @ wide
    trace = np.trace(product, dtype=np.float64)
    squares = np.einsum("ij,ij->", product, product, dtype=np.float64)
    if squares == 0:
        raise UserError("all rows are equal: their effective rank is undefined")
    return float(trace**2 / squares)


def mean_pairwise_distance(rows: ArrayLike) -> float:
    """Return the mean Euclidean distance over all pairs of different rows; O(n^2 d), in blocks.

    Args:
      rows: (n, d), n at least 2.

    Raises:
      UserError: fewer than two rows, or one that is not finite.

    >>> round(mean_pairwise_distance([[0.0, 0.0], [3.0, 4.0]]), 6)
    5.0
    """
    wide = as_rows("the set", rows, min_rows=2)
    wide = (wide - wide.mean(axis=0, dtype=np.float64)).astype(wide.dtype)
    total = sum(
        float(np.sqrt(block).sum(dtype=np.float64)) for _, block in distance_blocks(wide, wide)
    )
    return total / (len(wide) * (len(wide) - 1))


def norm_ratio(latents: ArrayLike, reference: ArrayLike) -> float:
    """Return mean ||z|| of the samples over mean ||z|| of the reference; below 1 means shrinkage.

    Args:
      latents: (n, d).
      reference: (m, d) true members, or draws of the prior.

    Raises:
      UserError: an empty set, a row that is not finite, or a reference of zeros only.

    >>> norm_ratio([[0.0, 1.0]], [[2.0, 0.0], [0.0, -2.0]])
    0.5
    """
    norms = [
        float(np.linalg.norm(as_rows(name, values).astype(np.float64), axis=1).mean())
        for name, values in (("the latents", latents), ("the reference", reference))
    ]
    if norms[1] == 0:
        raise UserError(
            "the reference latents are all zero; give true members or draws of the prior"
        )
    return norms[0] / norms[1]
