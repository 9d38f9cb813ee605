"""What differs between the systems we run on, behind one function each."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator


def check_system() -> None:
    """Stop on a system that cgjax does not run on.

    Raises:
        UserError: on native Windows.
    """
    from cgjax.errors import UserError

    if sys.platform == "win32":
        raise UserError(
            "cgjax runs on Linux and macOS; on Windows use WSL: type `wsl --install` once, open "
            "its terminal, and install and run cgjax there"
        )


def open_standard_streams() -> None:
    """Open the null device for each of stdin, stdout and stderr that the caller has closed.

    Otherwise the next files to be opened get their numbers, and whatever a library written in C
    prints to stderr ends up inside one of the run's files.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is the one that is missing.
            if os.open(os.devnull, os.O_RDWR) != number:
                continue
        if getattr(sys, name) is None:
            stream = os.fdopen(number, mode, closefd=False)  # lives as long as the process
            setattr(sys, name, stream)


class StdoutError(OSError):
    """What went wrong when something was printed: a full disk, a pipe that nobody reads."""


class StdoutClosed(StdoutError, BrokenPipeError):
    """Whoever read what is printed has seen enough."""


class _Stdout(io.TextIOWrapper):
    """Standard output whose errors can be told from those of files."""

    def write(self, text: str) -> int:
        with _as_stdout_error():
            return super().write(text)

    def flush(self) -> None:
        with _as_stdout_error():
            super().flush()


@contextlib.contextmanager
def _as_stdout_error() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        drop_stdout()
        kind = StdoutClosed if isinstance(error, BrokenPipeError) else StdoutError
        raise kind(error.errno, error.strerror) from error


def watch_stdout() -> None:
    """Let a failure to print raise a `StdoutError` from now on."""
    stream = sys.stdout
    if type(stream) is io.TextIOWrapper and stream is sys.__stdout__:
        sys.stdout = _Stdout(
            stream.buffer,
            stream.encoding,
            "backslashreplace",  # a name may hold what the terminal cannot show
            line_buffering=stream.line_buffering,
        )


def drop_stdout() -> None:
    """Send what is still to be printed nowhere: Python would complain once more at its end."""
    with contextlib.suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)


def is_alive(pid: int) -> bool:
    """Return whether a process of this machine is running."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True
