r"""Self-Conditioned GAN: labels from clusters of the discriminator's own features.

[Liu et al. 2020]. Every few thousand iterations the rows are clustered again: k-means starts at the
means that the old partition has in the new features (eq. 3),

    mu_c = mean of D_f(x) over x in pi_c^old,

and the new clusters take the old ones' labels so that the fewest rows change theirs (eq. 4),

    min over permutations rho of sum_c |pi_c^old \ pi_rho(c)^new|.

The reference labels each batch with a frozen copy of the discriminator. A training row's label does
not change between two clusterings, so here all rows are labelled once and looked up; a row that
training mirrors keeps the label that it has as it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from cgjax.clustering import KMeansResult, kmeans
from cgjax.clustering.assignment import assign_rows
from cgjax.endtoend.data import Points
from cgjax.endtoend.methods.base import Features, Method, clustered, label_all
from cgjax.endtoend.state import Partition
from cgjax.numerics.partitions import cross_table
from cgjax.runtime.keys import named_key


@dataclasses.dataclass(frozen=True)
class SelfConditioned(Method):
    """Hyper-parameters; the last three are the ablations.

    Attributes:
        every: iterations between two clusterings.
        num: training rows that are clustered, the first ones, for the order of the rows is random;
            all rows are then labelled.
        num_init: restarts of the first k-means, and of later ones without `initialise`.
        max_iter: most iterations of k-means.
        initialise: whether k-means starts at the old partition's means (eq. 3).
        match: whether new clusters take the labels of old ones (eq. 4).
        supervised: whether the first partition is the true classes.
    """

    every: int = 10_000
    num: int = 10_000
    num_init: int = 10
    max_iter: int = 100
    initialise: bool = True
    match: bool = True
    supervised: bool = False

    def next_due(self, after: int) -> int | None:
        """Return the next multiple of `every`."""
        return (after // self.every + 1) * self.every

    def start(self, key: PRNGKeyArray, points: Points, features: Features) -> Partition:
        """Cluster by the features of the random discriminator, or take the true classes."""
        made = features(points.rows[: self.num])
        if self.supervised:
            classes = np.asarray(points.classes)
            means = induced_means(key, made, classes[: self.num], self.num_labels)
            return clustered(points.classes, means)
        found = self._cluster(key, made)
        return label_all(points.rows, features, found.centroids)

    def renew(
        self, key: PRNGKeyArray, points: Points, features: Features, partition: Partition
    ) -> Partition:
        """Cluster again and match."""
        old = np.asarray(partition.labels[: self.num])
        made = features(points.rows[: self.num])
        if self.initialise:
            begin = induced_means(named_key(key, "refill"), made, old, self.num_labels)
            found = self._cluster(key, made, begin)
            order = same_order(begin, np.asarray(found.centroids))
        else:
            found = self._cluster(key, made)
            order = np.arange(self.num_labels)
        labels = np.argsort(order)[np.asarray(found.labels)]
        if self.match:
            order = order[matched_order(labels, old, self.num_labels)]
        return label_all(points.rows, features, found.centroids[order])

    def _cluster(
        self, key: PRNGKeyArray, features: Array, begin: np.ndarray | None = None
    ) -> KMeansResult:
        return kmeans(
            features,
            self.num_labels,
            key=key,
            num_init=self.num_init,
            max_iter=self.max_iter,
            init="k-means++" if begin is None else begin,
        )


@dataclasses.dataclass(frozen=True)
class Online(SelfConditioned):
    """Clusters that move with every batch.

    For each row of a batch, assigned by the discriminator as it is, n_c += 1 and
    mu_c += (f - mu_c) / n_c. The batch is assigned before any centroid moves, so that the steps
    of one cluster add up to one. k-means runs at the start and once more, from the induced means,
    after the first iteration, as in the authors' code; the counts are never reset, so that the
    steps decay.
    """

    def next_due(self, after: int) -> int | None:
        """Return 1, the only time."""
        return 1 if after < 1 else None

    def relabel(self, points: Points, features: Features, partition: Partition) -> Partition:
        """Label all rows: those that are kept are as old as the last batch that a row was in."""
        found = label_all(points.rows, features, partition.centroids)
        return found._replace(counts=partition.counts)

    def label(
        self,
        key: PRNGKeyArray,
        partition: Partition,
        rows: Int[Array, " b"],
        features: Callable[[], Array],
    ) -> tuple[Int[Array, " b"], Partition]:
        """Assign the batch and move the centroids."""
        made = features()
        labels = assign_rows(made, partition.centroids).labels
        one_hot = jax.nn.one_hot(labels, self.num_labels, dtype=jnp.float32)
        added = jnp.sum(one_hot, axis=0)
        counts = partition.counts + added
        total = partition.counts[:, None] * partition.centroids + one_hot.T @ made
        moved = total / jnp.maximum(counts, 1.0)[:, None]
        centroids = jnp.where(added[:, None] > 0, moved, partition.centroids)
        known = partition.labels.at[rows].set(labels)
        return labels, Partition(known, centroids, counts)


def induced_means(
    key: PRNGKeyArray,
    features: Float[Array, "n f"],
    labels: Int[np.ndarray, " n"],
    num_labels: int,
) -> Float[np.ndarray, "k f"]:
    """Return the means of an old partition in new features [Liu et al. 2020, eq. 3].

    Args:
        key: of the rows that take the place of clusters without members.
        features: of the clustered rows.
        labels: the old partition of the same rows.
        num_labels: k.

    Returns:
        (k, f) float32; a starved cluster's is a row drawn at random, no row twice.
    """
    rows = np.asarray(features, np.float64)
    counts = np.bincount(labels, minlength=num_labels)
    sums = np.zeros((num_labels, rows.shape[1]))
    np.add.at(sums, labels, rows)
    means = sums / np.maximum(counts, 1)[:, None]
    starved = np.flatnonzero(counts == 0)
    if len(starved):
        drawn = jax.random.choice(key, len(rows), (len(starved),), replace=len(starved) > len(rows))
        means[starved] = rows[np.asarray(drawn)]
    return means.astype(np.float32)


def same_order(
    begin: Float[np.ndarray, "k f"], end: Float[np.ndarray, "k f"]
) -> Int[np.ndarray, " k"]:
    """Return which final centroid each starting one became.

    k-means returns clusters by their shares. The pairing with the least squared distance in all
    undoes that, so that without matching a cluster keeps the label of the mean it began at.
    """
    return np.asarray(linear_sum_assignment(cdist(begin, end, "sqeuclidean"))[1])


def matched_order(
    new: Int[np.ndarray, " n"], old: Int[np.ndarray, " n"], num_labels: int
) -> Int[np.ndarray, " k"]:
    """Return for each old label the new cluster that takes it [Liu et al. 2020, eq. 4].

    Args:
        new: labels of rows.
        old: labels of the same rows before.
        num_labels: k of both.

    Returns:
        A permutation: the one under which most rows keep their label.

    Example:
        >>> matched_order(np.array([1, 1, 0]), np.array([0, 0, 1]), 2).tolist()
        [1, 0]
    """
    shared = cross_table(old, new, (num_labels, num_labels))
    return np.asarray(linear_sum_assignment(shared, maximize=True)[1])
