"""Numbers over time: `metrics.jsonl`, and progress lines with rate and time left."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from absl import logging


class Metrics:
    """Appends one JSON object a line to a file, flushed at every write."""

    def __init__(self, path: str | os.PathLike[str]):
        self._file = open(Path(path), "a", encoding="utf-8")  # noqa: SIM115  (lives as long as we)

    def write(self, **values: Any) -> None:
        """Write one object, the time in seconds since 1970 first; arrays become lists."""
        plain = {k: v.tolist() if hasattr(v, "tolist") else v for k, v in values.items()}
        self._file.write(json.dumps({"time": round(time.time(), 3), **plain}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Progress:
    """Logs how far a long loop is: at most a line every few seconds, and one at its end.

    Example:
        >>> progress = Progress("draw", 100)
        >>> progress.update(100)
    """

    def __init__(self, what: str, total: int, *, every_s: float = 5.0):
        self._what, self._total, self._every_s = what, total, every_s
        self._begun = self._logged = time.monotonic()
        self._first: int | None = None

    def update(self, done: int, note: str = "") -> None:
        """Say that `done` of the total are done."""
        now = time.monotonic()
        if self._first is None:
            self._first = done - 1  # a resumed loop does not begin at nothing
        if now - self._logged < self._every_s and done < self._total:
            return
        self._logged = now
        rate = (done - self._first) / max(now - self._begun, 1e-9)
        left = (self._total - done) / max(rate, 1e-9)
        logging.info(
            "%s %d/%d, %.1f/s, %.0f s left%s", self._what, done, self._total, rate, left, note
        )
