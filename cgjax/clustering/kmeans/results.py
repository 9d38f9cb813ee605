"""The result of a clustering, and the order of its clusters.

Symbols: n rows, f features, k clusters, r restarts. Rows of padding have weight 0, all others 1.
With `axis_name`, the mesh axis over which the rows are split, labels and weights are those of this
shard and everything that is counted is summed over all shards.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from cgjax.clustering.assignment import Assignment
from cgjax.clustering.kmeans.state import KMeansState
from cgjax.runtime.mesh import all_min, all_sum


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


class BestRestart(NamedTuple):
    """The restart with the smallest objective, before the final assignment of the rows.

    Attributes:
        centroids: (k, f) float32.
        labels: (n,) int32, those of its last step; the centroids have moved since.
        num_iter, converged, inertias: as in `KMeansResult`.
    """

    centroids: Float[Array, "k f"]
    labels: Int[Array, " n"]
    num_iter: Int[Array, ""]
    converged: Bool[Array, ""]
    inertias: Float[Array, " r"]


@jax.jit
def best_of(state: KMeansState, offset: Float[Array, " f"]) -> BestRestart:
    """Return the best restart of a state whose centroids are relative to the offset."""
    best = jnp.argmin(state.inertias)
    return BestRestart(
        centroids=state.centroids[best] + offset[None, :],
        labels=state.labels[:, best],
        num_iter=state.num_iter[best],
        converged=state.is_done[best],
        inertias=state.inertias,
    )


def _canonical_order(
    labels: Int[Array, " n"], weights: Float[Array, " n"], num_clusters: int, axis_name: str | None
) -> tuple[Int[Array, " k"], Int[Array, " k"]]:
    """Return the clusters by descending share, ties by first member, and each one's members."""
    num_rows = labels.shape[0]
    begin = jnp.int32(0) if axis_name is None else jax.lax.axis_index(axis_name) * num_rows
    index = begin + jnp.arange(num_rows, dtype=jnp.int32)
    cluster = jnp.where(weights > 0.0, labels, num_clusters)
    counts = jnp.zeros(num_clusters, jnp.int32).at[cluster].add(1, mode="drop")
    never = jnp.full(num_clusters, jnp.iinfo(jnp.int32).max, jnp.int32)
    first = never.at[cluster].min(index, mode="drop")
    counts, first = all_sum(counts, axis_name), all_min(first, axis_name)
    return jnp.lexsort((first, -counts)).astype(jnp.int32), counts


def in_canonical_order(
    result: KMeansResult, weights: Float[Array, " n"], *, axis_name: str | None = None
) -> KMeansResult:
    """Return a result with its members counted (again) and its clusters by descending share."""
    order, counts = _canonical_order(result.labels, weights, len(result.centroids), axis_name)
    return result._replace(
        centroids=result.centroids[order],
        labels=jnp.argsort(order).astype(jnp.int32)[result.labels],
        counts=counts[order],
    )


def order_centroids(
    best: BestRestart, weights: Float[Array, " n"], *, axis_name: str | None = None
) -> BestRestart:
    """Put centroids in the canonical order of the last step's labels, which become meaningless."""
    order, _ = _canonical_order(best.labels, weights, len(best.centroids), axis_name)
    return best._replace(centroids=best.centroids[order])


def describe(
    best: BestRestart,
    assigned: Assignment,
    weights: Float[Array, " n"],
    *,
    axis_name: str | None = None,
) -> KMeansResult:
    """Join a restart and the assignment of every row to its centroids, in canonical order.

    The labels of `best` are those of its last step and not used here.
    """
    result = KMeansResult(
        centroids=best.centroids,
        labels=assigned.labels,
        inertia=all_sum(jnp.sum(assigned.squared_distances * weights), axis_name),
        num_iter=best.num_iter,
        converged=best.converged,
        margins=assigned.margins,
        counts=jnp.zeros((len(best.centroids),), jnp.int32),
        inertias=best.inertias,
    )
    return in_canonical_order(result, weights, axis_name=axis_name)
