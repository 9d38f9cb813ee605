"""What a page asks to be drawn: JSON of a stranger, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from cgjax.errors import UserError

MOST_IMAGES = 4096
"""Images of one draw; --mode=sample draws more."""

MOST_TEXT = 100_000
"""Characters of a query, or any other text."""


class Wanted(NamedTuple):
    """A draw; each field is the flag of its name.

    Attributes:
        cluster: an id, a name or a query.
        num: images, from 1 to `MOST_IMAGES`.
        margin: as `MarginRange.parse` takes it.
        seed: from 0 to 2^32 - 1.
        sampler: its name, or None for that of `Run.sampler_for`.
        verify: whether what falls outside is redrawn.
    """

    cluster: str
    num: int = 64
    margin: str = "0"
    seed: int = 0
    sampler: str | None = None
    verify: bool = True


_KINDS: dict[str, type | tuple[type, ...]] = {
    "cluster": str,
    "num": int,
    "margin": str,
    "seed": int,
    "sampler": (str, type(None)),
    "verify": bool,
}


def wanted_of(body: Any) -> Wanted:
    """Check what was sent.

    Raises:
        UserError: what is wrong, in one line.

    Example:
        >>> wanted_of({"cluster": "0", "num": 12}).num
        12
    """
    if not isinstance(body, Mapping) or "cluster" not in body:
        raise UserError("expected a JSON object with a cluster")
    if unknown := sorted(body.keys() - _KINDS.keys()):
        raise UserError(f"{unknown[0]!r} is not known; expected {', '.join(_KINDS)}")
    for name, value in body.items():
        if not isinstance(value, _KINDS[name]) or (_KINDS[name] is int and isinstance(value, bool)):
            raise UserError(f"{name}={value!r} is of another kind than was expected")
        if isinstance(value, str) and len(value) > MOST_TEXT:
            raise UserError(f"{name} is too long; expected {MOST_TEXT:,} characters at most")
    wanted = Wanted(**body)
    if not 1 <= wanted.num <= MOST_IMAGES:
        raise UserError(
            f"{wanted.num} images: expected 1 to {MOST_IMAGES}; --mode=sample draws more"
        )
    if not 0 <= wanted.seed < 2**32:
        raise UserError(f"seed {wanted.seed}: expected 0 to {2**32 - 1}")
    return wanted
