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
from cgjax.runtime.files import as_json, write_atomically


class Metrics:
    """Appends one JSON object a line to a file, each in one write.

    A line that a kill has left half-written is dropped when the file is opened again.

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
        """Open the file, made if need be.

        Raises:
            UserError: if it cannot be written.
        """
        self._path = Path(path)
        self._file: int | None = None
        self.forget(lambda line: False)
        self._file = self._open()

    def write(self, **values: Any) -> None:
        """Write one object, the time in seconds since 1970 first; arrays become lists, NaN null.

        Raises:
            UserError: if it cannot be written, a full disk for instance.
        """
        plain = {k: v.tolist() if hasattr(v, "tolist") else v for k, v in values.items()}
        values = as_json({"time": round(time.time(), 3), **plain})
        line = f"{json.dumps(values, allow_nan=False)}\n".encode()
        assert self._file is not None
        try:
            while line:  # once, unless the disk fills up
                line = line[os.write(self._file, line) :]
        except OSError as error:
            raise self._cannot_write(error) from error

    def forget(self, is_forgotten: Callable[[dict[str, Any]], bool]) -> None:
        """Remove lines, those of epochs that are trained again for instance.

        The file is rewritten, whole or not at all, only if there is something to remove; what is no
        JSON object goes too.

        Args:
            is_forgotten: takes a line's object, says whether it goes.

        Raises:
            UserError: if the file cannot be written.
        """
        if not self._path.is_file():  # the null device, of all processes but the first
            return
        before = self._path.read_bytes()
        kept = [line for line in before.splitlines() if _is_kept(line, is_forgotten)]
        after = b"".join(line + b"\n" for line in kept)
        if after == before:
            return
        write_atomically(self._path, after)
        if self._file is not None:
            os.close(self._file)
            self._file = self._open()

    def close(self) -> None:
        """Close the file; does nothing a second time."""
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
    except TypeError:  # edited: a text where a number stood
        return False


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
            self._first = max(done - 1, 0)  # a resumed loop does not begin at nothing
        if now - self._logged < self._every_s and done < self._total:
            return
        self._logged = now
        rate = (done - self._first) / max(now - self._begun, 1e-9)
        left = f", {(self._total - done) / rate:.0f} s left" if rate else ""
        logging.info("%s %d/%d, %.1f/s%s%s", self._what, done, self._total, rate, left, note)
