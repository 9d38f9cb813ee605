"""Configs as plain dicts: flattened, compared, hashed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ml_collections import config_dict


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return every leaf by its dotted path."""
    leaves: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            leaves |= flatten(value, f"{prefix}{name}.")
        else:
            leaves[f"{prefix}{name}"] = value
    return leaves


def to_plain(config: config_dict.ConfigDict) -> dict[str, Any]:
    """Return a config as nested dicts; unset placeholders become None."""
    plain: dict[str, Any] = json.loads(config.to_json_best_effort())
    return plain


def differences(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    is_ignored: Callable[[str], bool] = lambda path: False,
) -> list[str]:
    """Describe every leaf that differs between two configs, as `path: old -> new`.

    Args:
        old: nested, or leaves by their dotted paths.
        new: likewise.
        is_ignored: whether a leaf may differ, by its dotted path.
    """
    a, b = flatten(old), flatten(new)
    return [
        f"{path}: {a.get(path)} -> {b.get(path)}"
        for path in sorted(a.keys() | b.keys())
        # As JSON: a tuple comes back from a file as a list.
        if not is_ignored(path) and json.dumps(a.get(path)) != json.dumps(b.get(path))
    ]


def digest(value: Any) -> str:
    """Hash plain data (dicts, lists, text, numbers, None), regardless of the order of keys.

    Args:
        value: anything that JSON can hold; a tuple counts as a list.

    Returns:
        The hexadecimal SHA-256 of the canonical JSON: sorted keys, no spaces.

    Raises:
        TypeError: a value that JSON cannot hold.
        ValueError: NaN or an infinity.

    Example:
        >>> digest({"a": 1, "b": (2.0,)}) == digest({"b": [2.0], "a": 1})
        True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def split_texts(values: Iterable[Any]) -> list[str]:
    """Return the items of a list leaf as text; `a,b`, as typed in a shell, is two items.

    >>> split_texts(["layer1,layer2", 3])
    ['layer1', 'layer2', '3']
    """
    return [name.strip() for text in values for name in str(text).split(",") if name.strip()]
