"""Strict accounting of a network's tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from cgjax.errors import UserError
from converters.plain import Unreadable


class Tensors:
    """A state dict whose tensors must all be taken or explicitly ignored.

    Problems are collected, so that one error at the end lists every missing, misshapen and unknown
    entry of the file.

    Example:
        >>> tensors = Tensors({"a": np.zeros(3, np.float32)}, "file")
        >>> tensors.take("a", (3,)).shape
        (3,)
        >>> tensors.finish()
    """

    def __init__(self, state: Mapping[Any, Any], source: object):
        self._state = {name: value for name, value in state.items() if isinstance(name, str)}
        self._source = source
        self._taken: set[str] = set()
        self._problems = [f"extra {name!r}" for name in state if not isinstance(name, str)]

    def __contains__(self, name: str) -> bool:
        return name in self._state

    def names(self, pattern: str) -> list[str]:
        """Return the names that a regular expression matches in full."""
        return [name for name in self._state if re.fullmatch(pattern, name)]

    def shape(self, name: str, ndim: int) -> tuple[int, ...]:
        """Return the shape of a tensor that sizes are read from.

        Args:
            name: the tensor.
            ndim: its expected number of axes; -1 for any.

        Returns:
            The shape; no axis is 0.

        Raises:
            UserError: at once, if it is missing, empty, not an array, or has another number of
                axes: nothing else can be checked then.
        """
        if name not in self._state:
            raise UserError(f"{self._source}: missing {name}")
        value = self._state[name]
        if not isinstance(value, np.ndarray):
            raise UserError(f"{self._source}: {name} {_not_an_array(value)}")
        if ndim not in (-1, value.ndim):
            raise UserError(f"{self._source}: {name} has shape {value.shape}, expected {ndim} axes")
        if 0 in value.shape:
            raise UserError(f"{self._source}: {name} has shape {value.shape}: it is empty")
        return value.shape

    def value(self, name: str) -> np.ndarray:
        """Return a tensor unchanged, to look at; this does not count as taking it.

        Raises:
            UserError: at once, as `shape`.
        """
        self.shape(name, -1)
        return np.asarray(self._state[name])

    def count(self, pattern: str) -> int:
        """Return the number of indices, counted from 0, of a pattern with one `{}`.

        It is the highest index plus one: a tensor missing in between is reported when it is taken.

        Raises:
            UserError: if an index exceeds the number of tensors in the file.
        """
        regex = re.escape(pattern).replace(r"\{\}", r"(\d{1,9})")
        matches = (re.fullmatch(regex, name) for name in self._state)
        highest = max((int(m.group(1)) for m in matches if m), default=-1)
        if highest >= len(self._state):
            raise UserError(
                f"{self._source}: {pattern.format(highest)}, but only {len(self._state)} tensors"
            )
        return highest + 1

    def take(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Return a tensor as float32; if it is not usable, note why and return zeros."""
        self._taken.add(name)
        value = self._state.get(name)
        if name not in self._state:
            self.note(f"missing {name}")
        elif not isinstance(value, np.ndarray):
            self.note(f"{name} {_not_an_array(value)}")
        elif value.shape != tuple(shape):
            self.note(f"{name} has shape {value.shape}, expected {tuple(shape)}")
        elif not np.issubdtype(value.dtype, np.floating):
            self.note(f"{name} has dtype {value.dtype}, expected a float")
        elif not np.isfinite(value).all():
            self.note(f"{name} has NaN or infinite values")
        else:
            with np.errstate(over="ignore"):
                single = np.asarray(value, np.float32)
            if single.dtype == value.dtype or np.isfinite(single).all():
                return single
            self.note(f"{name} has values that do not fit float32")
        return np.zeros(shape, np.float32)

    def take_variance(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Return a norm's variance as `take` does; note negative values."""
        variance = self.take(name, shape)
        if (variance < 0).any():
            self.note(f"{name} has negative values")
        return variance

    def scalar(self, name: str) -> float:
        """Return a number; 0 if it is not in the file."""
        return float(self.take(name, ())) if name in self else 0.0

    def check_constant(self, name: str, expected: np.ndarray) -> None:
        """Check that a tensor, if present, is the constant that our arithmetic has built in."""
        if name in self and not np.allclose(self.take(name, expected.shape), expected, atol=1e-6):
            self.note(f"{name} is not the constant that is built in here")

    def ignore(self, pattern: str) -> None:
        """Mark every tensor whose name matches a regular expression as not needed."""
        self._taken.update(self.names(pattern))

    def note(self, problem: str) -> None:
        """Add a problem to the list."""
        self._problems.append(problem)

    def finish(self) -> None:
        """Check that there were no problems and that no tensor is left over.

        Raises:
            UserError: one line that lists every problem.
        """
        problems = self._problems + [f"extra {n}" for n in self._state if n not in self._taken]
        if problems:
            raise UserError(f"{self._source}: {'; '.join(problems)}")


def _not_an_array(value: Any) -> str:
    if isinstance(value, Unreadable):
        return value.reason
    return f"is not a tensor ({type(value).__name__})"
