"""`metrics.jsonl` for TensorBoard, where the extra `tensorboard` is installed.

An event file holds nothing that `metrics.jsonl` does not. It is made anew from that file by the
first line that a process writes, and after lines were forgotten: so a kill loses no point, and an
epoch that is trained again is there once.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import logging

from cgjax.errors import UserError
from cgjax.runtime.files import write_atomically

FOLDER = "tensorboard"
"""The folder of a run's event file, beside `metrics.jsonl`."""

_FILES = "events.out.tfevents.*.cgjax"
# A line without a step belongs to no curve.
_STEPS = ("epoch", "iteration", "step")
# They say whose numbers a line holds.
_OWNERS = ("stage", "sampler", "trial")


# What a folder that cannot be written raises, and a package that does not fit its protobuf.
_FAILURES = (OSError, UserError, ImportError, TypeError)


class Events:
    """The event file beside a file of metrics.

    It must not stop a training: where it cannot be written, that is logged once.
    """

    def __init__(self, metrics: Path):
        """Take the path of `metrics.jsonl`; changes nothing."""
        self._metrics, self._folder = metrics, metrics.parent / FOLDER
        self._file: int | None = None
        self._is_wanted = importlib.util.find_spec("tensorboardX") is not None

    def add(self, line: Mapping[str, Any]) -> None:
        """Add the numbers of the line that was just written to `metrics.jsonl`."""
        if self._is_wanted and any(scalars_of(line)):
            self._try(lambda: self._add(line))

    def clear(self) -> None:
        """Remove the event file; the next line makes it anew."""
        self._try(self._clear)

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except _FAILURES as error:
            self._is_wanted = False
            logging.warning("%s is not written any more: %s", self._folder, error)

    def _add(self, line: Mapping[str, Any]) -> None:
        if self._file is not None:
            os.write(self._file, _records([line]))
        elif self._metrics.is_file():  # not the null device, in all processes but the first
            self._clear()
            lines = map(json.loads, self._metrics.read_bytes().splitlines())
            self._folder.mkdir(exist_ok=True)
            # A new name: TensorBoard would not notice that a file it reads has been replaced.
            path = self._folder / _FILES.replace("*", str(time.time_ns()))
            write_atomically(path, _header() + _records(lines))
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND)

    def _clear(self) -> None:
        self.close()
        for path in self._folder.glob(_FILES):
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the event file; a second call does nothing."""
        if self._file is not None:
            os.close(self._file)
        self._file = None


def scalars_of(line: Mapping[str, Any]) -> Iterator[tuple[str, int, float]]:
    """Yield the numbers of a line, each with its tag and its step; those of a list are numbered.

    Example:
        >>> line = {"time": 0.0, "stage": "fit", "sampler": "flow", "epoch": 3, "loss": [0.5, 0.25]}
        >>> list(scalars_of(line))
        [('fit/flow/loss/0', 3, 0.5), ('fit/flow/loss/1', 3, 0.25)]
    """
    step = next((line[name] for name in _STEPS if isinstance(line.get(name), int)), None)
    if step is None:
        return
    owner = "/".join(re.sub(r"[^\w.-]+", "_", str(line[name])) for name in _OWNERS if name in line)
    for name, value in line.items():
        if name in ("time", *_STEPS, *_OWNERS):
            continue
        numbers = (
            {f"{i}": v for i, v in enumerate(value)} if isinstance(value, list) else {"": value}
        )
        for i, number in numbers.items():
            if isinstance(number, int | float) and not isinstance(number, bool):
                yield "/".join(filter(None, (owner, name, i))), step, float(number)


def _records(lines: Iterable[Mapping[str, Any]]) -> bytes:
    """Return the events of lines as an event file holds them."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary

    def event(line: Mapping[str, Any], tag: str, step: int, value: float) -> Any:
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
        return Event(wall_time=line.get("time", 0.0), step=step, summary=summary)

    return b"".join(_record(event(line, *one)) for line in lines for one in scalars_of(line))


def _header() -> bytes:
    from tensorboardX.proto.event_pb2 import Event

    return _record(Event(wall_time=time.time(), file_version="brain.Event:2"))


def _record(event: Any) -> bytes:
    """Return an event with its length and the checksums of both."""
    from tensorboardX.record_writer import masked_crc32c

    content = event.SerializeToString()
    length = struct.pack("<Q", len(content))
    check, check_content = (struct.pack("<I", masked_crc32c(part)) for part in (length, content))
    return length + check + content + check_content
