"""Whether anything can lie in a region, judged from its structure alone."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from cgjax.regions.clustering import Clustering
from cgjax.regions.compound import Complement, Intersection, Union
from cgjax.regions.region import ClusterRegion, Region

MAX_CASES = 2**20
"""Most combinations of one cluster per clustering that are checked."""


def is_empty(region: Region) -> bool:
    """Return whether no latent can lie in a region.

    A latent lies in exactly one cluster of each clustering, so a region is empty if it contains no
    combination of one cluster per clustering. With one clustering this is exact; clusters of
    different clusterings are assumed to overlap in every combination.

    Args:
        region: a region without a margin.
    """
    clusterings = {one.digest: one for one in _clusterings(region)}
    if math.prod(one.num for one in clusterings.values()) > MAX_CASES:
        return False
    clusters = np.ix_(*(np.arange(one.num) for one in clusterings.values()))
    return not np.any(_holds(region, dict(zip(clusterings, clusters, strict=True))))


def _clusterings(region: Region) -> Iterator[Clustering]:
    if isinstance(region, ClusterRegion):
        yield region.clustering
    for part in _parts(region):
        yield from _clusterings(part)


def _parts(region: Region) -> tuple[Region, ...]:
    if isinstance(region, Complement):
        return (region.region,)
    return region.parts if isinstance(region, Intersection | Union) else ()


def _holds(region: Region, clusters: Mapping[str, Any]) -> Any:
    """Return whether a region contains combinations: clustering digest -> array of cluster ids."""
    if isinstance(region, ClusterRegion):
        return clusters[region.clustering.digest] == region.cluster
    parts = [_holds(part, clusters) for part in _parts(region)]
    if isinstance(region, Complement):
        return ~parts[0]
    assert isinstance(region, Intersection | Union)
    return functools.reduce(type(region).joined, parts)
