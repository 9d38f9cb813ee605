"""Reading and writing a file at a place, with what the system has for it.

Linux has all of it, macOS most; every function has a way that works on both.
"""

from __future__ import annotations

import os


def write_at(file: int, data: memoryview, place: int) -> int:
    """Write bytes at a place in an open file; return how many were written, as `os.pwrite`."""
    if hasattr(os, "pwritev"):
        return os.pwritev(file, [data], place)
    return os.pwrite(file, data, place)


def read_at(file: int, into: memoryview, place: int) -> int:
    """Fill memory with the bytes at a place in an open file; return how many there were."""
    if hasattr(os, "preadv"):
        return os.preadv(file, [into], place)
    found = os.pread(file, len(into), place)
    into[: len(found)] = found
    return len(found)


def open_direct(file: int) -> int | None:
    """Open a file once more for direct I/O, or return None where there is no such way.

    Args:
        file: its descriptor; it needs no name.

    Returns:
        A descriptor whose reads and writes of whole pages bypass the page cache.
    """
    if not hasattr(os, "O_DIRECT"):
        return None
    try:
        return os.open(f"/proc/self/fd/{file}", os.O_RDWR | os.O_DIRECT)
    except OSError:
        return None


def drop_from_page_cache(file: int) -> None:
    """Bring a file to the disk and, where the system lets us, out of its page cache."""
    os.fsync(file)
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
