"""Ctrl-C and SIGTERM: finish the unit of work, save, exit 130; a second signal exits at once.

Before anything is written there is nothing to save, and the first signal ends the command at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from cgjax.errors import Interrupted

if TYPE_CHECKING:
    from cgjax.runtime.lock import FolderLock
    from cgjax.runtime.processes import Processes

SIGNALS = (signal.SIGINT, signal.SIGTERM)

Handler = Callable[[int, FrameType | None], Any] | int


def quit_on_signals() -> None:
    """Let Ctrl-C and SIGTERM end this process at once, with one line and exit code 130.

    For the start of a command, while modules are imported: a KeyboardInterrupt there would print
    the traceback of some import. There is nothing to save yet.
    """

    def handler(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(OSError):
            os.write(2, b"interrupted: stopped before anything was done\n")
        os._exit(130)

    for number in SIGNALS:
        signal.signal(number, handler)


def raise_on_signals() -> None:
    """Let Ctrl-C and SIGTERM raise KeyboardInterrupt, which stops at once and cleans up."""
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler)


class Interrupts:
    """Whether the run, or any process of it, was asked to stop."""

    def __init__(self, processes: Processes | None = None, lock: FolderLock | None = None) -> None:
        """Start without a request; arguments as for `handle_interrupts`."""
        self.requested = False
        self._processes, self._lock = processes, lock

    @property
    def may_stop_at_once(self) -> bool:
        """Whether nothing is written yet, and no other process waits for this one."""
        is_alone = self._processes is None or self._processes.num == 1
        return is_alone and self._lock is not None and not self._lock.is_held

    def agreed(self) -> bool:
        """Return whether to stop here, the same in every process."""
        if self._lock is not None:
            self._lock.check()
        if self._processes is None:
            return self.requested
        return self._processes.any(self.requested)

    def check(self, state: str = "the stages before this one are kept") -> None:
        """Stop here if asked to.

        Raises:
            Interrupted: says what was saved.
        """
        if self.agreed():
            self.stop(state)

    def stop(self, state: str) -> NoReturn:
        """Stop here; every process must call this.

        Raises:
            Interrupted: says what was saved.
        """
        raise Interrupted(f"{state}; run the same command again to resume")


@contextlib.contextmanager
def handle_interrupts(
    processes: Processes | None = None, lock: FolderLock | None = None
) -> Iterator[Interrupts]:
    """Turn SIGINT and SIGTERM into a request to stop, for the length of a block.

    Args:
        processes: those of the run; by default this one.
        lock: of the folder that the block writes to, checked between units of work. As long as it
            is not held, a signal raises KeyboardInterrupt instead.
    """
    from absl import logging

    interrupts = Interrupts(processes, lock)

    def handler(number: int, frame: FrameType | None) -> None:
        if interrupts.may_stop_at_once:
            raise KeyboardInterrupt
        if interrupts.requested:
            os._exit(130)
        interrupts.requested = True
        logging.warning("stopping after this unit of work; interrupt again to stop at once")

    with on_interrupt(handler, SIGNALS):
        yield interrupts


@contextlib.contextmanager
def on_interrupt(
    handler: Handler, signals: Sequence[signal.Signals] = (signal.SIGINT,)
) -> Iterator[None]:
    """Set another handler for Ctrl-C for the length of a block; only the main thread can.

    Args:
        handler: as `signal.signal` takes it.
        signals: those that it handles.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, previous in old.items():
            signal.signal(number, signal.SIG_DFL if previous is None else previous)
