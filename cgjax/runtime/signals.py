"""Ctrl-C and SIGTERM: finish the unit of work, save, exit 130; a second one exits at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

from absl import logging

from cgjax.errors import Interrupted
from cgjax.runtime.processes import Processes


class Interrupts:
    """Whether the run was asked to stop; of several processes, any of them."""

    def __init__(self, processes: Processes | None = None) -> None:
        self.requested = False
        self._processes = processes or Processes()

    def agreed(self) -> bool:
        """Return whether to stop here, the same in every process."""
        return self._processes.any(self.requested)

    def check(self, state: str = "the stages before this one are kept") -> None:
        """Stop here if asked to.

        Raises:
            Interrupted: saying what was saved.
        """
        if self.agreed():
            self.stop(state)

    def stop(self, state: str) -> NoReturn:
        """Stop here; every process must.

        Raises:
            Interrupted: saying what was saved.
        """
        raise Interrupted(f"{state}; run the same command again to resume")


@contextlib.contextmanager
def handle_interrupts(processes: Processes | None = None) -> Iterator[Interrupts]:
    """Turn SIGINT and SIGTERM into a request for the length of a block."""
    interrupts = Interrupts(processes)
    if threading.current_thread() is not threading.main_thread():
        yield interrupts  # only the main thread may set handlers
        return

    def handler(number: int, frame: FrameType | None) -> None:
        if interrupts.requested:
            os._exit(130)
        interrupts.requested = True
        logging.warning("stopping after this unit of work; once more to stop at once")

    old = {s: signal.signal(s, handler) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupts
    finally:
        for number, previous in old.items():
            signal.signal(number, previous)
