"""The schema of a network's `architecture`: its constructor's annotations, checked at run time.

An `architecture` is read from a file. The legal values of each keyword are stated once, in the
constructor's signature, with the types below.
"""

from __future__ import annotations

import difflib
import inspect
import math
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from cgjax.errors import UserError
from cgjax.numerics.arguments import shown

_LARGEST = 1e6
"""No network has more of anything: a larger number is a mistake."""


class Range(NamedTuple):
    """The smallest and the largest legal value of a number."""

    low: float
    high: float = _LARGEST

    def admits(self, value: float) -> bool:
        """Whether a number is in the range."""
        return self.low <= value <= self.high

    def describe(self, what: str) -> str:
        """Return the expected value in words."""
        return f"{what} from {self.low:g} {'up' if self.high >= _LARGEST else f'to {self.high:g}'}"


class Filled(NamedTuple):
    """A list that is not empty."""

    def admits(self, value: Sequence[Any]) -> bool:
        """Whether a list is not empty."""
        return len(value) > 0

    def describe(self, what: str) -> str:
        """Return the expected value in words."""
        return f"{what}, at least one"


class FixedList(NamedTuple):
    """A list of fixed length, each entry with its own annotation."""

    entries: tuple[Any, ...]

    def admits(self, value: Sequence[Any]) -> bool:
        """Whether a list is such a row."""
        return len(value) == len(self.entries) and all(map(_fits, value, self.entries))

    def describe(self, what: str) -> str:
        """Return the expected value in words."""
        return f"[{', '.join(map(_describe, self.entries))}]"


Size = Annotated[int, Range(1)]
Count = Annotated[int, Range(0)]
Share = Annotated[float, Range(0, 1)]
Bound = Annotated[float, Range(0, math.inf)]
Rate = Annotated[float, Range(1e-6)]
Sizes = Annotated[Sequence[Size], Filled()]
Doublings = Annotated[int, Range(0, 16)]
Blocks = Annotated[
    Sequence[Annotated[Sequence[int], FixedList((Annotated[int, Range(0, 1)], Size, Size))]],
    Filled(),
]
"""For each residual block: whether it doubles the map (0 or 1), channels in, channels out."""

_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "a text",
    types.NoneType: "null",
}


def check_keywords(target: type, given: Mapping[str, Any], where: str) -> None:
    """Check keywords against the annotations of a constructor.

    Args:
        target: a class or a NamedTuple.
        given: the keywords, as read from JSON.
        where: what they describe, for the message.

    Raises:
        UserError: listing every keyword that is unknown, missing, of another type or out of range.

    Example:
        >>> class Net:
        ...     def __init__(self, width: Size, leak: Share = 0.2): ...
        >>> check_keywords(Net, {"width": 8, "leak": 7}, "Net")
        Traceback (most recent call last):
        cgjax.errors.UserError: Net: leak=7, expected a finite number from 0 to 1
    """
    call: Any = target if issubclass(target, tuple) else target.__init__
    hints = get_type_hints(call, include_extras=True)
    parameters = {n: p for n, p in inspect.signature(call).parameters.items() if n != "self"}
    problems = []
    for name, value in given.items():
        if name not in parameters:
            near = difflib.get_close_matches(name, parameters, n=1, cutoff=0)
            problems.append(f"{name} is not known; did you mean {near[0]}?")
        elif not _fits(value, hints[name]):
            problems.append(f"{name}={shown(value)}, expected {_describe(hints[name])}")
    problems += [
        f"{name} is missing, expected {_describe(hints[name])}"
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty and name not in given
    ]
    if problems:
        raise UserError(f"{where}: {'; '.join(problems)}")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value matches an annotation."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _fits(value, args[0]) and all(limit.admits(value) for limit in args[1:])
    if origin in (Union, types.UnionType):
        return any(_fits(value, arg) for arg in args)
    if origin is Literal:
        return isinstance(value, str) and value in args
    if origin is Sequence:
        return isinstance(value, list | tuple) and all(_fits(entry, args[0]) for entry in value)
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is (origin or hint)


def _describe(hint: Any) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        text = _describe(args[0])
        for limit in args[1:]:
            text = limit.describe(text)
        return str(text)
    if origin in (Union, types.UnionType):
        return " or ".join(map(_describe, args))
    if origin is Literal:
        return f"one of {', '.join(args)}"
    if origin is Sequence:
        return f"a list of: {_describe(args[0])}"
    return _WORDS.get(hint, "names with values")
