"""Many rows through a function that takes a batch."""

from __future__ import annotations

from collections.abc import Callable

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

    The last block is padded to the full size, so that one compiled program serves every block. One
    block is computed while the one before is copied.

    Args:
        function: (batch, ...) -> (batch, ...), row by row.
        x: (n, ...) input, on the host or a device; of no rows one of zeros is run, for the shape.
        batch: rows at a time.
        out: where the results go; default: a new array.
        on_rows: called after every block with the number of rows done; may raise to stop.

    Returns:
        (n, ...) NumPy array of the results.

    Raises:
        UserError: the function returned another number of rows than it was given, or rows of
            another shape than before.
    """
    n = x.shape[0]
    if n == 0:
        none = in_batches(function, np.zeros((1, *x.shape[1:]), x.dtype), batch)[:0]
        return none if out is None else out
    # Cut and padded on the host: JAX would compile a program for every place and size.
    rows_of = np.asarray(x) if n > batch else x

    def begin(start: int) -> tuple[Array, int]:
        rows = rows_of[start : start + batch]
        if rows.shape[0] < batch < n:
            rows = np.pad(rows, [(0, batch - rows.shape[0])] + [(0, 0)] * (rows.ndim - 1))
        block = jnp.asarray(rows)
        return function(block), block.shape[0]

    ahead = begin(0)
    for start in range(0, n, batch):
        block, num_given = ahead
        if start + batch < n:
            ahead = begin(start + batch)
        rows = np.asarray(block)
        if out is None:
            out = np.empty((n, *rows.shape[1:]), rows.dtype)
        if rows.shape != (num_given, *out.shape[1:]):
            raise UserError(
                f"a batch of {num_given} rows gave an array of shape {rows.shape}; expected "
                f"{(num_given, *out.shape[1:])}: a row for each row, all of one shape"
            )
        done = min(start + batch, n)
        out[start:done] = rows[: done - start]
        if on_rows is not None:
            on_rows(done)
    assert out is not None
    return out
