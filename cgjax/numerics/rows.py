"""Checked (n, d) arrays, and squared distances in blocks."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cgjax.errors import UserError
from cgjax.numerics.arguments import as_real

Floats = NDArray[np.floating[Any]]

# 1,024 rows against 10,000 in float32 are 40 MB: large enough for a fast product, small beside the
# data.
BLOCK_ROWS = 1024


def as_rows(name: str, values: ArrayLike, *, min_rows: int = 1) -> Floats:
    """Return `values` as a finite (n, d) floating array; axes after the first are flattened.

    Raises:
      UserError: not an array of numbers, too few rows, or a row with NaN or an infinity (the
        message names the first).
    """
    rows = np.asarray(as_real(name, values, "an (n, d) array"))
    if rows.dtype not in (np.float32, np.float64):
        rows = rows.astype(np.float32 if rows.dtype == np.float16 else np.float64)
    if rows.ndim == 0:
        raise UserError(f"{name}: a single number; expected an (n, d) array")
    rows = rows.reshape(len(rows), -1) if rows.size else rows.reshape(len(rows), 0)
    if len(rows) < min_rows or rows.shape[1] == 0:
        raise UserError(f"{name}: shape {rows.shape}; expected at least {min_rows} rows of numbers")
    finite = np.isfinite(rows.sum(axis=1, dtype=np.float64))
    if not finite.all():
        raise UserError(
            f"{name}: NaN or an infinity, first in row {int(np.argmin(finite))}; "
            "drop those rows first"
        )
    return rows


def as_pair(a: ArrayLike, b: ArrayLike, *, min_rows: int = 1) -> tuple[Floats, Floats]:
    """Return two row arrays of equal width; refuse different widths."""
    a, b = (
        as_rows("the first set", a, min_rows=min_rows),
        as_rows("the second set", b, min_rows=min_rows),
    )
    if a.shape[1] != b.shape[1]:
        raise UserError(
            f"the two sets have {a.shape[1]} and {b.shape[1]} features; expected the same number"
        )
    return a, b


def as_line(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """Return `values` as a finite, non-empty (n,) float64 array.

    Raises:
      UserError: not an array of numbers, another shape, no numbers, or NaN or an infinity.
    """
    line = np.asarray(as_real(name, values, "an (n,) array"), np.float64)
    if line.ndim != 1 or len(line) == 0:
        raise UserError(f"{name} has shape {line.shape}; expected a non-empty (n,) array")
    if not np.isfinite(line).all():
        raise UserError(
            f"{name} holds {int((~np.isfinite(line)).sum())} values that are NaN or infinite; "
            "drop them first and report their share"
        )
    return line


def centred_pair(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """Subtract the common mean from both sets, so that the expanded square keeps its digits."""
    dtype = np.result_type(a.dtype, b.dtype)
    mean = (a.sum(axis=0, dtype=np.float64) + b.sum(axis=0, dtype=np.float64)) / (len(a) + len(b))
    return (a - mean).astype(dtype), (b - mean).astype(dtype)


def distance_blocks(
    a: Floats, b: Floats, *, block_rows: int = BLOCK_ROWS
) -> Iterator[tuple[int, Floats]]:
    """Yield (first row, squared distances of rows `a[first:...]` to all of `b`), clamped at zero.

    The rows must be centred. If `a` is `b`, the diagonal is exactly zero.
    """
    squared_a, squared_b = np.einsum("ij,ij->i", a, a), np.einsum("ij,ij->i", b, b)
    for first in range(0, len(a), block_rows):
        rows = a[first : first + block_rows]
        block = rows @ b.T
        block *= -2
        block += squared_a[first : first + len(rows), None]
        block += squared_b[None, :]
        np.maximum(block, 0, out=block)
        if a is b:
            index = np.arange(len(rows))
            block[index, first + index] = 0
        yield first, block
