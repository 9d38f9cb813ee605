"""Regions made of regions: what lies in all of them, in any, or outside of one."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Array, Bool

from cgjax.regions.clustering import Clustering
from cgjax.regions.query import quoted
from cgjax.regions.region import WHOLE, ClusterRegion, Features, MarginRange, Region


@dataclasses.dataclass(frozen=True, eq=False)
class _Compound:
    """What intersections and unions have in common.

    Attributes:
        parts: regions of clusterings of the same latents, at least one.
        symbol: as it is typed between them.
        joined: what it does to two arrays of booleans.
    """

    parts: tuple[Region, ...]
    symbol: ClassVar[str]
    joined: ClassVar[Callable[[Any, Any], Any]]

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers of all parts, each once."""
        return tuple(dict.fromkeys(layer for part in self.parts for layer in part.layers))

    @property
    def share(self) -> float:
        """Its share of the clustered latents."""
        return float(self.members().mean())

    def contains(self, features: Features) -> Bool[Array, " n"]:
        """Whether latents belong to it; a layer's features are asked for once."""
        once = functools.cache(features)
        return functools.reduce(type(self).joined, (part.contains(once) for part in self.parts))

    def members(self) -> Bool[np.ndarray, " n"]:
        """Which of the clustered latents belong to it."""
        return functools.reduce(type(self).joined, (part.members() for part in self.parts))

    def with_margin(self, margin: MarginRange) -> Region:
        """Return it with the margin applied to every part."""
        return type(self)(tuple(part.with_margin(margin) for part in self.parts))

    def proposal(self, clustering: Clustering) -> ClusterRegion | None:
        """Return None: no cluster is known to hold all of it."""
        return None

    def __str__(self) -> str:
        """Return it as a query."""
        return f" {self.symbol} ".join(_grouped(part) for part in self.parts)


class Intersection(_Compound):
    """What lies in all parts."""

    symbol = "&"
    joined = operator.and_

    def proposal(self, clustering: Clustering) -> ClusterRegion | None:
        """Return the smallest of the parts' proposals: each holds all of the intersection."""
        found = (part.proposal(clustering) for part in self.parts)
        return min((p for p in found if p is not None), key=lambda p: p.share, default=None)


class Union(_Compound):
    """What lies in any part."""

    symbol = "|"
    joined = operator.or_


class Complement(NamedTuple):
    """What lies outside of a region.

    Attributes:
        region: the region.
    """

    region: Region

    @property
    def layers(self) -> tuple[str, ...]:
        """The region's layers."""
        return self.region.layers

    @property
    def share(self) -> float:
        """Its share of the clustered latents."""
        return float(self.members().mean())

    def contains(self, features: Features) -> Bool[Array, " n"]:
        """Whether latents lie outside of the region."""
        return ~self.region.contains(features)

    def members(self) -> Bool[np.ndarray, " n"]:
        """Which of the clustered latents lie outside of the region."""
        return ~self.region.members()

    def with_margin(self, margin: MarginRange) -> Complement:
        """Return it as it is: what is left out is left out whole, its unclear part too."""
        return self

    def proposal(self, clustering: Clustering) -> ClusterRegion | None:
        """Return None: no cluster holds all that lies outside of another."""
        return None

    def __str__(self) -> str:
        """Return it as a query."""
        if isinstance(self.region, ClusterRegion) and self.region.margin == WHOLE:
            return _term(self.region, "!=")
        return f"!{_grouped(self.region)}"


def _term(region: ClusterRegion, operator: str = "=") -> str:
    return f"{quoted(region.clustering.id)}{operator}{region.cluster}"


def _grouped(region: Region) -> str:
    """Return a region as it is typed within a query, in parentheses where they are needed."""
    if isinstance(region, ClusterRegion):
        part = "" if region.margin == WHOLE else f", margin {region.margin}"
        return _term(region) + part
    return f"({region})" if isinstance(region, _Compound) else str(region)
