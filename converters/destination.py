"""Where a conversion is written: a folder that is writable and holds nothing else."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path

from cgjax.errors import Interrupted, UserError
from cgjax.generators.weights import check_replaceable, is_replaced
from cgjax.runtime.signals import SIGNALS, on_interrupt


def check_destination(dst: Path, read: Iterable[Path] = ()) -> None:
    """Check that a folder can be written, before any work is done.

    Args:
        dst: a folder that does not exist, is empty, or holds converted weights, complete or not.
        read: the files that the conversion reads: writing must not replace them.

    Raises:
        UserError: it is a file, a folder of something else, not writable, or one of the files that
            are read.
    """
    try:
        if dst.is_dir():
            check_replaceable(dst, "--dst=")
            place = dst
        elif os.path.lexists(dst):
            raise UserError(f"--dst={dst} is a file; name a folder to write")
        else:
            place = next(parent for parent in dst.absolute().parents if os.path.lexists(parent))
            if not place.is_dir():
                raise UserError(
                    f"--dst={dst} is inside {place}, which is a file; choose another folder"
                )
    except OSError as error:
        raise UserError(f"cannot write --dst={dst}: {error.strerror or error}") from error
    for path in read:
        if is_replaced(path, dst):
            raise UserError(
                f"--dst={dst} would overwrite {path}, which is being read; choose another folder"
            )
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(f"cannot write --dst={dst}: {place} is read-only; choose another place")


@contextlib.contextmanager
def writing(dst: Path) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM stop a block in which files are written, which then cleans up.

    Elsewhere they end a converter at once.

    Args:
        dst: what the block replaces when it has written all.

    Raises:
        Interrupted: by one of them; the destination is unchanged.
    """
    try:
        with on_interrupt(signal.default_int_handler, SIGNALS):
            yield
    except KeyboardInterrupt as error:
        raise Interrupted(f"{dst} is unchanged") from error
