"""What differs between operating systems, behind one function each."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator


def check_system() -> None:
    """Stop on a system on which cgjax does not run.

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
    """Open the null device in place of each standard stream that the caller has closed.

    Otherwise the next files that are opened get their numbers, and what a C library prints to
    stderr ends up in one of the run's files.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            # A new file gets the lowest free number, which is the missing one.
            if os.open(os.devnull, os.O_RDWR) != number:
                continue
        if getattr(sys, name) is None:
            stream = os.fdopen(number, mode, closefd=False)  # lives as long as the process
            setattr(sys, name, stream)


class StdoutError(OSError):
    """Printing failed: a full disk, or a pipe that nobody reads."""


class StdoutClosed(StdoutError, BrokenPipeError):
    """The reader of the output has closed its end."""


class _Stdout(io.TextIOWrapper):
    """Standard output whose errors are distinct from those of files."""

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
    """From now on, let a failure to print raise a `StdoutError`."""
    stream = sys.stdout
    if type(stream) is io.TextIOWrapper and stream is sys.__stdout__:
        sys.stdout = _Stdout(
            stream.buffer,
            stream.encoding,
            "backslashreplace",  # a name may hold characters that the terminal cannot show
            line_buffering=stream.line_buffering,
        )


def drop_stdout() -> None:
    """Discard what is still to be printed: Python would report the error again when it exits."""
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
    except PermissionError:  # it belongs to another user
        return True
    return True
