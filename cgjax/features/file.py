"""A matrix in a temporary file, written by rows and read by rows or by columns."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import numpy as np
from jaxtyping import Float

from cgjax.runtime.disk import drop_from_page_cache, open_direct, read_at, write_at
from cgjax.runtime.memory import PAGE, empty_aligned

# `write_at` or `read_at`: file, memory, place -> how many bytes were moved.
Move = Callable[[int, memoryview, int], int]
# Rows that are copied together where they cannot be written from where they lie.
_STAGED = 64


class FeatureFile:
    """An (n, f) float32 matrix in a file without a name, so that nothing is left of it.

    The columns are cut into slabs of w, and a slab lies in the file row after row: a block of rows
    is one long piece in each slab, and a slab of all rows is one piece.

    Attributes:
        direct_io: whether writes and reads bypass the page cache, where the system allows it and
            the pieces fill whole pages. A file that is soon read once more from a fast disk gains
            nothing from the cache, and finding memory for it and copying cost time.
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
        self.direct_io = False
        # Closed by `close`: it lives as long as this does.
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        self._direct = open_direct(self._file.fileno())
        self._staged: Float[np.ndarray, "m w"] | None = None

    def close(self) -> None:
        """Give the disk back, which takes a while that nobody has to wait for."""
        self._use_page_cache()
        Thread(target=self._file.close, name="closing a feature file").start()

    def write_rows(self, begin: int, rows: Float[np.ndarray, "s f"]) -> None:
        """Write rows from the given one on; an OSError where the disk is full."""
        for first in range(0, self.dim, self.width):
            part = rows[:, first : first + self.width]
            for some in range(0, len(part), _STAGED):
                piece = part[some : some + _STAGED]
                self._move(write_at, self._place(begin + some, first), self._in_one(piece))

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

    def let_go(self) -> None:
        """Bring everything to the disk and, where the system lets us, out of its page cache."""
        drop_from_page_cache(self._file.fileno())

    def _place(self, row: int, column: int) -> int:
        """Return where in the file a number lies, in bytes."""
        first = column // self.width * self.width
        width = min(self.width, self.dim - first)
        return 4 * (self.num_rows * first + row * width + column - first)

    def _in_one(self, part: Float[np.ndarray, "s w"]) -> Float[np.ndarray, "s w"]:
        """Return the rows in one piece of memory, at the beginning of a page where that matters."""
        if self._direct is None or not self.direct_io:
            return np.ascontiguousarray(part)
        if self._staged is None:
            self._staged = empty_aligned((_STAGED, self.width))
        staged = self._staged.reshape(-1)[: part.size].reshape(part.shape)
        staged[...] = part
        return staged

    def _read(self, place: int, out: np.ndarray) -> None:
        part = out if out.flags.c_contiguous else np.empty(out.shape, np.float32)
        self._move(read_at, place, part)
        if part is not out:
            out[...] = part

    def _move(self, move: Move, place: int, part: np.ndarray) -> None:
        """Write or read one piece: its whole pages by direct I/O, if that is wanted."""
        left = part.data.cast("B")
        if self.direct_io and self._direct is not None:
            num = len(left) // PAGE * PAGE
            if place % PAGE == 0 and part.ctypes.data % PAGE == 0 and num:
                try:
                    self._move_all(move, self._direct, place, left[:num])
                    left, place = left[num:], place + num
                except OSError as error:
                    if error.errno != errno.EINVAL:
                        raise
                    # The file system has no direct I/O after all.
                    self._use_page_cache()
        self._move_all(move, self._file.fileno(), place, left)

    def _move_all(self, move: Move, file: int, place: int, left: memoryview) -> None:
        while left:
            done = move(file, left, place)
            if not done:
                raise OSError("the feature file ends too early")
            left, place = left[done:], place + done

    def _use_page_cache(self) -> None:
        if self._direct is not None:
            os.close(self._direct)
        self._direct = None
