"""A matrix in a temporary file, written by rows and read by rows or by columns."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
from jaxtyping import Float


class FeatureFile:
    """An (n, f) float32 matrix in a file without a name, so that nothing is left of it.

    The columns are cut into slabs of w, and a slab lies in the file row after row: a block of rows
    is one long piece in each slab, and a slab of all rows is one piece.

    Attributes:
        lets_go: whether the system's memory gives up what was written or read. A file that is
            soon read once more from a fast disk gains nothing there, and finding that memory costs
            the system time.
    """

    def __init__(self, folder: Path, num_rows: int, dim: int, width: int):
        """Make the file.

        Args:
            folder: on which disk.
            num_rows: n.
            dim: f.
            width: w; f for rows that lie together.
        """
        self.num_rows, self.dim, self.width = num_rows, dim, width
        self.lets_go = False
        # Closed by `close`: it lives as long as this does.
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115

    def close(self) -> None:
        """Give the disk back."""
        self._file.close()

    def write_rows(self, begin: int, rows: Float[np.ndarray, "s f"]) -> None:
        """Write rows from the given one on; an OSError where the disk is full."""
        for first in range(0, self.dim, self.width):
            part = np.ascontiguousarray(rows[:, first : first + self.width])
            self._write(self._place(begin, first), part)
        if self.lets_go:
            self.let_go()

    def read_rows(self, begin: int, out: Float[np.ndarray, "s f"]) -> None:
        """Fill an array with the rows from the given one on."""
        for first in range(0, self.dim, self.width):
            self._read(self._place(begin, first), out[:, first : first + self.width])

    def read_columns(self, begin: int, out: Float[np.ndarray, "n w"]) -> None:
        """Fill an array with the columns from the given one on, of all rows."""
        end = begin + out.shape[1]
        for first in range(begin // self.width * self.width, end, self.width):
            last = min(first + self.width, self.dim)
            low, high = max(first, begin), min(last, end)
            part = out[:, low - begin : high - begin]
            if (low, high) == (first, last):
                self._read(self._place(0, first), part)
            else:
                for row in range(self.num_rows):
                    self._read(self._place(row, low), part[row])
        if self.lets_go:
            self.let_go()

    def let_go(self) -> None:
        """Bring everything to the disk and out of the system's memory, where we are let."""
        os.fsync(self._file.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def _place(self, row: int, column: int) -> int:
        """Return where in the file a number lies, in bytes."""
        first = column // self.width * self.width
        width = min(self.width, self.dim - first)
        return 4 * (self.num_rows * first + row * width + column - first)

    def _write(self, place: int, part: np.ndarray) -> None:
        left = part.data.cast("B")
        while left:
            done = os.pwrite(self._file.fileno(), left, place)
            left, place = left[done:], place + done

    def _read(self, place: int, out: np.ndarray) -> None:
        part = out if out.flags.c_contiguous else np.empty(out.shape, np.float32)
        left = part.data.cast("B")
        while left:
            done = os.preadv(self._file.fileno(), [left], place)
            if not done:
                raise OSError("the file of features ends too early")
            left, place = left[done:], place + done
        if part is not out:
            out[...] = part
