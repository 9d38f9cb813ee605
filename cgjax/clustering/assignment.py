"""Which cluster a feature belongs to, and how clearly.

For a feature y and centroids mu_c the assignment and its margin are

    c(y) = argmin_c ||y - mu_c||,    margin(y) = min_{c' != c(y)} ||y - mu_c'|| - ||y - mu_c(y)||

The margin is computed as a difference of squares over a sum, so that it keeps its digits when the
two distances are large and nearly equal (methods.md, section 0: the dial between the cluster as it
is and its attribute at full strength).

Symbols: y features (n, f), mu centroids (k, f), c labels (n,), k number of clusters, s block.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cgjax.kernels.distance import HIGHEST, block_starts, join_blocks, row_argmin


class Assignment(NamedTuple):
    """What `assign_blocks` says of each row.

    Attributes:
        labels: (n,) int32, nearest centroid, lowest id on ties.
        margins: (n,) float32, at least 0: Euclidean distance to the nearest other centroid minus
            that to the own one; zeros when there is one cluster.
        squared_distances: (n,) float32, squared distance to the own centroid.
    """

    labels: Int[Array, " n"]
    margins: Float[Array, " n"]
    squared_distances: Float[Array, " n"]


def block_rows(num_features: int, num_rows: int, megabytes: int = 8) -> int:
    """Return how many float32 rows make a block of the given size: it should fit the cache."""
    rows = megabytes * 2**20 // (4 * max(num_features, 1))
    return max(1, min(num_rows, max(64, rows)))


def assign_rows(rows: Float[Array, "s f"], centroids: Float[Array, "k f"]) -> Assignment:
    """Assign one block of rows. The centroids' mean is the origin: no cancellation far from 0."""
    offset = jnp.mean(centroids, axis=0, keepdims=True)
    rows, centroids = rows - offset, centroids - offset
    norms = jnp.sum(centroids * centroids, axis=1)
    # Squared distances up to ||y||^2, which does not change the order.
    relative = jnp.matmul(-2.0 * rows, centroids.T, precision=HIGHEST) + norms[None, :]
    labels = row_argmin(relative)
    difference = rows - centroids[labels]
    squared = jnp.sum(difference * difference, axis=1)
    if centroids.shape[0] == 1:
        return Assignment(labels, jnp.zeros_like(squared), squared)
    is_own = labels[:, None] == jnp.arange(centroids.shape[0], dtype=jnp.int32)[None, :]
    gap = jnp.min(jnp.where(is_own, jnp.inf, relative), axis=1) - jnp.min(relative, axis=1)
    total = jnp.sqrt(squared) + jnp.sqrt(squared + gap)
    margins = jnp.where(total > 0.0, gap / jnp.where(total > 0.0, total, 1.0), 0.0)
    return Assignment(labels, margins, squared)


def assign_blocks(
    features: Float[Array, "n f"], centroids: Float[Array, "k f"], *, block: int | None = None
) -> Assignment:
    """Assign all rows, block by block: O(n k f) time, O(block * f) memory beside the input."""
    num_rows = features.shape[0]
    if num_rows == 0:
        empty = jnp.zeros((0,), jnp.float32)
        return Assignment(jnp.zeros((0,), jnp.int32), empty, empty)
    block = min(block or block_rows(features.shape[1], num_rows), num_rows)

    def body(_: None, start: Array) -> tuple[None, Assignment]:
        return None, assign_rows(jax.lax.dynamic_slice_in_dim(features, start, block), centroids)

    _, blocks = jax.lax.scan(body, None, block_starts(num_rows, block))
    return Assignment(*(join_blocks(part, num_rows) for part in blocks))


def assign_(
    features: Float[Array, "n *f"], centroids: Float[Array, "k f"], *, block: int | None = None
) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
    """Assign features to centroids (un-jitted body of `assign`)."""
    flat = features.reshape(features.shape[0], centroids.shape[1]).astype(jnp.float32)
    result = assign_blocks(flat, centroids, block=block)
    return result.labels, result.margins


@partial(jax.jit, static_argnames=("block",))
def assign(
    features: Float[Array, "n *f"], centroids: Float[Array, "k f"], *, block: int | None = None
) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
    """Assign features to their nearest centroid and say how clearly.

    O(n k f) time, O(block * f) memory beside the input. It may be vmapped and used in other jitted
    functions; a feature's label depends on nothing but that feature and the centroids.

    Args:
        features: (n, f) or (n, h, w, c) float32; anything behind the first axis is flattened.
        centroids: (k, f) float32.
        block: rows per block; default: about 8 MB of them.

    Returns:
        labels (n,) int32, lowest id on ties, and margins (n,) float32, at least 0: the Euclidean
        distance to the nearest other centroid minus that to the own one (zeros when k = 1).

    Example:
        >>> labels, margins = assign(jnp.array([[1.0], [7.0]]), jnp.array([[0.0], [10.0]]))
        >>> labels.tolist(), margins.tolist()
        ([0, 1], [8.0, 4.0])
    """
    return assign_(features, centroids, block=block)
