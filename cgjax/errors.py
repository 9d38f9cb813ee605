"""Errors that a user can act on, told apart from our own bugs.

The command line prints a `UserError` as one line and exits with 2; anything else is a bug and keeps
its traceback (exit 1).
"""


class UserError(ValueError):
    """A mistake of the user's: what was wrong, what was expected, what to type instead."""


class Interrupted(Exception):
    """The run was asked to stop and has saved its state."""
