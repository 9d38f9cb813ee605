"""Numbers as the benchmarks print them."""

from __future__ import annotations

import numpy as np

from cgjax.numerics.intervals import wilson_interval


def share_text(is_counted: np.ndarray) -> str:
    """Return the share of True values with its 95% interval [Wilson 1927].

    >>> share_text(np.array([True, True, True, False]))
    '0.750 (0.301 to 0.954)'
    """
    low, high = wilson_interval(int(np.sum(is_counted)), len(is_counted))
    return f"{np.mean(is_counted):.3f} ({low:.3f} to {high:.3f})"
