"""Reading and writing a file at an offset, by the best call that the system has.

Linux has all of these calls, macOS most; every function works on both.
"""

from __future__ import annotations

import os


def write_at(file: int, data: memoryview, offset: int) -> int:
    """Write bytes at an offset of an open file; return how many were written, as `os.pwrite`."""
    if hasattr(os, "pwritev"):
        return os.pwritev(file, [data], offset)
    return os.pwrite(file, data, offset)


def read_at(file: int, into: memoryview, offset: int) -> int:
    """Fill a buffer with the bytes at an offset of an open file; return how many were read."""
    if hasattr(os, "preadv"):
        return os.preadv(file, [into], offset)
    data = os.pread(file, len(into), offset)
    into[: len(data)] = data
    return len(data)


def open_direct(file: int) -> int | None:
    """Open a file a second time for direct I/O, or return None if that is not possible.

    Args:
        file: its descriptor; the file need not have a name.

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
    """Flush a file to the disk and, if the system allows it, drop it from the page cache."""
    os.fsync(file)
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
