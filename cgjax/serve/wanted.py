"""The draw that a page asks for: untrusted JSON, checked."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from cgjax.config.leaves import MAX_SEED
from cgjax.errors import UserError

MOST_IMAGES = 4096
"""Largest number of images in one draw; --mode=sample draws more."""

MOST_TEXT = 100_000
"""Largest number of characters in a query or any other text."""


class Wanted(NamedTuple):
    """A requested draw; each field means the same as the command-line flag of that name.

    Attributes:
        cluster: an id, a name or a query.
        num: number of images, 1 to `MOST_IMAGES`.
        margin: text for `MarginRange.parse`.
        seed: 0 to 2^32 - 1.
        sampler: its name; None for the choice of `RunSamplers.name_for`.
        verify: whether samples outside the cluster are redrawn.
    """

    cluster: str
    num: int = 64
    margin: str = "0"
    seed: int = 0
    sampler: str | None = None
    verify: bool = True


_FIELDS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "cluster": (str, "a text"),
    "num": (int, "a whole number"),
    "margin": (str, "a text"),
    "seed": (int, "a whole number"),
    "sampler": ((str, type(None)), "a text or null"),
    "verify": (bool, "true or false"),
}


def wanted_of(body: Any) -> Wanted:
    """Check a request's body.

    Raises:
        UserError: says what is wrong, in one short line.

    Example:
        >>> wanted_of({"cluster": "0", "num": 12}).num
        12
    """
    if not isinstance(body, Mapping) or "cluster" not in body:
        raise UserError("expected a JSON object with a cluster")
    if unknown := sorted(body.keys() - _FIELDS.keys()):
        raise UserError(f"unknown field {reprlib.repr(unknown[0])}; expected {', '.join(_FIELDS)}")
    for name, value in body.items():
        kind, expected = _FIELDS[name]
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise UserError(f"{name}={reprlib.repr(value)}: expected {expected}")
        if isinstance(value, str) and len(value) > MOST_TEXT:
            raise UserError(f"{name} is too long; expected at most {MOST_TEXT:,} characters")
    wanted = Wanted(**body)
    if not 1 <= wanted.num <= MOST_IMAGES:
        num = reprlib.repr(wanted.num)
        raise UserError(f"{num} images: expected 1 to {MOST_IMAGES}; --mode=sample draws more")
    if not 0 <= wanted.seed <= MAX_SEED:
        raise UserError(f"seed {reprlib.repr(wanted.seed)}: expected 0 to {MAX_SEED}")
    return wanted
