"""Ctrl-C in a converter: one line and exit code 130, from the very start.

Imports only the standard library, since it is imported before everything that takes time.
"""

from __future__ import annotations

import contextlib
import os
from types import FrameType


def stop_at_once(number: int, frame: FrameType | None) -> None:
    """End the process: the signal handler while nothing is being written.

    An exception might be swallowed by whatever is being imported.
    """
    with contextlib.suppress(OSError):
        os.write(2, b"interrupted\n")
    os._exit(130)
