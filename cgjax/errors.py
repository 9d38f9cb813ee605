"""Errors that a user can act on, told apart from our own bugs.

The command line prints a `UserError` as one line and exits with 2; a `ForeignError` as one line
followed by the traceback of its cause, exit 1; anything else is a bug of ours and keeps its
traceback (exit 1).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class UserError(ValueError):
    """A mistake of the user's: what was wrong, what was expected, what to type instead."""


class Interrupted(Exception):
    """The run was asked to stop and has saved its state."""


class ForeignError(Exception):
    """Code of the user's raised an exception: one line says whose, `__cause__` is the exception."""


@contextlib.contextmanager
def foreign_code(whose: str, when: str = "") -> Iterator[None]:
    """Run code that is not ours: what it raises becomes a `ForeignError` that says whose it is.

    Errors that are meant for the user pass as they are.

    Args:
        whose: whose code it is, for the message: "mine:Mine.features".
        when: what it was doing, if the name does not tell.

    Example:
        >>> with foreign_code("mine:make"):
        ...     {}["width"]
        Traceback (most recent call last):
        cgjax.errors.ForeignError: mine:make raised KeyError: 'width'
    """
    try:
        yield
    except (UserError, ForeignError, Interrupted, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        text = " ".join(str(error).split())
        said = f"{type(error).__name__}{f': {text}' if text else ''}"
        raise ForeignError(f"{whose} raised {said}{f' {when}' if when else ''}") from error
