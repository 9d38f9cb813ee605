"""Arrays in files that hold no pickles, written atomically."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from cgjax.runtime.files import write_atomically


def to_npy(array: ArrayLike) -> bytes:
    """Return the content of an .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def write_npy(path: Path, array: ArrayLike) -> None:
    """Write one array; the same array gives the same bytes, and the folder must exist."""
    write_atomically(path, to_npy(array))


def write_npz(path: Path, /, **arrays: ArrayLike) -> None:
    """Write arrays by name; the same arrays give the same bytes, and the folder must exist."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    write_atomically(path, buffer.getvalue())
