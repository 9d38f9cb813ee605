"""Rows that do not fit into memory: where k-means gets them from, a block at a time.

Symbols: n rows, f features, s rows of a block, w columns.
"""

from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from cgjax.errors import UserError

OnBlock = Callable[[str, int, int], None]
"""Called after every block with what is being done, how many rows (or columns) are done, and of how
many in this reading."""

OnProgress = Callable[[int, int], None]
"""Called between units of work with how many are done, and of how many; may raise."""


@runtime_checkable
class RowSource(Protocol):
    """Rows that are there when asked for.

    Attributes:
        num_rows: n.
        dim: f.
        block: s <= n, the number of rows that `read` returns.
    """

    num_rows: int
    dim: int
    block: int

    def read(self, index: Int[np.ndarray, " i"]) -> Float[Array, "s f"] | Float[np.ndarray, "s f"]:
        """Return s rows, of which the first i <= s are those asked for, the others anything.

        A NumPy array that is returned may be overwritten by the next call.
        """
        ...


@runtime_checkable
class ColumnSource(Protocol):
    """Rows of which some columns can be read.

    Attributes:
        num_rows: n.
        dim: f.
        has_columns: whether they can be read (once the rows are there).
    """

    num_rows: int
    dim: int
    has_columns: bool

    def keep_rows(self, on_rows: OnProgress) -> None:
        """Get all rows to where their columns can be read; `has_columns` says if that worked."""
        ...

    def read_columns(self, begin: int, out: Float[np.ndarray, "n w"]) -> None:
        """Fill the array with the columns from the given one on."""
        ...


class ArrayRows:
    """Rows of an array: in memory, or mapped from a file (`np.load(path, mmap_mode="r")`)."""

    has_columns = True

    def __init__(self, rows: Float[np.ndarray, "n f"], block: int = 1024):
        self._rows = rows
        self.num_rows, self.dim = rows.shape
        self.block = min(block, self.num_rows)

    def read(self, index: Int[np.ndarray, " i"]) -> Float[np.ndarray, "s f"]:
        """Return the rows, and copies of the last one where fewer than a block are asked for."""
        filled = np.pad(index, (0, self.block - len(index)), mode="edge")
        return np.asarray(self._rows[filled], np.float32)

    def keep_rows(self, on_rows: OnProgress) -> None:
        """Do nothing: all rows are there."""

    def read_columns(self, begin: int, out: Float[np.ndarray, "n w"]) -> None:
        """Fill the array with columns."""
        out[:] = self._rows[:, begin : begin + out.shape[1]]


class Reader:
    """Reads a source in blocks, for jitted functions whose shapes must not change."""

    def __init__(self, source: RowSource, on_block: OnBlock | None):
        self._source, self._on_block = source, on_block
        self.num_rows = source.num_rows

    def blocks(
        self, what: str, index: Int[np.ndarray, " i"]
    ) -> Iterator[tuple[Int[np.ndarray, " s"], Array | np.ndarray]]:
        """Yield the asked rows' indices, filled up with n (which a scatter drops), and the rows."""
        size = self._source.block
        for begin in range(0, len(index), size):
            part = index[begin : begin + size]
            filled = np.full(size, self.num_rows, np.int32)
            filled[: len(part)] = part
            yield filled, self._source.read(part)
            self.report(what, min(begin + size, len(index)), len(index))

    def report(self, what: str, done: int, total: int) -> None:
        """Say how far a reading is."""
        if self._on_block is not None:
            self._on_block(what, done, total)

    def fetch(
        self, index: Int[np.ndarray, "*i"], offset: Float[Array, " f"]
    ) -> Float[Array, "*i f"]:
        """Return a few rows relative to the offset."""
        rows, where = np.unique(index, return_inverse=True)
        found = [_difference(block, offset) for _, block in self.blocks("fetch", rows)]
        every = found[0] if len(found) == 1 else jnp.concatenate(found)
        return every[where.reshape(index.shape)]


_difference = jax.jit(lambda block, offset: block - offset[None, :])


def check_finite(reader: Reader, index: Int[np.ndarray, " i"], value: np.ndarray) -> None:
    """Raise `UserError` if a number computed of the given rows says that one of them is bad."""
    if np.isfinite(value).all():
        return
    bad = []
    for filled, block in reader.blocks("looking for NaN or Inf", index):
        is_bad = ~np.isfinite(np.asarray(block)).all(axis=1)
        bad += filled[is_bad & (filled < reader.num_rows)].tolist()
    if not bad:
        raise UserError(
            "the features are too large: their squared distances overflow float32; "
            "divide them by a constant first"
        )
    shown = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
    raise UserError(
        f"{len(bad)} features hold NaN or Inf (rows {shown}): expected finite numbers; check the "
        "generator's weights and the latents of those rows"
    )
