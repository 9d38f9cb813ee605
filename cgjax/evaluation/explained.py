"""How much of an attribute a clustering explains: eta squared, the share of variance between."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from cgjax.numerics.intervals import bootstrap_interval, wilson_interval


class Explained(NamedTuple):
    """The share of an attribute's variance that lies between clusters.

    Attributes:
        value: eta squared, 0 to 1; NaN where too little was judged.
        low: lower end of its 95% bootstrap interval.
        high: upper end.
        num: images in which the judge saw the attribute.
    """

    value: float
    low: float
    high: float
    num: int


def eta_squared(values: Float[np.ndarray, " n"], labels: Int[np.ndarray, " n"]) -> float:
    """Return sum_c n_c (m_c - m)^2 / sum_i (x_i - m)^2; 0 for values that do not vary.

    >>> eta_squared(np.array([0.0, 0.0, 1.0, 1.0]), np.array([0, 0, 1, 1]))
    1.0
    """
    centred = values - values.mean()
    total = float(centred @ centred)
    # A constant attribute, up to the rounding of its mean.
    if total <= 1e-20 * max(1.0, float(values @ values)):
        return 0.0
    sizes = np.bincount(labels)
    sums = np.bincount(labels, weights=centred)
    return float((sums[sizes > 0] ** 2 / sizes[sizes > 0]).sum() / total)


def explained(values: Float[np.ndarray, " n"], labels: Int[np.ndarray, " n"]) -> Explained:
    """Return eta squared of judged values with its interval.

    Args:
        values: (n,) of an attribute, NaN where the judge cannot tell.
        labels: (n,) the clusters of the same images.
    """
    seen = ~np.isnan(values)
    num = int(seen.sum())
    if num < 2:
        return Explained(float("nan"), float("nan"), float("nan"), num)
    own, of = values[seen], labels[seen]
    interval = bootstrap_interval(
        lambda rows: eta_squared(own[rows], of[rows]), np.arange(num), num_resamples=200
    )
    return Explained(eta_squared(own, of), *interval, num)


class ClusterAttribute(NamedTuple):
    """What a judge sees in one cluster.

    Attributes:
        mean: of the attribute where it was seen; NaN where it never was.
        low: lower end of the mean's 95% interval (normal).
        high: upper end.
        found: share of the cluster's images in which it was seen.
        found_low: lower end of its 95% Wilson interval.
        found_high: upper end.
        num: judged images of the cluster.
    """

    mean: float
    low: float
    high: float
    found: float
    found_low: float
    found_high: float
    num: int


def attribute_in(values: Float[np.ndarray, " m"]) -> ClusterAttribute:
    """Return what the judged values of one cluster's images say; NaN: no judgement."""
    num, seen = len(values), values[~np.isnan(values)]
    nan = float("nan")
    if not num:
        return ClusterAttribute(nan, nan, nan, nan, 0.0, 1.0, 0)
    found = wilson_interval(len(seen), num)
    half = 1.96 * float(seen.std(ddof=1)) / len(seen) ** 0.5 if len(seen) > 1 else nan
    mean = float(seen.mean()) if len(seen) else nan
    return ClusterAttribute(mean, mean - half, mean + half, len(seen) / num, *found, num)
