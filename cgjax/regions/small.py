"""Clusters too small to be a group of their own."""

from __future__ import annotations

import numpy as np

from cgjax.numerics.intervals import wilson_interval
from cgjax.regions.clustering import Clustering

SMALL = 0.1
"""Share of an equal part (1/k) below which a cluster is small: with two clusters 5%. Groups whose
sizes are as 1 to 10 lie above it, the few outliers that k-means splits off below."""


def is_small(count: int, num_latents: int, num_clusters: int) -> bool:
    """Whether a cluster holds less than a tenth of an equal part, and not by chance.

    It is small if all of its share's 95% interval [Wilson 1927] lies below: of few latents, few
    members tell little.

    Args:
        count: its members.
        num_latents: that were clustered.
        num_clusters: how many clusters there are.

    Example:
        >>> is_small(12, 1000, 2), is_small(1, 50, 2), is_small(100, 1000, 2)
        (True, False, False)
    """
    return wilson_interval(count, num_latents).high < SMALL / num_clusters


def small_clusters(clustering: Clustering) -> list[int]:
    """Return the ids of the clusters that are small."""
    labels, num = clustering.labels, clustering.num
    counts = np.bincount(labels, minlength=num)
    return [c for c in range(num) if is_small(int(counts[c]), len(labels), num)]
