"""How many draws it takes to find enough of what is rare."""

from __future__ import annotations

import math
from collections.abc import Callable

from cgjax.numerics.arguments import INT_MAX


def enough_draws(num: int, share: float) -> int:
    """Return how many draws contain `num` hits in at least 98 of 100 cases.

        (num + 3 sqrt(num)) / share, rounded up to two digits; at most the largest budget

    Args:
        num: at least 1.
        share: of the draws that are hits, above 0.

    Example:
        >>> enough_draws(2000, 0.001)
        2200000
    """
    return min(INT_MAX, leading((num + 3 * math.sqrt(num)) / share, math.ceil))


def leading(number: float, to_integer: Callable[[float], int]) -> int:
    """Round a number of at least 1 to an integer of two leading digits, followed by zeros."""
    unit = 10 ** max(0, math.floor(math.log10(number)) - 1)
    return to_integer(number / unit) * unit
