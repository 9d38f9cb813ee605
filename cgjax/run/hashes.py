"""Hashes of files that are asked for again and again."""

from __future__ import annotations

import os
import time
from pathlib import Path

from cgjax.runtime.files import sha256_of_open

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
        # Opened even if only its times are needed: a network file system may answer for a closed
        # file from a cache, and asks its server when the file is opened.
        with path.open("rb") as file:
            now = time.time_ns()  # before anything is read: what is written later has other times
            stamp = _stamp(file.fileno())
            known = self._known.get(path)
            if known is not None and known[0] == stamp:
                return known[1]
            content = sha256_of_open(file)
            is_unchanged = _stamp(file.fileno()) == stamp
        if is_unchanged and now - max(stamp[3:]) > SETTLED_NS:
            self._known[path] = stamp, content
        return content


def _stamp(file: int) -> Stamp:
    stat = os.fstat(file)
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
