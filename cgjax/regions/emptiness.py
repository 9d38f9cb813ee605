"""Whether anything can lie in a region, told from what it is made of alone."""

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
"""Choices of one cluster of each clustering that are looked at."""


def is_empty(region: Region) -> bool:
    """Whether no latent can lie in a region that is asked for whole.

    A latent lies in exactly one cluster of each clustering, so a region is empty if it holds none
    of the ways to choose one cluster of each. Of one clustering this is exact; clusters of several
    are taken to meet in every way.

    Args:
        region: without a margin.
    """
    clusterings = {one.digest: one for one in _clusterings(region)}
    if math.prod(one.num for one in clusterings.values()) > MAX_CASES:
        return False
    chosen = np.ix_(*(np.arange(one.num) for one in clusterings.values()))
    return not np.any(_holds(region, dict(zip(clusterings, chosen, strict=True))))


def _clusterings(region: Region) -> Iterator[Clustering]:
    if isinstance(region, ClusterRegion):
        yield region.clustering
    for part in _parts(region):
        yield from _clusterings(part)


def _parts(region: Region) -> tuple[Region, ...]:
    if isinstance(region, Complement):
        return (region.region,)
    return region.parts if isinstance(region, Intersection | Union) else ()


def _holds(region: Region, chosen: Mapping[str, Any]) -> Any:
    """Return whether a region holds a choice: by a clustering's digest the id of a cluster."""
    if isinstance(region, ClusterRegion):
        return chosen[region.clustering.digest] == region.cluster
    parts = [_holds(part, chosen) for part in _parts(region)]
    if isinstance(region, Complement):
        return ~parts[0]
    assert isinstance(region, Intersection | Union)
    return functools.reduce(type(region).joined, parts)
