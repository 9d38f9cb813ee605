"""Regions of the latent space: what can be drawn, verified, evaluated and named.

A region is a predicate on latents. Whoever asks one gives it the generator's features by layer, so
that a region of several layers is asked like a cluster of one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from cgjax.config.quantiles import EXPECTED, parse_quantiles
from cgjax.config.rules import shown
from cgjax.errors import UserError
from cgjax.regions.clustering import Clustering

Features = Callable[[str], Array]
"""A layer's name -> the (n, f) features of the latents that are asked about."""


class MarginRange(NamedTuple):
    """The part of a cluster between two quantiles of its members' margins: the dial `--margin`.

    Raising `low` leaves out the members that hardly belong, which is the cluster's attribute at
    greater strength. What it costs is that the rest lies further from the cluster's mean; lowering
    `high` gives that back by leaving out the extreme members, which the attribute does not need.

    Attributes:
        low: quantile below which members are left out, from 0.
        high: quantile above which they are, up to 1.
    """

    low: float = 0.0
    high: float = 1.0

    @classmethod
    def parse(cls, margin: float | str | Sequence[float], option: str = "--margin") -> MarginRange:
        """Read a margin as a user gives it: one quantile, for the part above it, or two.

        Args:
            margin: 0.6, "0.6", "0.55:0.8" or (0.55, 0.8).
            option: where it stood, for the error.

        Raises:
            UserError: if it is neither, or nothing would be left.

        Example:
            >>> MarginRange.parse(0.6), MarginRange.parse("0.55:0.8")
            (MarginRange(low=0.6, high=1.0), MarginRange(low=0.55, high=0.8))
        """
        quantiles = parse_quantiles(margin)
        if quantiles is None:
            raise UserError(f"{option}={shown(margin)}: expected {EXPECTED}")
        return cls(*quantiles)

    def __str__(self) -> str:
        """Return it as it is typed."""
        return f"{self.low:g}" if self.high == 1 else f"{self.low:g}:{self.high:g}"


WHOLE = MarginRange()
"""The cluster as it is."""


@runtime_checkable
class Region(Protocol):
    """A part of the latent space.

    Attributes:
        layers: the layers whose features it has to see.
        share: its share of the prior, as far as the clustered latents tell.
        margin: the part of every cluster that it asks for.
        fingerprint: the same for the same clusters combined in the same way, whatever the margin.
    """

    @property
    def layers(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def share(self) -> float: ...  # noqa: D102

    @property
    def margin(self) -> MarginRange: ...  # noqa: D102

    @property
    def fingerprint(self) -> str: ...  # noqa: D102

    def contains(self, features: Features) -> Bool[Array, " n"]:
        """Whether latents belong to it, from their features."""
        ...

    def members(self) -> Bool[np.ndarray, " n"]:
        """Which of the clustered latents belong to it, from their labels and margins."""
        ...

    def depth(self, features: Features) -> Float[Array, " n"]:
        """Return the greatest `--margin` at which latents still belong to it; -1 if they never do.

        Of a region asked for whole: `with_margin(MarginRange(m))` holds what is at least m deep.
        """
        ...

    def with_margin(self, margin: MarginRange) -> Region:
        """Return its part within a range of the margins of the clusters it is made of."""
        ...

    def proposal(self, clustering: Clustering) -> ClusterRegion | None:
        """Return the smallest cluster of a clustering, or part of one, that holds all of it.

        A sampler that was fitted on the clustering draws from that cluster. None where no cluster
        is known to hold it: then only the prior proposes latents from everywhere in it.
        """
        ...


class ClusterRegion(NamedTuple):
    """A cluster, or the part of it within a range of its margins.

    Attributes:
        clustering: that the cluster is one of.
        cluster: its id.
        margin: the part of it.
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
        """Its share of the clustered latents."""
        whole = float(self.clustering.shares[self.cluster])
        return whole * (self.margin.high - self.margin.low)

    @property
    def limits(self) -> tuple[float, float]:
        """The least and the greatest margin of a member; infinite where nothing is left out.

        Raises:
            UserError: for a part of a cluster that has no members to tell its margins from.
        """
        own = self.clustering.margins[self.clustering.labels == self.cluster]
        if self.margin != WHOLE and not len(own):
            raise UserError(
                f"--margin={self.margin}: cluster {self.cluster} has no members, and so no "
                "margins; leave --margin out or choose another --cluster"
            )
        low = float(np.quantile(own, self.margin.low)) if self.margin.low > 0 else -np.inf
        high = float(np.quantile(own, self.margin.high)) if self.margin.high < 1 else np.inf
        return low, high

    def contains(self, features: Features) -> Bool[Array, " n"]:
        """Whether the clustering assigns latents to the cluster, with a margin within the limits.

        Args:
            features: see `Features`.
        """
        labels, margins = self.clustering.assign(features(self.clustering.layer))
        low, high = self.limits
        return (labels == self.cluster) & (margins >= low) & (margins <= high)

    def members(self) -> Bool[np.ndarray, " n"]:
        """Which of the clustered latents belong to it."""
        low, high = self.limits
        labels, margins = self.clustering.labels, self.clustering.margins
        return (labels == self.cluster) & (margins >= low) & (margins <= high)

    @property
    def fingerprint(self) -> str:
        """The clustering's digest and the cluster."""
        return f"{self.clustering.id}:{self.clustering.digest}={self.cluster}"

    def depth(self, features: Features) -> Float[Array, " n"]:
        """Return the quantile of the members' margins at which latents lie; -1 for no member."""
        labels, margins = self.clustering.assign(features(self.clustering.layer))
        own = np.sort(self.clustering.margins[self.clustering.labels == self.cluster])
        if not len(own):
            return jnp.where(labels == self.cluster, 0.0, -1.0)
        # The inverse of the quantiles in `limits`; of equal margins the last one's.
        last = len(own) - 1
        above = jnp.searchsorted(own, margins, side="right")
        low, high = (jnp.asarray(own)[jnp.clip(i, 0, last)] for i in (above - 1, above))
        part = jnp.where(high > low, (margins - low) / jnp.where(high > low, high - low, 1.0), 0.0)
        levels = ((above - 1).astype(jnp.float32) + part) / max(last, 1)
        found = jnp.where(above > last, 1.0, jnp.clip(levels, 0.0, 1.0))
        return jnp.where(labels == self.cluster, found, -1.0)

    def with_margin(self, margin: MarginRange) -> ClusterRegion:
        """Return another part of the cluster."""
        return self._replace(margin=margin)

    def proposal(self, clustering: Clustering) -> ClusterRegion | None:
        """Return the region itself, if it belongs to the clustering."""
        return self if clustering.id == self.clustering.id else None

    def __str__(self) -> str:
        """Return it as it is typed after --cluster and --margin."""
        return (
            f"{self.cluster}" if self.margin == WHOLE else f"{self.cluster}, margin {self.margin}"
        )
