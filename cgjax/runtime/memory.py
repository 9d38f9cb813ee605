"""How this process keeps and measures its memory."""

from __future__ import annotations

import contextlib
import ctypes
import math
import sys
from pathlib import Path

import numpy as np

# Options of glibc's mallopt: see mallopt(3).
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8

# The unit in which memory and disks are read and written, in bytes.
PAGE = 4096


def keep_freed_memory() -> None:
    """Let glibc keep freed memory instead of returning it to the system each time.

    Every jitted call allocates new working buffers. Large ones come fresh from the system and are
    faulted in page by page, a fifth of a training epoch's time on two cores. Does nothing on
    systems without glibc.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_ARENA_MAX, 1)):
            mallopt(option, value)


def empty_aligned(shape: tuple[int, ...]) -> np.ndarray:
    """Return an uninitialised float32 array that starts at a page boundary.

    JAX on a CPU uses it without a copy, and so does direct I/O from a disk.
    """
    size = 4 * math.prod(shape)
    buffer = np.empty(size + PAGE, np.uint8)
    offset = -buffer.ctypes.data % PAGE
    return buffer[offset : offset + size].view(np.float32).reshape(shape)


def reset_peak_rss() -> None:
    """Reset the peak of `peak_rss_mb`, on systems that allow it (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_rss_mb() -> float:
    """Return this process's peak memory in MB, since `reset_peak_rss` where that works.

    0 if the system does not report it.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    try:
        import resource
    except ImportError:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024  # bytes on macOS, else kB
