"""Processes that die: an exception that nothing catches, as nothing catches SIGKILL."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any


class Killed(BaseException):
    """What it interrupts is left as it is."""


def killing(function: Callable[..., Any], at: int) -> Callable[..., Any]:
    """Return a function that is killed in its call of this number, counted from 1."""
    calls = itertools.count(1)

    def call(*args, **options):
        if next(calls) == at:
            raise Killed
        return function(*args, **options)

    return call
