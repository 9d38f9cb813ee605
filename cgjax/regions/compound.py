"""Regions made of regions: intersections, unions and complements."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from cgjax.config.splits import shown_path
from cgjax.regions.clustering import Clustering
from cgjax.regions.query import quoted
from cgjax.regions.region import WHOLE, ClusterRegion, LayerFeatures, MarginRange, Region


@dataclasses.dataclass(frozen=True, eq=False)
class _Compound:
    """What intersections and unions share.

    Attributes:
        parts: regions of clusterings of the same latents, at least one.
        symbol: the operator typed between them.
        joined: the same operator on two boolean arrays.
        extreme: reduces the depths in the parts to the depth in the whole.
    """

    parts: tuple[Region, ...]
    symbol: ClassVar[str]
    joined: ClassVar[Callable[[Any, Any], Any]]
    extreme: ClassVar[Callable[..., Any]]

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers of all parts, without repetition."""
        return tuple(dict.fromkeys(layer for part in self.parts for layer in part.layers))

    @property
    def share(self) -> float:
        """The region's share of the clustered latents."""
        return float(self.members().mean())

    @property
    def margin(self) -> MarginRange:
        """The margin range of the clusters it asks for, the same for all of them."""
        return max((part.margin for part in self.parts), key=lambda m: (m.low, -m.high))

    @property
    def fingerprint(self) -> str:
        """The parts' fingerprints, whatever their order."""
        return f"({self.symbol.join(sorted(part.fingerprint for part in self.parts))})"

    def depth(self, features: LayerFeatures) -> Float[Array, " n"]:
        """Return the smallest depth in an intersection's parts, the largest in a union's."""
        features = functools.cache(features)
        return type(self).extreme(jnp.stack([part.depth(features) for part in self.parts]), axis=0)

    def contains(self, features: LayerFeatures) -> Bool[Array, " n"]:
        """Return which latents belong to the region; each layer's features are computed once."""
        features = functools.cache(features)
        return functools.reduce(type(self).joined, (part.contains(features) for part in self.parts))

    def members(self) -> Bool[np.ndarray, " n"]:
        """Return which of the clustered latents belong to the region."""
        return functools.reduce(type(self).joined, (part.members() for part in self.parts))

    def with_margin(self, margin: MarginRange) -> Region:
        """Return the region with the margin applied to every part."""
        return type(self)(tuple(part.with_margin(margin) for part in self.parts))

    def proposal(self, clustering: Clustering) -> ClusterRegion | None:
        """Return None: no cluster is known to hold the whole region."""
        return None

    def __str__(self) -> str:
        """Return the region as a query."""
        return as_query(self)


class Intersection(_Compound):
    """The latents in all parts."""

    symbol = "&"
    joined = operator.and_
    extreme = staticmethod(jnp.min)

    def proposal(self, clustering: Clustering) -> ClusterRegion | None:
        """Return the smallest of the parts' proposals: each holds the whole intersection."""
        proposals = (part.proposal(clustering) for part in self.parts)
        return min((p for p in proposals if p is not None), key=lambda p: p.share, default=None)


class Nested(Intersection):
    """A cluster inside clusters: the latents in the cluster of every level, from the top down."""

    parts: tuple[ClusterRegion, ...]


class Union(_Compound):
    """The latents in any part."""

    symbol = "|"
    joined = operator.or_
    extreme = staticmethod(jnp.max)


class Complement(NamedTuple):
    """The latents outside a region.

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
        """The region's share of the clustered latents."""
        return float(self.members().mean())

    @property
    def margin(self) -> MarginRange:
        """The whole range: a complement has no margin."""
        return WHOLE

    @property
    def fingerprint(self) -> str:
        """The region's, negated."""
        return f"!{self.region.fingerprint}"

    def depth(self, features: LayerFeatures) -> Float[Array, " n"]:
        """Return 1 outside the region and -1 inside: exclusion does not depend on the margin."""
        return jnp.where(self.contains(features), 1.0, -1.0)

    def contains(self, features: LayerFeatures) -> Bool[Array, " n"]:
        """Return which latents lie outside the region."""
        return ~self.region.contains(features)

    def members(self) -> Bool[np.ndarray, " n"]:
        """Return which of the clustered latents lie outside the region."""
        return ~self.region.members()

    def with_margin(self, margin: MarginRange) -> Complement:
        """Return the complement unchanged: it excludes the whole region, unclear part included."""
        return self

    def proposal(self, clustering: Clustering) -> ClusterRegion | None:
        """Return None: no cluster holds everything outside another."""
        return None

    def __str__(self) -> str:
        """Return the region as a query."""
        return as_query(self)


def as_query(region: Region, id_of: Callable[[Clustering], str] = lambda one: one.id) -> str:
    """Return a region as typed after --cluster, and the margins of its clusters.

    Args:
        region: a cluster, a path to a cluster inside clusters, or a compound of such.
        id_of: a clustering -> its id in the run, where several may have the same `Clustering.id`.
    """
    if isinstance(region, Complement):
        part = region.region
        if isinstance(part, ClusterRegion) and part.margin == WHOLE:
            return f"{quoted(id_of(part.clustering))}!={part.cluster}"
        return f"!{_grouped(part, id_of)}"
    if isinstance(region, ClusterRegion):
        text = f"{quoted(id_of(region.clustering))}={region.cluster}"
    elif isinstance(region, Nested):
        text = shown_path(tuple(part.cluster for part in region.parts))
    else:
        assert isinstance(region, _Compound)
        return f" {region.symbol} ".join(_grouped(part, id_of) for part in region.parts)
    return text if region.margin == WHOLE else f"{text}, margin {region.margin}"


def _grouped(region: Region, id_of: Callable[[Clustering], str]) -> str:
    """Return a region as typed within a query, in parentheses if needed."""
    text = as_query(region, id_of)
    is_several = isinstance(region, _Compound) and not isinstance(region, Nested)
    return f"({text})" if is_several else text
