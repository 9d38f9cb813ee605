"""How this process holds and counts its memory."""

from __future__ import annotations

import contextlib
import ctypes
import math
import sys
from pathlib import Path

import numpy as np

# glibc's names for mallopt: see mallopt(3).
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8

# The unit in which memory and disks are read and written, in bytes.
PAGE = 4096


def keep_freed_memory() -> None:
    """Let glibc keep what is freed instead of handing it back to the system each time.

    Every jitted call allocates new working buffers. Large ones come fresh from the system and are
    faulted in page by page, a fifth of a training epoch's time on two cores. Does nothing where
    there is no glibc.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_ARENA_MAX, 1)):
            mallopt(option, value)


def empty_aligned(shape: tuple[int, ...]) -> np.ndarray:
    """Return an empty float32 array at the beginning of a page.

    JAX on a CPU takes it as it is, and a disk writes into it without a copy.
    """
    size = 4 * math.prod(shape)
    buffer = np.empty(size + PAGE, np.uint8)
    offset = -buffer.ctypes.data % PAGE
    return buffer[offset : offset + size].view(np.float32).reshape(shape)


def reset_peak_rss() -> None:
    """Start a new peak for `peak_rss_mb`, where the system lets a process do that (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_rss_mb() -> float:
    """Return this process's peak memory in MB, since `reset_peak_rss` where that works.

    0 where the system does not say.
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
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024  # bytes there, else kB
