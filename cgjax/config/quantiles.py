"""Quantiles of a cluster's margins: how a flag or a config gives them, as in `0.55:0.8`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

EXPECTED = (
    "a quantile from 0 to below 1, or two, the smaller first, as in --margin=0.6 or "
    "--margin=0.55:0.8"
)


def parse_quantiles(value: Any) -> tuple[float, float] | None:
    """Read one quantile, or two: as numbers, or as text with a colon.

    Returns:
        The lower and the upper quantile; the upper is 1 if only one is given. None for anything
        else.

    Example:
        >>> parse_quantiles(0.6), parse_quantiles("0.55:0.8"), parse_quantiles((0.8, 0.6))
        ((0.6, 1.0), (0.55, 0.8), None)
    """
    if isinstance(value, Sequence) and not isinstance(value, str):
        parts = list(value)
    else:
        parts = value.split(":") if isinstance(value, str) else [value]
    if len(parts) not in (1, 2) or any(isinstance(part, bool) for part in parts):
        return None
    try:
        low, high = [*map(float, parts), 1.0][:2]
    except (TypeError, ValueError, OverflowError):
        return None
    return (low, high) if 0 <= low < high <= 1 else None
