"""Conditional GANs whose labels do not depend on the discriminator."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from jaxtyping import Array, Int, PRNGKeyArray

from cgjax.clustering import kmeans
from cgjax.endtoend.data import Points
from cgjax.endtoend.methods.base import (
    Features,
    Method,
    UniformLabels,
    label_all,
    uniform_labels,
)
from cgjax.endtoend.state import Partition


@dataclasses.dataclass(frozen=True)
class ClassConditional(Method):
    """The true classes are the labels [Mirza & Osindero 2014]."""

    def start(self, key: PRNGKeyArray, points: Points, features: Features) -> Partition:
        """Return the true classes."""
        return Partition.unclustered(points.classes)


@dataclasses.dataclass(frozen=True)
class RandomLabels(UniformLabels):
    """A fresh uniform label for every row in every iteration."""

    def label(
        self,
        key: PRNGKeyArray,
        partition: Partition,
        rows: Int[Array, " b"],
        features: Callable[[], Array],
    ) -> tuple[Int[Array, " b"], Partition]:
        """Draw the labels."""
        return uniform_labels(key, len(rows), self.num_labels), partition


@dataclasses.dataclass(frozen=True)
class FixedClusters(Method):
    """Labels from one k-means before training, on fixed features [Sage et al. 2018].

    Attributes:
        num: number of training rows to cluster, the first ones; all rows are then labelled.
        num_init: number of k-means restarts.
        max_iter: maximum number of k-means iterations.
        fixed_features: name of the features; see `FixedFeatures`.
    """

    num: int = 10_000
    num_init: int = 10
    max_iter: int = 100
    fixed_features: str = "rows"

    def start(self, key: PRNGKeyArray, points: Points, features: Features) -> Partition:
        """Cluster the rows by the features."""
        result = kmeans(
            features(points.rows[: self.num]),
            self.num_labels,
            key=key,
            num_init=self.num_init,
            max_iter=self.max_iter,
        )
        return label_all(points.rows, features, result.centroids)
