"""How well points cover a mixture of equal, round Gaussians, and what a perfect sampler scores.

With m(x) the nearest mean of a point, q the shares of points by nearest mean, and M modes of
standard deviation sd:

    high quality (box)   |x - mu_m| < 3 sd in each coordinate, as in the code of [Liu et al. 2020]
    high quality (disc)  ||x - mu_m|| < 3 sd, as in [Lin et al. 2018]
    modes                means with at least one high-quality (box) point
    reverse KL           sum_m q_m log(M q_m), over all points
    variance ratio       variance of the points in a box about their mode's own mean, over that of
                         the true distribution inside the same box; pooled over all modes, and for
                         the narrowest and the widest one

An exact sampler reaches 99.46% (box) or 98.89% (disc): more means collapse within modes, which the
variance ratio shows. Its reverse KL is about (M - 1) / (2 n), not zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from cgjax.errors import UserError
from cgjax.numerics.intervals import Interval
from cgjax.numerics.rows import as_pair

RADII = 3.0
"""Standard deviations from its mean within which a point is of high quality."""

# Variance of a unit normal truncated at +-3: 1 - 2 * 3 phi(3) / (2 Phi(3) - 1).
_CUT = 1 - 2 * RADII * math.exp(-(RADII**2) / 2) / math.sqrt(2 * math.pi) / math.erf(
    RADII / math.sqrt(2)
)


class ModeScores(NamedTuple):
    """How a set of points covers a mixture.

    Attributes:
        modes: means with at least one high-quality point.
        high_quality_box: share of the points within 3 sd of a mean in each coordinate.
        high_quality_disc: share of the points within 3 sd of a mean.
        reverse_kl_nats: from the shares by nearest mean to uniform shares.
        reverse_kl_log10: the same with logarithms to base 10.
        variance_ratio: within-mode variance over the true one, all modes pooled; NaN if no mode has
            two points of high quality.
        variance_ratio_lowest: the lowest ratio of a single mode, of those with two such points.
        variance_ratio_highest: the highest ratio of a single mode.
    """

    modes: float
    high_quality_box: float
    high_quality_disc: float
    reverse_kl_nats: float
    reverse_kl_log10: float
    variance_ratio: float
    variance_ratio_lowest: float
    variance_ratio_highest: float


class PerfectScore(NamedTuple):
    """What a perfect sampler scores: the mean over repeats, and the interval of one more (95%)."""

    mean: float
    interval: Interval


def nearest_means(points: ArrayLike, means: ArrayLike) -> Int[np.ndarray, " n"]:
    """Return the index of each point's nearest mean, the lowest on ties."""
    x, mu = (np.asarray(a, np.float64) for a in as_pair(points, means))
    return np.argmin(np.square(mu).sum(axis=1)[None] - 2 * x @ mu.T, axis=1)


def mode_scores(points: ArrayLike, means: ArrayLike, sd: float) -> ModeScores:
    """Score points against a mixture of equal Gaussians.

    O(n m) time and memory. High quality is judged by the nearest mean only, which equals judging by
    any mean as long as boxes do not overlap.

    Args:
        points: (n, d), finite.
        means: (m, d).
        sd: standard deviation along each axis, above 0.

    Raises:
        UserError: no points, a point that is not finite, different widths, or sd not above 0.

    Example:
        >>> scores = mode_scores([[0.0, 0.0], [9.0, 0.1]], [[0, 0], [9, 0], [0, 9]], 0.05)
        >>> scores.modes, round(scores.reverse_kl_nats, 4)
        (2.0, 0.4055)
    """
    if not sd > 0:
        raise UserError(f"sd={sd}: expected a standard deviation above 0")
    x, mu = (np.asarray(a, np.float64) for a in as_pair(points, means))
    nearest = nearest_means(x, mu)
    offsets = x - mu[nearest]
    is_box = (np.abs(offsets) < RADII * sd).all(axis=1)
    is_disc = np.square(offsets).sum(axis=1) < (RADII * sd) ** 2
    nats = reverse_kl(np.bincount(nearest, minlength=len(mu)))
    pooled, lowest, highest = _variance_ratios(offsets[is_box], nearest[is_box], len(mu), sd)
    return ModeScores(
        modes=float(len(np.unique(nearest[is_box]))),
        high_quality_box=float(is_box.mean()),
        high_quality_disc=float(is_disc.mean()),
        reverse_kl_nats=nats,
        reverse_kl_log10=nats / math.log(10),
        variance_ratio=pooled,
        variance_ratio_lowest=lowest,
        variance_ratio_highest=highest,
    )


def reverse_kl(
    counts: Int[np.ndarray, " m"], shares: Float[np.ndarray, " m"] | None = None
) -> float:
    """Return sum_m q_m log(q_m / p_m) in nats, q the shares of the counts.

    Args:
        counts: (m,) points per mode, at least one above 0.
        shares: p, which sum to 1; None for uniform ones. The result is infinite if a mode of share
            0 has a count.

    Example:
        >>> round(reverse_kl(np.array([1, 1, 0])), 4)
        0.4055
    """
    is_hit = counts > 0
    q = counts[is_hit] / counts.sum()
    p = np.full(len(q), 1 / len(counts)) if shares is None else shares[is_hit]
    if not (p > 0).all():
        return math.inf
    return float((q * np.log(q / p)).sum())


def _variance_ratios(
    offsets: Float[np.ndarray, "n d"], modes: Int[np.ndarray, " n"], num_modes: int, sd: float
) -> tuple[float, float, float]:
    """Return the modes' unbiased variances, pooled over axes, over the true one.

    Those of all modes pooled, the lowest and the highest; NaN if no mode has two points.
    """
    counts = np.bincount(modes, minlength=num_modes)
    squares = np.zeros(num_modes)
    for axis in offsets.T:
        sums = np.bincount(modes, axis, num_modes)
        squares += np.bincount(modes, axis**2, num_modes) - sums**2 / np.maximum(counts, 1)
    is_spread = counts > 1
    if not is_spread.any():
        return math.nan, math.nan, math.nan
    true = offsets.shape[1] * sd**2 * _CUT
    squares, freedom = squares[is_spread], counts[is_spread] - 1
    ratios = squares / freedom / true
    pooled = squares.sum() / freedom.sum() / true
    return float(pooled), float(ratios.min()), float(ratios.max())


def perfect_scores(
    draw: Callable[[int], ArrayLike], means: ArrayLike, sd: float, *, repeats: int = 100
) -> dict[str, PerfectScore]:
    """Return what draws from the true distribution score, by the names of `ModeScores`.

    Args:
        draw: takes the index of a repeat, returns as many points as will be judged.
        means: (m, d).
        sd: standard deviation along each axis.
        repeats: number of independent draws, at least 2.

    Raises:
        UserError: too few repeats.
    """
    return over_repeats(lambda i: mode_scores(draw(i), means, sd)._asdict(), repeats)


def over_repeats(
    score: Callable[[int], Mapping[str, float]], repeats: int
) -> dict[str, PerfectScore]:
    """Return the mean and the interval of each score over repeats.

    Args:
        score: takes the index of a repeat, returns scores by name, the same names every time.
        repeats: number of repeats, at least 2.

    Raises:
        UserError: too few repeats.
    """
    if repeats < 2:
        raise UserError(f"repeats={repeats}: expected at least 2 for an interval")
    scores = [score(i) for i in range(repeats)]
    columns = {name: np.array([one[name] for one in scores]) for name in scores[0]}
    return {
        name: PerfectScore(float(column.mean()), _of_one_more(column))
        for name, column in columns.items()
    }


def _of_one_more(scores: Float[np.ndarray, " n"]) -> Interval:
    """Return the interval that holds the score of one more repeat in 95 of 100 cases.

    The 1st and the nth of n scores in order leave out 2 / (n + 1) of further ones: 5% of them from
    39 scores on, whatever their distribution. Fewer are taken for normal, and none for negative.
    """
    num = len(scores)
    if num >= 39:
        return Interval(*np.quantile(scores, [0.025, 0.975], method="weibull").tolist())
    mean, half = float(scores.mean()), float(stdtrit(num - 1, 0.975) * scores.std(ddof=1))
    half *= math.sqrt(1 + 1 / num)
    return Interval(max(mean - half, 0.0), mean + half)
