"""Errors that a user can act on, as opposed to our own bugs.

The command line prints a `UserError` as one line and exits with 2. It prints a `ForeignError` as
one line followed by the traceback of its cause, and exits with 1. Anything else is a bug of ours
and keeps its traceback (exit 1).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class UserError(ValueError):
    """A user's mistake: what was wrong, what was expected, what to type instead."""


class TooRare(UserError):
    """A part of the latent space of which the budget of draws gives too few latents."""


class Interrupted(Exception):
    """The run was asked to stop and has saved its state."""


class ForeignError(Exception):
    """User code raised an exception: the message names the code, `__cause__` is the exception."""


@contextlib.contextmanager
def foreign_code(name: str, when: str = "") -> Iterator[None]:
    """Run code that is not ours; turn what it raises into a `ForeignError` that names the code.

    Errors that are meant for the user pass unchanged.

    Args:
        name: the code's name, for the message: "mine:Mine.features".
        when: what it was doing, if the name does not say.

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
        raised = f"{type(error).__name__}{f': {text}' if text else ''}"
        raise ForeignError(f"{name} raised {raised}{f' {when}' if when else ''}") from error
