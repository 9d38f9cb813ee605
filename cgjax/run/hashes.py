"""Hashes of files that are asked for again and again."""

from __future__ import annotations

import os
import time
from pathlib import Path

from cgjax.runtime.files import sha256_of

SETTLED_NS = 2_000_000_000
"""Age from which a file's times tell whether it has changed: more than the clock tick of any file
system, within which a file can be written twice and have one time."""

Stamp = tuple[int, int, int, int, int]
"""Device, inode, size, and the times of the last write and the last change."""


class FileHashes:
    """The SHA-256 of files, computed again only for a file that may have changed."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[Stamp, str]] = {}

    def of(self, path: Path) -> str:
        """Return the SHA-256 of what a file holds now."""
        stamp = _stamp(path)
        known = self._known.get(path)
        if known is not None and known[0] == stamp:
            return known[1]
        content = sha256_of(path)
        is_settled = time.time_ns() - max(stamp[3:]) > SETTLED_NS
        if is_settled and _stamp(path) == stamp:
            self._known[path] = stamp, content
        return content


def _stamp(path: Path) -> Stamp:
    stat = os.stat(path)
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
