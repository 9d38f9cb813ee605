"""Clusters too small to be a group of their own."""

from __future__ import annotations

import numpy as np

from cgjax.numerics.intervals import wilson_interval
from cgjax.regions.clustering import Clustering

SMALL = 0.1
"""Fraction of an equal share (1/k) below which a cluster is small: 5% with two clusters. Groups
in a ratio of 1 to 10 are above it, the few outliers that k-means splits off below."""


def is_small(count: int, num_latents: int, num_clusters: int) -> bool:
    """Return whether a cluster holds less than a tenth of an equal share, beyond chance.

    It is small if the whole 95% interval of its share [Wilson 1927] lies below the limit: with few
    latents, few members prove little.

    Args:
        count: number of its members.
        num_latents: number of clustered latents.
        num_clusters: number of clusters.

    Example:
        >>> is_small(12, 1000, 2), is_small(1, 50, 2), is_small(100, 1000, 2)
        (True, False, False)
    """
    return wilson_interval(count, num_latents).high < SMALL / num_clusters


def small_clusters(clustering: Clustering) -> list[int]:
    """Return the ids of the small clusters."""
    labels, num = clustering.labels, clustering.num
    counts = np.bincount(labels, minlength=num)
    return [c for c in range(num) if is_small(int(counts[c]), len(labels), num)]
