"""Strict accounting of a network's tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from cgjax.errors import UserError
from converters.plain import Unreadable


class Tensors:
    """A state dict of which every tensor is taken once or explicitly ignored.

    Problems are collected, so that one error at the end lists every missing, mis-shaped and unknown
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
        """Return the names that match a regular expression in full."""
        return [name for name in self._state if re.fullmatch(pattern, name)]

    def shape(self, name: str, ndim: int) -> tuple[int, ...]:
        """Return the shape of a tensor from which sizes are read.

        Args:
            name: the tensor.
            ndim: how many axes it has; -1 where any number is right.

        Returns:
            The shape, without a zero.

        Raises:
            UserError: at once, if it is missing, empty, no array, or has another number of axes:
                nothing else can be checked then.
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
        """Return a tensor as it is, to look at; it has to be taken besides.

        Raises:
            UserError: at once, as `shape`.
        """
        self.shape(name, -1)
        return np.asarray(self._state[name])

    def count(self, pattern: str) -> int:
        """Return how many consecutive indices a pattern with one `{}` has, counted from 0.

        The numbering may have a gap where a tensor is missing: the highest index counts, and the
        missing one is reported when it is taken.

        Raises:
            UserError: if an index is higher than the file has tensors.
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
        """Return a tensor as float32; one of another shape is noted and becomes zeros."""
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

    def scalar(self, name: str, default: float) -> float:
        """Return a number; the default where it is not in the file."""
        return float(self.take(name, ())) if name in self else default

    def check_constant(self, name: str, expected: np.ndarray) -> None:
        """Check that a tensor, if it is there, is the constant that our arithmetic has built in."""
        if name in self and not np.allclose(self.take(name, expected.shape), expected, atol=1e-6):
            self.note(f"{name} is not the constant it is known to be")

    def ignore(self, pattern: str) -> None:
        """Mark every tensor whose name matches a regular expression as seen and not needed."""
        self._taken.update(self.names(pattern))

    def note(self, problem: str) -> None:
        """Add a problem of another kind to the list."""
        self._problems.append(problem)

    def finish(self) -> None:
        """Check that the file was right and nothing in it was left over.

        Raises:
            UserError: one line with every problem.
        """
        problems = self._problems + [f"extra {n}" for n in self._state if n not in self._taken]
        if problems:
            raise UserError(f"{self._source}: {'; '.join(problems)}")


def _not_an_array(value: Any) -> str:
    if isinstance(value, Unreadable):
        return value.reason
    return f"is not a tensor ({type(value).__name__})"
