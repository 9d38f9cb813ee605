"""Regions made of regions: what lies in all of them, in any, or outside of one."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

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
        extreme: which of the depths in the parts is that in the whole.
    """

    parts: tuple[Region, ...]
    symbol: ClassVar[str]
    joined: ClassVar[Callable[[Any, Any], Any]]
    extreme: ClassVar[Callable[..., Any]]

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers of all parts, each once."""
        return tuple(dict.fromkeys(layer for part in self.parts for layer in part.layers))

    @property
    def share(self) -> float:
        """Its share of the clustered latents."""
        return float(self.members().mean())

    @property
    def margin(self) -> MarginRange:
        """The part of the clusters it asks for, the same of all of them."""
        return max((part.margin for part in self.parts), key=lambda m: (m.low, -m.high))

    @property
    def fingerprint(self) -> str:
        """Those of the parts, in any order."""
        return f"({self.symbol.join(sorted(part.fingerprint for part in self.parts))})"

    def depth(self, features: Features) -> Float[Array, " n"]:
        """Return the least depth in the parts of an intersection, the greatest in a union's."""
        once = functools.cache(features)
        return type(self).extreme(jnp.stack([part.depth(once) for part in self.parts]), axis=0)

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
    extreme = staticmethod(jnp.min)

    def proposal(self, clustering: Clustering) -> ClusterRegion | None:
        """Return the smallest of the parts' proposals: each holds all of the intersection."""
        found = (part.proposal(clustering) for part in self.parts)
        return min((p for p in found if p is not None), key=lambda p: p.share, default=None)


class Union(_Compound):
    """What lies in any part."""

    symbol = "|"
    joined = operator.or_
    extreme = staticmethod(jnp.max)


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

    @property
    def margin(self) -> MarginRange:
        """None is applied."""
        return WHOLE

    @property
    def fingerprint(self) -> str:
        """The region's, negated."""
        return f"!{self.region.fingerprint}"

    def depth(self, features: Features) -> Float[Array, " n"]:
        """Return 1 outside of the region: what is left out is left out at every margin."""
        return jnp.where(self.contains(features), 1.0, -1.0)

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
