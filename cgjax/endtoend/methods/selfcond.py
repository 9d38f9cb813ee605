r"""Self-Conditioned GAN: labels from clusters of the discriminator's own features.

[Liu et al. 2020]. Every few thousand iterations the rows are clustered again. k-means starts at the
old partition's means in the new features (eq. 3),

    mu_c = mean of D_f(x) over x in pi_c^old,

and the new clusters take over the old labels so that the fewest rows change label (eq. 4),

    min over permutations rho of sum_c |pi_c^old \ pi_rho(c)^new|.

The reference code labels each batch with a frozen copy of the discriminator. A training row's label
does not change between two clusterings, so here all rows are labelled once per clustering and
looked up; a mirrored row keeps the label of the unmirrored one.
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
from cgjax.endtoend.methods.base import Features, Method, label_all
from cgjax.endtoend.state import Partition
from cgjax.numerics.cross_tables import cross_table
from cgjax.runtime.keys import named_key


@dataclasses.dataclass(frozen=True)
class SelfConditioned(Method):
    """Hyper-parameters; the last three are the ablations.

    Attributes:
        every: number of iterations between two clusterings.
        num: number of training rows to cluster, the first ones, as their order is random; all rows
            are then labelled.
        num_init: number of restarts of the first k-means, and of later ones without `initialise`.
        max_iter: maximum number of k-means iterations.
        initialise: whether k-means starts at the old partition's means (eq. 3).
        match: whether new clusters take over the old labels (eq. 4).
        supervised: whether the first partition is the true classes.
    """

    every: int = 10_000
    num: int = 10_000
    num_init: int = 10
    max_iter: int = 100
    initialise: bool = True
    match: bool = True
    supervised: bool = False

    def next_reclustering(self, after: int) -> int | None:
        """Return the next multiple of `every`."""
        return (after // self.every + 1) * self.every

    def start(self, key: PRNGKeyArray, points: Points, features: Features) -> Partition:
        """Cluster by the random discriminator's features, or take the true classes."""
        known = features(points.rows[: self.num])
        if self.supervised:
            classes = np.asarray(points.classes)
            means = induced_means(key, known, classes[: self.num], self.num_labels)
            return Partition.clustered(points.classes, means)
        result = self._cluster(key, known)
        return label_all(points.rows, features, result.centroids)

    def recluster(
        self, key: PRNGKeyArray, points: Points, features: Features, partition: Partition
    ) -> Partition:
        """Cluster again and match the labels."""
        old = np.asarray(partition.labels[: self.num])
        known = features(points.rows[: self.num])
        if self.initialise:
            begin = induced_means(named_key(key, "refill"), known, old, self.num_labels)
            result = self._cluster(key, known, begin)
            order = same_order(begin, np.asarray(result.centroids))
        else:
            result = self._cluster(key, known)
            order = np.arange(self.num_labels)
        labels = np.argsort(order)[np.asarray(result.labels)]
        if self.match:
            order = order[matched_order(labels, old, self.num_labels)]
        return label_all(points.rows, features, result.centroids[order])

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

    Each row of a batch is assigned by the current discriminator's features f; then n_c += 1 and
    mu_c += (f - mu_c) / n_c. The whole batch is assigned before any centroid moves, so the updates
    of one cluster combine into one. k-means runs at the start and once more, from the induced
    means, after the first iteration, as in the authors' code. The counts are never reset, so the
    updates decay. The labels of that one re-clustering are matched to those of the start, which
    changes their order alone.
    """

    def next_reclustering(self, after: int) -> int | None:
        """Return 1, once."""
        return 1 if after < 1 else None

    def relabel(self, points: Points, features: Features, partition: Partition) -> Partition:
        """Label all rows: a stored label dates from the last batch that the row was in."""
        current = label_all(points.rows, features, partition.centroids)
        return current._replace(counts=partition.counts)

    def label(
        self,
        key: PRNGKeyArray,
        partition: Partition,
        rows: Int[Array, " b"],
        features: Callable[[], Array],
    ) -> tuple[Int[Array, " b"], Partition]:
        """Assign the batch and move the centroids."""
        batch = features()
        labels = assign_rows(batch, partition.centroids).labels
        one_hot = jax.nn.one_hot(labels, self.num_labels, dtype=jnp.float32)
        added = jnp.sum(one_hot, axis=0)
        counts = partition.counts + added
        total = partition.counts[:, None] * partition.centroids + one_hot.T @ batch
        moved = total / jnp.maximum(counts, 1.0)[:, None]
        centroids = jnp.where(added[:, None] > 0, moved, partition.centroids)
        all_labels = partition.labels.at[rows].set(labels)
        return labels, Partition(all_labels, centroids, counts)


def induced_means(
    key: PRNGKeyArray,
    features: Float[Array, "n f"],
    labels: Int[np.ndarray, " n"],
    num_labels: int,
) -> Float[np.ndarray, "k f"]:
    """Return an old partition's means in new features [Liu et al. 2020, eq. 3].

    Args:
        key: draws the rows that replace the means of empty clusters.
        features: of the clustered rows.
        labels: the old partition of the same rows.
        num_labels: k.

    Returns:
        (k, f) float32. An empty cluster's mean is a random row, a different one for each such
        cluster while there are enough.
    """
    rows = np.asarray(features, np.float64)
    counts = np.bincount(labels, minlength=num_labels)
    sums = np.zeros((num_labels, rows.shape[1]))
    np.add.at(sums, labels, rows)
    means = sums / np.maximum(counts, 1)[:, None]
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        drawn = jax.random.choice(key, len(rows), (len(empty),), replace=len(empty) > len(rows))
        means[empty] = rows[np.asarray(drawn)]
    return means.astype(np.float32)


def same_order(
    begin: Float[np.ndarray, "k f"], end: Float[np.ndarray, "k f"]
) -> Int[np.ndarray, " k"]:
    """Return the index of the final centroid that each initial one became.

    k-means returns its clusters sorted by share. The pairing with the least total squared distance
    undoes that, so without matching a cluster keeps the label of the mean it started from.
    """
    return np.asarray(linear_sum_assignment(cdist(begin, end, "sqeuclidean"))[1])


def matched_order(
    new: Int[np.ndarray, " n"], old: Int[np.ndarray, " n"], num_labels: int
) -> Int[np.ndarray, " k"]:
    """Return the new cluster that takes each old label [Liu et al. 2020, eq. 4].

    Args:
        new: labels of rows.
        old: the same rows' labels before.
        num_labels: k, the same for both.

    Returns:
        The permutation under which the most rows keep their label.

    Example:
        >>> matched_order(np.array([1, 1, 0]), np.array([0, 0, 1]), 2).tolist()
        [1, 0]
    """
    overlap = cross_table(old, new, (num_labels, num_labels))
    return np.asarray(linear_sum_assignment(overlap, maximize=True)[1])
