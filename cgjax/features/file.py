"""A matrix in a temporary file, written by rows and read by rows or columns."""

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

# `write_at` or `read_at`: (file, memory, offset) -> number of bytes moved.
Move = Callable[[int, memoryview, int], int]
# Rows copied to the staging buffer at a time, where they cannot be written in place.
_STAGED = 64


class FeatureFile:
    """An (n, f) float32 matrix in an unnamed file, which disappears with the process.

    The columns are divided into slabs of width w, and each slab is stored in row-major order: a
    block of rows is one contiguous piece in each slab, and a whole slab is contiguous.

    Attributes:
        direct_io: whether writes and reads bypass the page cache, where the system allows it and
            the pieces fill whole pages. A file that is read once more soon, from a fast disk, gains
            nothing from the cache, and allocating and copying its pages costs time.
    """

    def __init__(self, folder: Path, num_rows: int, dim: int, width: int):
        """Create the file.

        Args:
            folder: a folder on the disk to use.
            num_rows: n.
            dim: f.
            width: w; f to store whole rows contiguously.
        """
        self.num_rows, self.dim, self.width = num_rows, dim, width
        self.direct_io = False
        # Closed by `close`, as it lives as long as this object.
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        self._direct = open_direct(self._file.fileno())
        self._staged: Float[np.ndarray, "m w"] | None = None

    def close(self) -> None:
        """Free the disk space, in the background because it takes a while."""
        self._use_page_cache()
        Thread(target=self._file.close, name="closing a feature file").start()

    def write_rows(self, begin: int, rows: Float[np.ndarray, "s f"]) -> None:
        """Write rows, starting at row `begin`; OSError if the disk is full."""
        for first in range(0, self.dim, self.width):
            slab = rows[:, first : first + self.width]
            for start in range(0, len(slab), _STAGED):
                piece = self._contiguous(slab[start : start + _STAGED])
                self._move(write_at, self._offset(begin + start, first), piece)

    def read_rows(self, begin: int, out: Float[np.ndarray, "s f"]) -> None:
        """Fill an array with rows, starting at row `begin`."""
        for first in range(0, self.dim, self.width):
            self._read(self._offset(begin, first), out[:, first : first + self.width])

    def read_columns(self, begin: int, out: Float[np.ndarray, "n w"]) -> None:
        """Fill an array with columns of all rows, starting at column `begin`."""
        end = begin + out.shape[1]
        for first in range(begin // self.width * self.width, end, self.width):
            last = min(first + self.width, self.dim)
            low, high = max(first, begin), min(last, end)
            part = out[:, low - begin : high - begin]
            if (low, high) == (first, last):
                self._read(self._offset(0, first), part)
            else:
                for row in range(self.num_rows):
                    self._read(self._offset(row, low), part[row])

    def flush_and_drop(self) -> None:
        """Flush everything to the disk and, where the system allows it, drop it from its cache."""
        drop_from_page_cache(self._file.fileno())

    def _offset(self, row: int, column: int) -> int:
        """Return the position of a number in the file, in bytes."""
        first = column // self.width * self.width
        width = min(self.width, self.dim - first)
        return 4 * (self.num_rows * first + row * width + column - first)

    def _contiguous(self, part: Float[np.ndarray, "s w"]) -> Float[np.ndarray, "s w"]:
        """Return the rows in contiguous memory, aligned to a page where direct I/O needs it."""
        if self._direct is None or not self.direct_io:
            return np.ascontiguousarray(part)
        if self._staged is None:
            self._staged = empty_aligned((_STAGED, self.width))
        staged = self._staged.reshape(-1)[: part.size].reshape(part.shape)
        staged[...] = part
        return staged

    def _read(self, offset: int, out: np.ndarray) -> None:
        part = out if out.flags.c_contiguous else np.empty(out.shape, np.float32)
        self._move(read_at, offset, part)
        if part is not out:
            out[...] = part

    def _move(self, move: Move, offset: int, part: np.ndarray) -> None:
        """Write or read one piece, with direct I/O for its whole pages if `direct_io` is set."""
        memory = part.data.cast("B")
        if self.direct_io and self._direct is not None:
            num = len(memory) // PAGE * PAGE
            if offset % PAGE == 0 and part.ctypes.data % PAGE == 0 and num:
                try:
                    self._move_all(move, self._direct, offset, memory[:num])
                    memory, offset = memory[num:], offset + num
                except OSError as error:
                    if error.errno != errno.EINVAL:
                        raise
                    # The file system does not support direct I/O after all.
                    self._use_page_cache()
        self._move_all(move, self._file.fileno(), offset, memory)

    def _move_all(self, move: Move, file: int, offset: int, memory: memoryview) -> None:
        while memory:
            num = move(file, memory, offset)
            if not num:
                raise OSError("the feature file ends too early")
            memory, offset = memory[num:], offset + num

    def _use_page_cache(self) -> None:
        if self._direct is not None:
            os.close(self._direct)
        self._direct = None
