"""Confidence intervals for shares and for any statistic."""

from collections.abc import Callable
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from cgjax.errors import UserError
from cgjax.numerics.arguments import check_share, check_whole


class Interval(NamedTuple):
    """The ends of a two-sided interval."""

    low: float
    high: float


def with_ends(name: str, value: float, low: float, high: float) -> dict[str, float]:
    """Return a number and the ends of its interval as columns of a table.

    >>> with_ends("share", 0.5, *Interval(0.4, 0.6))
    {'share': 0.5, 'share_low': 0.4, 'share_high': 0.6}
    """
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def _upper_tail(confidence: float) -> float:
    """Return the probability below the upper end of a two-sided interval."""
    return (1 + check_share("confidence", confidence, 0.95)) / 2


def wilson_interval(successes: int, total: int, confidence: float = 0.95) -> Interval:
    """Return the Wilson score interval of a share, valid at 0 and 1 too [Wilson 1927].

    Args:
      successes: from 0 to `total`.
      total: number of trials, at least 1.
      confidence: of the interval, between 0 and 1.

    Raises:
      UserError: the two counts do not make a share, or `confidence` is not between 0 and 1.

    >>> low, high = wilson_interval(95, 100)
    >>> round(low, 3), round(high, 3)
    (0.888, 0.978)
    """
    if not 0 <= successes <= total or total < 1:
        raise UserError(f"{successes} of {total} is not a share; expected 0 <= successes <= total")
    z2 = NormalDist().inv_cdf(_upper_tail(confidence)) ** 2
    share = successes / total
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = np.sqrt(z2 * (share * (1 - share) / total + z2 / (4 * total**2))) / (1 + z2 / total)
    # In theory the ends at 0 and 1 are exact; rounding must not move them past the share.
    return Interval(
        float(max(0.0, min(centre - half, share))), float(min(1.0, max(centre + half, share)))
    )


def bootstrap_interval(
    statistic: Callable[..., float],
    *samples: ArrayLike,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    method: Literal["percentile", "normal"] = "percentile",
    seed: int = 0,
) -> Interval:
    """Return a bootstrap interval of `statistic(*samples)`; samples are resampled independently.

    A resample repeats rows, and distances between sets (Frechet, nearest neighbours) grow when
    fewer rows are distinct, so their percentile interval is too high. Use `method="normal"` for
    those: the estimate plus and minus the spread of the resamples, times a quantile of Student's t
    because few resamples tell the spread only roughly.

    Args:
      statistic: function of one array per sample that returns a number.
      *samples: arrays (n, ...) whose first axis is resampled with replacement; n may differ.
      num_resamples: number of resamples, at least 2.
      confidence: of the interval, between 0 and 1.
      method: "percentile" or "normal".
      seed: seed of the resampling.

    Raises:
      UserError: there is no sample, one is empty or a single number, `method` is unknown, there are
        fewer than 2 resamples, or `confidence` is not between 0 and 1.

    >>> low, high = bootstrap_interval(np.mean, np.arange(100.0))
    >>> round(low), round(high)  # around 49.5
    (44, 55)
    """
    if not samples:
        raise UserError("bootstrap_interval needs at least one sample")
    if method not in ("percentile", "normal"):
        raise UserError(f"method={method!r}; expected 'percentile' or 'normal'")
    num_resamples = check_whole("num_resamples", num_resamples, least=2)
    upper = _upper_tail(confidence)
    arrays: list[NDArray[Any]] = [np.asarray(sample) for sample in samples]
    if any(array.ndim == 0 or len(array) == 0 for array in arrays):
        raise UserError(
            "a sample is empty or a single number; expected arrays with at least one row"
        )
    rng = np.random.default_rng(seed)
    values = np.array(
        [
            statistic(*(array[rng.integers(len(array), size=len(array))] for array in arrays))
            for _ in range(num_resamples)
        ]
    )
    if method == "normal":
        estimate = float(statistic(*arrays))
        half = float(stdtrit(num_resamples - 1, upper) * values.std(ddof=1))
        return Interval(estimate - half, estimate + half)
    low, high = np.quantile(values, [1 - upper, upper])
    return Interval(float(low), float(high))
