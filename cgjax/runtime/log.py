"""Numbers over time: `metrics.jsonl`, and progress lines with rate and time left."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import logging

from cgjax.errors import UserError
from cgjax.runtime.events import Events
from cgjax.runtime.files import as_json, write_atomically


class Metrics:
    """Appends JSON objects to a file, one per line, each in one write.

    A line left half-written by a kill is dropped when the file is opened again. Numbers of epochs
    and iterations also go to an event file for TensorBoard, if that is installed: see `events`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     metrics = Metrics(Path(folder) / "metrics.jsonl")
        ...     for epoch in (1, 2, 3):
        ...         metrics.write(stage="fit", epoch=epoch)
        ...     metrics.forget(lambda line: line["stage"] == "fit" and line["epoch"] > 1)
        ...     metrics.close()
        ...     len((Path(folder) / "metrics.jsonl").read_text().splitlines())
        1
    """

    def __init__(self, path: str | os.PathLike[str]):
        """Open the file; create it if it does not exist.

        Raises:
            UserError: the file cannot be written.
        """
        self._path = Path(path)
        self._file: int | None = None
        self._events = Events(self._path)
        self.forget(lambda line: False)
        self._file = self._open()

    def write(self, **values: Any) -> None:
        """Write one object, seconds since 1970 as its first entry; arrays become lists, NaN null.

        Raises:
            UserError: it cannot be written, for example because the disk is full.
        """
        plain = {k: v.tolist() if hasattr(v, "tolist") else v for k, v in values.items()}
        values = as_json({"time": round(time.time(), 3), **plain})
        line = f"{json.dumps(values, allow_nan=False)}\n".encode()
        assert self._file is not None
        try:
            while line:  # once, unless the disk fills up
                line = line[os.write(self._file, line) :]
            self._events.add(values)
        except OSError as error:
            raise self._cannot_write(error) from error

    def forget(self, is_forgotten: Callable[[dict[str, Any]], bool]) -> None:
        """Remove lines, for example those of epochs that are trained again.

        The file is rewritten atomically, and only if a line is removed. Lines that are not JSON
        objects are removed too.

        Args:
            is_forgotten: takes a line's object and returns whether to remove it.

        Raises:
            UserError: the file cannot be written.
        """
        if not self._path.is_file():  # the null device, in all processes but the first
            return
        before = self._path.read_bytes()
        kept = [line for line in before.splitlines() if _is_kept(line, is_forgotten)]
        after = b"".join(line + b"\n" for line in kept)
        if after == before:
            return
        write_atomically(self._path, after)
        self._events.clear()
        if self._file is not None:
            os.close(self._file)
            self._file = self._open()

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._events.close()
        if self._file is not None:
            os.close(self._file)
        self._file = None

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            raise self._cannot_write(error) from error

    def _cannot_write(self, error: OSError) -> UserError:
        return UserError(f"cannot write {self._path}: {error.strerror or error}")


def _is_kept(line: bytes, is_forgotten: Callable[[dict[str, Any]], bool]) -> bool:
    try:
        value = json.loads(line)
    except ValueError:
        return False
    try:
        return isinstance(value, dict) and not is_forgotten(value)
    except TypeError:  # edited by hand: text in place of a number
        return False


class Progress:
    """Logs the progress of a long loop: a line every few seconds at most, and one at the end.

    Example:
        >>> progress = Progress("draw", 100)
        >>> progress.update(100)
    """

    def __init__(self, what: str, total: int, *, every_s: float = 5.0):
        self._what, self._total, self._every_s = what, total, every_s
        self._start = self._logged = time.monotonic()
        self._first: int | None = None

    def update(self, done: int, note: str = "") -> None:
        """Report that `done` of the total are done."""
        now = time.monotonic()
        if self._first is None:
            self._first = max(done - 1, 0)  # a resumed loop does not start at zero
        if now - self._logged < self._every_s and done < self._total:
            return
        self._logged = now
        rate = (done - self._first) / max(now - self._start, 1e-9)
        left = f", {(self._total - done) / rate:.0f} s left" if rate else ""
        logging.info("%s %d/%d, %.1f/s%s%s", self._what, done, self._total, rate, left, note)
