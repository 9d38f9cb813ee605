"""What a file's tensors do not specify: read from the file's config, or given with --set."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from cgjax.errors import UserError

T = TypeVar("T", bool, int, float, str)

# The setting that every file has: which of its networks to convert (see `networks.choose`).
NETWORK = "network"

_WORDS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_EXPECTED = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a word"}


class Settings:
    """Named settings with defaults: the user's value wins over the file's, the file's over ours.

    Attributes:
        assumed: what neither the user nor the file specified, each with the flag that changes it.

    Example:
        >>> settings = Settings({"final_tanh": "true"}, {"alpha": 0})
        >>> settings.get("final_tanh", False), settings.get("alpha", 0.5)
        (True, 0.0)
    """

    def __init__(self, given: Mapping[str, str], config: Mapping[str, Any] | None = None):
        self._given = dict(given)
        self._config = dict(config or {})
        self._known = {NETWORK}
        self.assumed: list[str] = []

    def is_given(self, name: str) -> bool:
        """Whether the user gave a setting."""
        return name in self._given

    def default(self, name: str, value: Any) -> None:
        """Use a value as the file's own if its config has no entry of that name."""
        self._config.setdefault(name, value)

    def assume(self, name: str, text: str) -> None:
        """Add a text to `assumed`, unless the user gave the setting."""
        if not self.is_given(name):
            self.assumed.append(text)

    def assume_default(self, name: str, value: float) -> None:
        """Add to `assumed` that a number is the default of the file's own code."""
        text = "the code's default: the file does not say"
        self.assume(name, f"{name}: {value:g}, {text}; --set {name}=...")

    def get(
        self,
        name: str,
        default: T,
        *,
        low: float = -math.inf,
        high: float = math.inf,
        words: Sequence[str] = (),
    ) -> T:
        """Return a setting of the type of its default.

        Args:
            name: its name in the file's own code.
            default: the value if neither the user nor the file has one; its type decides what is
                accepted. A boolean may be stored as one, as 0 or 1, or as a word: "False" is false.
            low: least value of a number.
            high: greatest value of a number.
            words: the allowed words, case ignored; empty for any.

        Returns:
            The value.

        Raises:
            UserError: if the user's or the file's value has another type or is out of range.
        """
        self._known.add(name)
        is_given = name in self._given
        value = self._given[name] if is_given else self._config.get(name)
        if value is None:
            return default
        typed: Any = _typed(value, type(default))
        expected = _EXPECTED[type(default)]
        if words:
            expected = f"one of {', '.join(words)}"
            typed = next((w for w in words if w.lower() == str(typed).lower()), None)
        elif not isinstance(default, bool | str) and (low, high) != (-math.inf, math.inf):
            expected += f" from {low:g} to {high:g}" if math.isfinite(high) else f" from {low:g} up"
            if typed is not None and not low <= typed <= high:
                typed = None
        if typed is not None:
            result: T = typed
            return result
        if is_given:
            raise UserError(f"--set {name}={value}: expected {expected}")
        raise UserError(
            f"the file's config has {name}={_short(value)}: expected {expected}; give it with "
            f"--set {name}={default}"
        )

    def get_words(self, name: str) -> tuple[str, ...]:
        """Return a setting that is a comma-separated list of words; empty if it is not given.

        Example:
            >>> Settings({"class_names": "red, green"}).get_words("class_names")
            ('red', 'green')

        Raises:
            UserError: if a word is empty or repeated.
        """
        text = self.get(name, "")
        words = tuple(word.strip() for word in text.split(",")) if text else ()
        if "" in words or len(set(words)) < len(words):
            raise UserError(f"--set {name}={text}: expected different words between commas")
        return words

    def get_numbers(self, name: str, count: int, *, low: int = 0) -> tuple[int, ...]:
        """Return a setting that is a comma-separated list of whole numbers; empty if not given.

        Args:
            name: as for `get`.
            count: the expected length.
            low: least value of each.

        Raises:
            UserError: if the length differs, or an entry is not a number in range.
        """
        text = self.get(name, "")
        if not text:
            return ()
        numbers = [_typed(word, int) for word in text.split(",")]
        if len(numbers) != count or any(n is None or not low <= n < 1000 for n in numbers):
            raise UserError(
                f"--set {name}={text}: expected {count} whole numbers from {low} up, one for each "
                f"layer: --set {name}={','.join(['1'] * count)}"
            )
        return tuple(n for n in numbers if n is not None)

    def finish(self) -> None:
        """Check that every --set name is one that this kind of file has.

        Raises:
            UserError: naming the unknown one and the known ones.
        """
        for name in self._given:
            if name not in self._known:
                near = difflib.get_close_matches(name, self._known, n=1, cutoff=0)[0]
                raise UserError(
                    f"--set {name}: this kind of file has no such setting "
                    f"({', '.join(sorted(self._known))}); did you mean {near}?"
                )


def parse_assignments(texts: Iterable[str]) -> dict[str, str]:
    """Split `name=value` texts.

    Raises:
        UserError: for a text without `=`, or a name with two values.
    """
    pairs: dict[str, str] = {}
    for text in texts:
        name, separator, value = (part.strip() for part in text.partition("="))
        if not separator or not name:
            raise UserError(f"--set {text!r}: expected name=value, for example --set lod=0")
        if pairs.setdefault(name, value) != value:
            same = "; --key is the same as --set network" if name == NETWORK else ""
            raise UserError(f"--set {name}={pairs[name]} and {name}={value}: give one{same}")
    return pairs


def as_mapping(value: Any, what: str) -> dict[str, Any]:
    """Return a part of a file that must be a mapping or absent.

    Args:
        value: the part; None counts as empty.
        what: what it is and where, for the message.

    Returns:
        Its entries.

    Raises:
        UserError: if it is anything else.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise UserError(f"{what} is {_short(value)}, expected names with values")
    return dict(value)


def _typed(value: Any, kind: type[T]) -> T | None:
    """Return a value as a type if the conversion is exact, else None; text is parsed."""
    if isinstance(value, np.ndarray | np.generic) and value.ndim == 0:
        value = value.item()
    result: Any = None
    if kind is str:
        result = value if isinstance(value, str) else None
    elif kind is bool:
        if isinstance(value, str):
            result = _WORDS.get(value.strip().lower())
        elif isinstance(value, int | float) and value in (0, 1):
            result = bool(value)
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            result = kind(value)
        except (ValueError, OverflowError):
            return None
        if kind is int and not isinstance(value, str) and result != value:
            return None
    if isinstance(result, float) and not math.isfinite(result):
        return None
    return result


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
