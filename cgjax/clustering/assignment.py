"""Which cluster a feature belongs to, and how clearly.

For a feature y and centroids mu_c the assignment and its margin are

    c(y) = argmin_c ||y - mu_c||,    margin(y) = min_{c' != c(y)} ||y - mu_c'|| - ||y - mu_c(y)||

The margin is computed as a difference of squares over a sum, so that it keeps its digits when the
two distances are large and nearly equal (methods.md, section 0: the dial between the cluster as it
is and its attribute at full strength).

Symbols: y features (n, f), mu centroids (k, f), c labels (n,), k number of clusters.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cgjax.clustering.kmeans.rows import prepare, products, visit
from cgjax.clustering.kmeans.state import nearest_and_gap


class Assignment(NamedTuple):
    """What `assign_rows` says of each row.

    Attributes:
        labels: (n,) int32, nearest centroid, lowest id on ties.
        margins: (n,) float32, at least 0: Euclidean distance to the nearest other centroid minus
            that to the own one; zeros when there is one cluster.
        squared_distances: (n,) float32, squared distance to the own centroid.
    """

    labels: Int[Array, " n"]
    margins: Float[Array, " n"]
    squared_distances: Float[Array, " n"]


def assign_rows(features: Float[Array, "n f"], centroids: Float[Array, "k f"]) -> Assignment:
    """Assign all rows: O(n k f) time, O(n k) memory beside the input.

    The origin is the mean of the centroids. Where the distance to the own centroid is much smaller
    than that to the origin it is computed again from the difference.
    """
    num_rows, num_clusters = features.shape[0], centroids.shape[0]
    if num_rows == 0:
        empty = jnp.zeros((0,), jnp.float32)
        return Assignment(jnp.zeros((0,), jnp.int32), empty, empty)
    rows = prepare(features, offset=jnp.mean(centroids, axis=0))
    points = centroids - rows.offset[None, :]
    # Squared distances up to ||y||^2, which does not change the order.
    relative = products(rows, points) + jnp.sum(jnp.square(points), axis=1)[None, :]
    nearest, gap = nearest_and_gap(relative[:, None, :])
    labels, gap = nearest[:, 0], gap[:, 0]
    smallest = jnp.min(relative, axis=1)
    squared = jnp.maximum(rows.squares + smallest, 0.0)

    def exactly(squared: Array, index: Array, picked: Array, _: Array) -> Array:
        difference = picked - points[labels.at[index].get(mode="clip")]
        return squared.at[index].set(jnp.sum(jnp.square(difference), axis=1), mode="drop")

    squared = visit(rows, squared < 1e-2 * rows.squares, exactly, squared)
    if num_clusters == 1:
        return Assignment(labels, jnp.zeros_like(squared), squared)
    total = jnp.sqrt(squared) + jnp.sqrt(squared + gap)
    margins = jnp.where(total > 0.0, gap / jnp.where(total > 0.0, total, 1.0), 0.0)
    return Assignment(labels, margins, squared)


def assign_(
    features: Float[Array, "n *f"], centroids: Float[Array, "k f"]
) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
    """Assign features to centroids (un-jitted body of `assign`)."""
    flat = features.reshape(features.shape[0], centroids.shape[1]).astype(jnp.float32)
    result = assign_rows(flat, centroids)
    return result.labels, result.margins


@jax.jit
def assign(
    features: Float[Array, "n *f"], centroids: Float[Array, "k f"]
) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
    """Assign features to their nearest centroid and say how clearly.

    O(n k f) time, O(n k) memory beside the input, which is not copied. It may be vmapped and used
    in other jitted functions.

    Args:
        features: (n, f) or (n, h, w, c) float32; anything behind the first axis is flattened.
        centroids: (k, f) float32.

    Returns:
        labels (n,) int32, lowest id on ties, and margins (n,) float32, at least 0: the Euclidean
        distance to the nearest other centroid minus that to the own one (zeros when k = 1).

    Example:
        >>> labels, margins = assign(jnp.array([[1.0], [7.0]]), jnp.array([[0.0], [10.0]]))
        >>> labels.tolist(), margins.tolist()
        ([0, 1], [8.0, 4.0])
    """
    return assign_(features, centroids)
