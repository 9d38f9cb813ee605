"""What a clustering is, and in which order its clusters are named.

Symbols: n rows, f features, k clusters, r restarts.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


class KMeansResult(NamedTuple):
    """A clustering, in canonical order: clusters by descending share, ties by first member.

    Attributes:
        centroids: (k, f) float32.
        labels: (n,) int32, nearest centroid, lowest id on ties.
        inertia: () float32, sum of squared distances to the own centroid.
        num_iter: () int32, iterations of the restart that was kept.
        converged: () bool, whether it stopped by tolerance rather than by `max_iter`.
        margins: (n,) float32, distance to the nearest other centroid minus that to the own one.
        counts: (k,) int32, members of each cluster.
        inertias: (r,) float32, what each restart reached.
    """

    centroids: Float[Array, "k f"]
    labels: Int[Array, " n"]
    inertia: Float[Array, ""]
    num_iter: Int[Array, ""]
    converged: Bool[Array, ""]
    margins: Float[Array, " n"]
    counts: Int[Array, " k"]
    inertias: Float[Array, " r"]


def in_canonical_order(result: KMeansResult, labels: Int[np.ndarray, " n"]) -> KMeansResult:
    """Return a result with these labels, counted, its clusters named by descending share."""
    order = canonical_order(labels, len(result.centroids))
    labels = np.argsort(order).astype(np.int32)[labels]
    return result._replace(
        centroids=result.centroids[order],
        labels=jnp.asarray(labels),
        counts=jnp.asarray(np.bincount(labels, minlength=len(order)), jnp.int32),
    )


def canonical_order(labels: Int[np.ndarray, " n"], num_clusters: int) -> Int[np.ndarray, " k"]:
    """Return the clusters by descending share, ties by first member."""
    counts = np.bincount(labels, minlength=num_clusters)
    first = np.full(num_clusters, len(labels))
    np.minimum.at(first, labels, np.arange(len(labels)))
    return np.lexsort((first, -counts))
