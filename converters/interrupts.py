"""Ctrl-C in a converter: one line and exit 130 at any moment, from the first on.

Imports nothing but the standard library: it is imported before everything that takes time.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], Any] | int


def stop_at_once(number: int, frame: FrameType | None) -> None:
    """End the process: a handler for as long as nothing is being written.

    An exception would have to travel through whatever is being imported, which may swallow it.
    """
    with contextlib.suppress(OSError):
        os.write(2, b"interrupted\n")
    os._exit(130)


@contextlib.contextmanager
def on_interrupt(handler: Handler) -> Iterator[None]:
    """Handle Ctrl-C in another way for the length of a block."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    previous = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if previous is None else previous)
