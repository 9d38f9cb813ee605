"""What the tensors of a file do not tell: read from the file's config, or given with --set."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from cgjax.errors import UserError

T = TypeVar("T")


class Settings:
    """Named settings with defaults; what the user gave wins over the file, the file over ours.

    Example:
        >>> settings = Settings({"final_tanh": "true"}, {})
        >>> settings.get("final_tanh", False)
        True
    """

    def __init__(self, given: Mapping[str, str], config: Mapping[str, Any] | None = None):
        self._given = dict(given)
        self._config = dict(config or {})
        self._known: set[str] = set()

    def get(self, name: str, default: T) -> T:
        """Return a setting with the type of its default.

        Raises:
            UserError: if the given text, or the file's value, is not of that type.
        """
        self._known.add(name)
        if name in self._given:
            return _parse(name, self._given[name], default)
        value = self._config.get(name)
        if value is None:
            return default
        if not isinstance(value, bool | int | float | str):
            raise UserError(f"the file's config has {name}={value!r}; give it with --set {name}=")
        return type(default)(value)  # type: ignore[call-arg]

    def finish(self) -> None:
        """Check that every --set name was one that this kind of file has.

        Raises:
            UserError: naming the unknown one and those there are.
        """
        for name in self._given:
            if name not in self._known:
                near = difflib.get_close_matches(name, self._known, n=1, cutoff=0)
                raise UserError(
                    f"--set {name}: this kind of file has no such setting "
                    f"({', '.join(sorted(self._known)) or 'it has none'})"
                    + (f"; did you mean {near[0]}?" if near else "")
                )


def parse_assignments(texts: Iterable[str]) -> dict[str, str]:
    """Split `name=value` texts.

    Raises:
        UserError: for a text without `=`.
    """
    pairs = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise UserError(f"--set {text!r}: expected name=value, for example --set lod=0")
        pairs[name.strip()] = value.strip()
    return pairs


def _parse(name: str, text: str, default: T) -> T:
    if isinstance(default, bool):
        words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if text.lower() not in words:
            raise UserError(f"--set {name}={text}: expected true or false")
        return words[text.lower()]  # type: ignore[return-value]
    try:
        return type(default)(text)  # type: ignore[call-arg]
    except ValueError as error:
        kind = type(default).__name__
        raise UserError(f"--set {name}={text}: expected a {kind}") from error
