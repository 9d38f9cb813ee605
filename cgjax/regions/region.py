"""Regions of the latent space: what can be drawn, verified, evaluated and named.

A region is a predicate on latents. The caller passes it the generator's features by layer, so that
a region of several layers is used like a cluster of one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from cgjax.config.quantiles import EXPECTED, parse_quantiles
from cgjax.config.rules import shown
from cgjax.errors import UserError
from cgjax.regions.clustering import Clustering

LayerFeatures = Callable[[str], Array]
"""A layer's name -> the (n, f) features of the latents in question."""


class MarginRange(NamedTuple):
    """The part of a cluster between two quantiles of its members' margins: the dial `--margin`.

    Raising `low` leaves out the members that barely belong, so the others show the cluster's
    attribute more strongly, but also lie farther from the cluster's mean. Lowering `high` undoes
    the latter by leaving out the extreme members, which the attribute does not need.

    Attributes:
        low: quantile below which members are left out, from 0.
        high: quantile above which members are left out, up to 1.
    """

    low: float = 0.0
    high: float = 1.0

    @classmethod
    def parse(cls, margin: float | str | Sequence[float], option: str = "--margin") -> MarginRange:
        """Parse a margin as a user types it: one quantile, for the part above it, or two.

        Args:
            margin: 0.6, "0.6", "0.55:0.8" or (0.55, 0.8).
            option: the flag it was given with, for the error.

        Raises:
            UserError: it is neither, or the range is empty.

        Example:
            >>> MarginRange.parse(0.6), MarginRange.parse("0.55:0.8")
            (MarginRange(low=0.6, high=1.0), MarginRange(low=0.55, high=0.8))
        """
        quantiles = parse_quantiles(margin)
        if quantiles is None:
            raise UserError(f"{option}={shown(margin)}: expected {EXPECTED}")
        return cls(*quantiles)

    def __str__(self) -> str:
        """Return the range as it is typed."""
        return f"{self.low:g}" if self.high == 1 else f"{self.low:g}:{self.high:g}"


WHOLE = MarginRange()
"""The whole cluster."""


@runtime_checkable
class Region(Protocol):
    """A part of the latent space.

    Attributes:
        layers: the layers whose features it needs.
        share: its share of the prior, estimated from the clustered latents.
        margin: the part of every cluster that it asks for.
        fingerprint: equal for the same clusters combined in the same way, whatever the margin.
    """

    @property
    def layers(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def share(self) -> float: ...  # noqa: D102

    @property
    def margin(self) -> MarginRange: ...  # noqa: D102

    @property
    def fingerprint(self) -> str: ...  # noqa: D102

    def contains(self, features: LayerFeatures) -> Bool[Array, " n"]:
        """Return which latents belong to the region, from their features."""
        ...

    def members(self) -> Bool[np.ndarray, " n"]:
        """Return which of the clustered latents belong to it, from their labels and margins."""
        ...

    def depth(self, features: LayerFeatures) -> Float[Array, " n"]:
        """Return the largest `--margin` at which latents still belong to it; -1 if they never do.

        For a whole region, `with_margin(MarginRange(m))` holds the latents at least m deep.
        """
        ...

    def with_margin(self, margin: MarginRange) -> Region:
        """Return its part within a margin range of the clusters it is made of."""
        ...

    def proposal(self, clustering: Clustering) -> ClusterRegion | None:
        """Return the smallest cluster of a clustering, or part of one, that holds the whole region.

        A sampler fitted on the clustering draws from that cluster. None if no cluster is known to
        hold the region: then only the prior proposes latents from all of it.
        """
        ...


class ClusterRegion(NamedTuple):
    """A cluster, or the part of it within a range of its margins.

    Attributes:
        clustering: the clustering that the cluster belongs to.
        cluster: its id.
        margin: the part of the cluster.
    """

    clustering: Clustering
    cluster: int
    margin: MarginRange = WHOLE

    @property
    def layers(self) -> tuple[str, ...]:
        """The clustered layer."""
        return (self.clustering.layer,)

    @property
    def share(self) -> float:
        """The region's share of the clustered latents."""
        self._check()
        whole = float(self.clustering.shares[self.cluster])
        return whole * (self.margin.high - self.margin.low)

    def _check(self) -> None:
        if not 0 <= self.cluster < self.clustering.num:
            raise UserError(
                f"cluster {self.cluster}: {self.clustering.id} has the clusters 0 to "
                f"{self.clustering.num - 1}"
            )

    @property
    def limits(self) -> tuple[float, float]:
        """The smallest and the largest margin of a member; infinite if nothing is left out.

        Raises:
            UserError: no such cluster; or part of a cluster is asked for that has no members, and
                so no quantiles.
        """
        self._check()
        own = self.clustering.margins[self.clustering.labels == self.cluster]
        if self.margin != WHOLE and not len(own):
            raise UserError(
                f"--margin={self.margin}: cluster {self.cluster} has no members, and so no "
                "margins; omit --margin or choose another --cluster"
            )
        low = float(np.quantile(own, self.margin.low)) if self.margin.low > 0 else -np.inf
        high = float(np.quantile(own, self.margin.high)) if self.margin.high < 1 else np.inf
        return low, high

    def contains(self, features: LayerFeatures) -> Bool[Array, " n"]:
        """Return which latents are assigned to the cluster with a margin within the limits."""
        return self._holds(*self.clustering.assign(features(self.clustering.layer)))

    def members(self) -> Bool[np.ndarray, " n"]:
        """Return which of the clustered latents belong to the region."""
        return self._holds(self.clustering.labels, self.clustering.margins)

    def _holds(self, labels: Any, margins: Any) -> Any:
        low, high = self.limits
        return (labels == self.cluster) & (margins >= low) & (margins <= high)

    @property
    def fingerprint(self) -> str:
        """The clustering's digest and the cluster."""
        return f"{self.clustering.id}:{self.clustering.digest}={self.cluster}"

    def depth(self, features: LayerFeatures) -> Float[Array, " n"]:
        """Return each margin's quantile among the members' margins; -1 outside the cluster."""
        labels, margins = self.clustering.assign(features(self.clustering.layer))
        own = np.sort(self.clustering.margins[self.clustering.labels == self.cluster])
        if not len(own):
            return jnp.where(labels == self.cluster, 0.0, -1.0)
        # The inverse of the quantiles in `limits`; equal margins take the last one's.
        last = len(own) - 1
        above = jnp.searchsorted(own, margins, side="right")
        low, high = (jnp.asarray(own)[jnp.clip(i, 0, last)] for i in (above - 1, above))
        part = jnp.where(high > low, (margins - low) / jnp.where(high > low, high - low, 1.0), 0.0)
        levels = ((above - 1).astype(jnp.float32) + part) / max(last, 1)
        levels = jnp.where(above > last, 1.0, jnp.clip(levels, 0.0, 1.0))
        return jnp.where(labels == self.cluster, levels, -1.0)

    def with_margin(self, margin: MarginRange) -> ClusterRegion:
        """Return another part of the same cluster."""
        return self._replace(margin=margin)

    def proposal(self, clustering: Clustering) -> ClusterRegion | None:
        """Return the region itself if it belongs to the clustering."""
        # Not by the id, which a clustering inside a cluster may share.
        return self if clustering.digest == self.clustering.digest else None

    def __str__(self) -> str:
        """Return the region as typed after --cluster and --margin."""
        return f"{self.cluster}" + ("" if self.margin == WHOLE else f", margin {self.margin}")
