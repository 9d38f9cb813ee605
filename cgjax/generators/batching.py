"""Apply a function that takes a batch to any number of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from cgjax.errors import UserError


def in_batches(
    function: Callable[[Array], Array],
    x: Float[Array, "n ..."] | Float[np.ndarray, "n ..."],
    batch: int,
    *,
    out: Shaped[np.ndarray, "n ..."] | None = None,
    on_rows: Callable[[int], None] | None = None,
) -> Shaped[np.ndarray, "n ..."]:
    """Apply a function to blocks of rows and collect the results in one host array.

    Args:
        function: (batch, ...) -> (batch, ...), row by row.
        x: (n, ...) input, on the host or a device; if n is 0, one row of ones is run to learn the
            shape of the output.
        batch: rows per block; see `batch_by_batch`.
        out: where the results go; default: a new array.
        on_rows: called after every block with the number of rows done; may raise to stop.

    Returns:
        (n, ...) NumPy array of the results.

    Raises:
        UserError: as `batch_by_batch`.
    """
    n, done = x.shape[0], 0
    if n == 0:
        # Ones, as a user's generator may refuse zeros, or divide by their length.
        empty = in_batches(function, np.ones((1, *x.shape[1:]), x.dtype), batch)[:0]
        return empty if out is None else out
    for rows in batch_by_batch(function, x, batch, None if out is None else out.shape[1:]):
        if out is None:
            out = np.empty((n, *rows.shape[1:]), rows.dtype)
        out[done : done + len(rows)] = rows
        done += len(rows)
        if on_rows is not None:
            on_rows(done)
    assert out is not None
    return out


def batch_by_batch(
    function: Callable[[Array], Array],
    x: Float[Array, "n ..."] | Float[np.ndarray, "n ..."],
    batch: int,
    shape: tuple[int, ...] | None = None,
) -> Iterator[Shaped[np.ndarray, "m ..."]]:
    """Apply a function to blocks of rows and yield each block's results, on the host.

    The last block is padded to the full size, so that one compiled program serves every block;
    fewer rows than one block are padded to a power of two, so that few programs serve every number
    of rows. A block is computed while the previous one is copied to the host and used.

    Args:
        function: (b, ...) -> (b, ...), row by row, for b up to `batch`.
        x: (n, ...) input, on the host or a device.
        batch: rows per block.
        shape: of a row of the results; default: that of the first.

    Yields:
        (m, ...) results of the next rows, at most `batch` of them.

    Raises:
        UserError: the function did not return one row for each row it was given, or its rows
            changed shape between blocks.
    """
    n = x.shape[0]
    if n == 0:
        return
    size = min(batch, 1 << (n - 1).bit_length())
    # Slice and pad on the host: JAX would compile a program for every offset and size.
    source = x if n == size else np.asarray(x)

    def begin(start: int) -> Array:
        return function(jnp.asarray(filled_up(source[start : start + size], size)))

    pending = begin(0)
    for start in range(0, n, size):
        result = pending
        if start + size < n:
            pending = begin(start + size)
        rows = np.asarray(result)
        shape = rows.shape[1:] if shape is None else shape
        if rows.shape != (size, *shape):
            raise UserError(
                f"a batch of {size} rows gave an array of shape {rows.shape}; expected "
                f"{(size, *shape)}: one row for each input row, all of the same shape"
            )
        yield rows[: n - start]


def filled_up(
    rows: Shaped[Array, "m ..."] | Shaped[np.ndarray, "m ..."], num: int
) -> Shaped[Array, "{num} ..."] | Shaped[np.ndarray, "{num} ..."]:
    """Return `num` rows, the last of them copies of the last row given: at least one.

    A user's generator may refuse zeros, or divide by their length.

    Example:
        >>> filled_up(np.array([[1, 2], [3, 4]]), 3).tolist()
        [[1, 2], [3, 4], [3, 4]]
    """
    missing = num - len(rows)
    if not missing:
        return rows
    return np.pad(np.asarray(rows), [(0, missing)] + [(0, 0)] * (rows.ndim - 1), mode="edge")
