"""Which cluster a feature belongs to, and how clearly.

For a feature y and centroids mu_c the assignment and its margin are

    c(y) = argmin_c ||y - mu_c||,    margin(y) = min_{c' != c(y)} ||y - mu_c'|| - ||y - mu_c(y)||

The margin is computed as a difference of squares over a sum, so that it keeps its digits when the
two distances are large and nearly equal (docs/methods.md, "Clusters": the dial between the whole
cluster and its attribute at full strength).

Symbols: y features (n, f), mu centroids (k, f), c labels (n,), k number of clusters.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from cgjax.clustering.kmeans.rows import chunk_size
from cgjax.clustering.kmeans.state import nearest_and_gap
from cgjax.errors import UserError
from cgjax.kernels.distance import block_starts, join_blocks
from cgjax.kernels.products import at_least_two_features, float32_product
from cgjax.numerics.arguments import as_float32, check_differences


class Assignment(NamedTuple):
    """The nearest centroid of each row.

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
    """Assign all rows, a block at a time: O(n k f) time, no memory beside input and result.

    The origin is the centroid nearest to the mean of the centroids: the mean itself is far from all
    of them if a single one is far away, and the others would lose their digits. The distance to the
    own centroid is computed from the difference.
    """
    num_rows, num_clusters = features.shape[0], centroids.shape[0]
    if num_rows == 0:
        empty = jnp.zeros((0,), jnp.float32)
        return Assignment(jnp.zeros((0,), jnp.int32), empty, empty)
    features, centroids = at_least_two_features(features, centroids)
    from_mean = centroids - jnp.mean(centroids, axis=0)[None, :]
    offset = centroids[jnp.argmin(jnp.sum(jnp.square(from_mean), axis=1))]
    points = centroids - offset[None, :]
    norms = jnp.sum(jnp.square(points), axis=1)
    block = min(chunk_size(max(points.shape)), num_rows)

    def assign_block(begin: Int[Array, ""]) -> Assignment:
        rows = jax.lax.dynamic_slice_in_dim(features, begin, block) - offset[None, :]
        # Squared distances up to ||y||^2, which does not change the order.
        relative = norms[None, :] + float32_product(-2.0 * rows, points, ((1,), (1,)))
        nearest, gap = nearest_and_gap(relative[:, None, :])
        labels, gap = nearest[:, 0], gap[:, 0]
        squared = jnp.sum(jnp.square(rows - points[labels]), axis=1)
        if num_clusters == 1:
            return Assignment(labels, jnp.zeros_like(squared), squared)
        total = jnp.sqrt(squared) + jnp.sqrt(squared + gap)
        margins = jnp.where(total > 0.0, gap / jnp.where(total > 0.0, total, 1.0), 0.0)
        return Assignment(labels, margins, squared)

    blocks = jax.lax.map(assign_block, block_starts(num_rows, block))
    return Assignment(*(join_blocks(stacked, num_rows) for stacked in blocks))


def assign_(
    features: Float[Array, "n *f"], centroids: Float[Array, "k f"]
) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
    """Assign features to centroids (un-jitted body of `assign`)."""
    flat = features.reshape(features.shape[0], centroids.shape[1]).astype(jnp.float32)
    result = assign_rows(flat, centroids)
    return result.labels, result.margins


_assign = jax.jit(assign_)


def assign(
    features: ArrayLike, centroids: ArrayLike
) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
    """Assign features to their nearest centroid and say how clearly.

    O(n k f) time, no memory beside the input and the result. It may be vmapped and used in other
    jitted functions.

    Args:
        features: (n, f) or (n, h, w, c) float32; all axes after the first are flattened.
        centroids: (k, f) float32, finite.

    Returns:
        labels (n,) int32, lowest id on ties, and margins (n,) float32, at least 0: the Euclidean
        distance to the nearest other centroid minus that to the own one (zeros when k = 1).

    Raises:
        UserError: if the shapes do not match, a centroid holds NaN or Inf, or the centroids'
            squared distances underflow float32 (values are not checked inside other jitted
            functions).

    Example:
        >>> labels, margins = assign(jnp.array([[1.0], [7.0]]), jnp.array([[0.0], [10.0]]))
        >>> labels.tolist(), margins.tolist()
        ([0, 1], [8.0, 4.0])
    """
    features = as_float32("features", features, "float32")
    centroids = as_float32("centroids", centroids, "(clusters, features)")
    rows, points = features.shape, centroids.shape
    if len(points) != 2 or 0 in points:
        raise UserError(f"centroids have shape {points}: expected (clusters, features)")
    if len(rows) < 2 or math.prod(rows[1:]) != points[1]:
        raise UserError(
            f"features have shape {rows} and centroids {points}: expected {points[1]} numbers for "
            "each row; both must come from the same layer"
        )
    if not isinstance(centroids, jax.core.Tracer):
        bad = np.flatnonzero(~np.isfinite(np.asarray(centroids)).all(axis=1))
        if len(bad):
            raise UserError(
                f"centroids of clusters {', '.join(map(str, bad))} hold NaN or Inf: expected "
                "finite numbers; cluster again"
            )
        check_differences("the centroids", np.asarray(centroids))
    return _assign(jnp.asarray(features), jnp.asarray(centroids))
