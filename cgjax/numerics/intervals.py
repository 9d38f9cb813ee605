"""An interval: what stands beside every number."""

from typing import NamedTuple


class Interval(NamedTuple):
    """Both ends of a two-sided interval."""

    low: float
    high: float
