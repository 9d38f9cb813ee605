"""How much of an attribute a clustering explains, and what a judge sees in each cluster.

Eta squared, the share of an attribute's variance that lies between k groups of n values, averages
(k - 1) / (n - 1) even for random groups. Adjusted for that [Kelley 1935, "epsilon
squared"] it is

    1 - (1 - eta^2) (n - 1) / (n - k)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import betaincc, stdtrit

from cgjax.numerics.intervals import bootstrap_interval, wilson_interval


class Explained(NamedTuple):
    """The share of an attribute's variance that lies between clusters.

    Attributes:
        value: eta squared adjusted for chance, 0 to 1; NaN if too few images were judged.
        low: lower end of its 95% bootstrap interval (normal).
        high: upper end.
        num: number of images in which the judge saw the attribute.
    """

    value: float
    low: float
    high: float
    num: int


def eta_squared(values: Float[np.ndarray, " n"], labels: Int[np.ndarray, " n"]) -> float:
    """Return sum_c n_c (m_c - m)^2 / sum_i (x_i - m)^2; 0 for values that do not vary.

    Args:
        values: (n,) of an attribute; NaN (the judge cannot tell) is left out.
        labels: (n,) the clusters of the same images.

    Example:
        >>> eta_squared(np.array([0.0, 0.0, 1.0, 1.0]), np.array([0, 0, 1, 1]))
        1.0
    """
    values, labels = _judged(values, labels)
    if not len(values):
        return 0.0
    centred = values - values.mean()
    total = float(centred @ centred)
    # A constant attribute, up to the rounding of its mean.
    if total <= 1e-20 * max(1.0, float(values @ values)):
        return 0.0
    sizes = np.bincount(labels)
    sums = np.bincount(labels, weights=centred)
    return float((sums[sizes > 0] ** 2 / sizes[sizes > 0]).sum() / total)


def adjusted_eta_squared(values: Float[np.ndarray, " n"], labels: Int[np.ndarray, " n"]) -> float:
    """Return eta squared adjusted for chance, 0 to 1; NaN unless values outnumber groups.

    >>> round(adjusted_eta_squared(np.array([0.0, 1.0, 2.0, 3.0]), np.array([0, 0, 1, 1])), 3)
    0.7
    """
    values, labels = _judged(values, labels)
    freedom = len(values) - len(np.unique(labels))
    if freedom < 1:
        return float("nan")
    return max(0.0, 1 - (1 - eta_squared(values, labels)) * (len(values) - 1) / freedom)


def chance(values: Float[np.ndarray, " n"], labels: Int[np.ndarray, " n"]) -> float:
    """Return the probability of at least this share for random groups (F test).

    1 if it is undefined: with one group, or unless values outnumber groups.

    >>> round(chance(np.array([0.0, 1.0, 2.0, 3.0]), np.array([0, 0, 1, 1])), 3)
    0.106
    """
    values, labels = _judged(values, labels)
    num_groups = len(np.unique(labels))
    freedom = len(values) - num_groups
    if freedom < 1 or num_groups < 2:
        return 1.0
    # Under the F test's null hypothesis the share itself has a beta distribution.
    share = eta_squared(values, labels)
    return float(betaincc((num_groups - 1) / 2, freedom / 2, min(share, 1.0)))


def _judged(
    values: Float[np.ndarray, " n"], labels: Int[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " m"], Int[np.ndarray, " m"]]:
    seen = ~np.isnan(values)
    return values[seen], labels[seen]


def explained(values: Float[np.ndarray, " n"], labels: Int[np.ndarray, " n"]) -> Explained:
    """Return the adjusted eta squared of judged values with its interval.

    Args:
        values: (n,) of an attribute, NaN if the judge cannot tell.
        labels: (n,) the clusters of the same images.
    """
    values, labels = _judged(values, labels)
    value = adjusted_eta_squared(values, labels)
    if np.isnan(value):
        return Explained(value, value, value, len(values))
    low, high = bootstrap_interval(
        lambda rows: adjusted_eta_squared(values[rows], labels[rows]),
        np.arange(len(values)),
        num_resamples=200,
        method="normal",
    )
    return Explained(value, max(0.0, low), min(1.0, high), len(values))


class ClusterAttribute(NamedTuple):
    """What a judge sees in one cluster.

    Attributes:
        mean: of the attribute in the images where it was seen; NaN if in none.
        low: lower end of the mean's 95% interval (Student's t).
        high: upper end.
        found: share of the cluster's images in which it was seen.
        found_low: lower end of its 95% Wilson interval.
        found_high: upper end.
        num: number of judged images of the cluster.
    """

    mean: float
    low: float
    high: float
    found: float
    found_low: float
    found_high: float
    num: int


def attribute_in(values: Float[np.ndarray, " m"]) -> ClusterAttribute:
    """Summarise the judged values of one cluster's images; NaN means no judgement."""
    num, seen = len(values), values[~np.isnan(values)]
    nan = float("nan")
    if not num:
        return ClusterAttribute(nan, nan, nan, nan, 0.0, 1.0, 0)
    found = wilson_interval(len(seen), num)
    mean, half = float(seen.mean()) if len(seen) else nan, nan
    if len(seen) > 1:
        quantile = float(stdtrit(len(seen) - 1, 0.975))
        half = quantile * float(seen.std(ddof=1)) / len(seen) ** 0.5
    return ClusterAttribute(mean, mean - half, mean + half, len(seen) / num, *found, num)
