"""The state of k-means restarts between two passes over the data, and how it advances.

Nothing here reads features: the same functions serve the iteration in memory and the streamed one.

Between two visits of a row y its distances to the centroids are tracked: exactly in a subspace, and
within a bound in the rest of the space (`subspace`). Its label a may have changed only if for
another centroid c

    d_c - d_a <= 2 rho(y) move_c(y)

with d_c = ||mu_c||^2 - 2 <y, mu_c> as tracked, rho the residual norm, and move_c(y) at least
rho(m_a - m_c) of the movement m since the visit, see `bounds` (in the spirit of [Elkan 2003], but
the norms are kept exact and only differences of movements count, which makes the bound tighter).
Only such rows are read.

Symbols: y rows (n, f), mu centroids (r, k, f) relative to the offset, r restarts, k clusters;
`squares` are ||y||^2, `weights` 1 for rows that count and 0 for padding.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from cgjax.clustering.kmeans import bounds
from cgjax.clustering.kmeans import subspace as sub
from cgjax.clustering.kmeans.bounds import MovementBound
from cgjax.clustering.kmeans.subspace import Subspace
from cgjax.runtime.mesh import varying_like


class KMeansState(NamedTuple):
    """The state of all restarts.

    Attributes:
        centroids: (r, k, f) float32, relative to the offset.
        labels: (n, r) int32, nearest centroid at the last step; -1 before it and for padding.
        sums: (r, k, f) float32, sums of the members.
        products: (n, r, k) float32, -2 <y, mu> as tracked since the row was last visited; where
            nothing is tracked k is 0 here and in the bound.
        bound: how far the centroids may have moved since then.
        subspace: in which products are tracked.
        inertias: (r,) float32, objective of the labels with the new centroids; never rises.
        is_done: (r,) bool, converged; such a restart no longer changes.
        num_iter: (r,) int32.
    """

    centroids: Float[Array, "r k f"]
    labels: Int[Array, "n r"]
    sums: Float[Array, "r k f"]
    products: Float[Array, "n r _"]
    bound: MovementBound
    subspace: Subspace
    inertias: Float[Array, " r"]
    is_done: Bool[Array, " r"]
    num_iter: Int[Array, " r"]


def start(
    centroids: Float[Array, "r k f"],
    squares: Float[Array, " n"],
    products: Float[Array, "n r k"] | None = None,
    subspace: Subspace | None = None,
    *,
    is_tracked: bool = True,
) -> KMeansState:
    """Return the state with centroids (relative to the offset) and no labels yet.

    Args:
        centroids: (r, k, f), where to start.
        squares: (n,) squared norms of the rows.
        products: (n, r, k), -2 <y, centroid> of all rows, if they are known already.
        subspace: in which products are tracked; default: in none.
        is_tracked: whether products are tracked at all.
    """
    num_init, num_clusters, dim = centroids.shape
    if subspace is None:
        subspace = sub.nothing(squares.shape[0], dim, like=squares)
    num, before = num_clusters if is_tracked else 0, jnp.inf if products is None else 0.0
    shape = (squares.shape[0], num_init)
    if products is None:
        products = varying_like(jnp.zeros((*shape, num), jnp.float32), squares)
    return KMeansState(
        centroids=centroids,
        labels=varying_like(jnp.full(shape, -1, jnp.int32), squares),
        sums=jnp.zeros_like(centroids),
        products=products,
        bound=bounds.start(centroids[:, :num], squares, subspace, before),
        subspace=subspace,
        inertias=jnp.full((num_init,), jnp.inf, jnp.float32),
        is_done=jnp.zeros((num_init,), bool),
        num_iter=jnp.zeros((num_init,), jnp.int32),
    )


def relative_distances(state: KMeansState) -> Float[Array, "n r k"]:
    """Return ||y - mu||^2 - ||y||^2 by the tracked products."""
    norms = jnp.sum(jnp.square(state.centroids), axis=2)
    return state.products + norms[None, :, :]


def nearest_and_gap(
    relative: Float[Array, "n r k"],
) -> tuple[Int[Array, "n r"], Float[Array, "n r"]]:
    """Return the nearest centroid (lowest id on ties), and by how much the second is farther.

    XLA's argmin costs several times as much on a CPU. The gap of a single cluster is infinite.
    """
    num_clusters = relative.shape[2]
    ids = jnp.arange(num_clusters, dtype=jnp.int32)[None, None, :]
    smallest = _minimum(relative)
    is_smallest = relative == smallest[:, :, None]
    nearest = _minimum(jnp.where(is_smallest, ids, num_clusters - 1))
    others = jnp.where(ids == nearest[:, :, None], jnp.inf, relative)
    return nearest, jnp.min(others, axis=2) - smallest


def _minimum(values: Shaped[Array, "n r k"]) -> Shaped[Array, "n r"]:
    """Return the minimum over the last axis, half against half: XLA vectorises that on a CPU."""
    while values.shape[2] > 1:
        half = (values.shape[2] + 1) // 2  # of an odd number both halves have the middle
        values = jnp.minimum(values[:, :, :half], values[:, :, -half:])
    return values[:, :, 0]


def may_change(
    state: KMeansState, squares: Float[Array, " n"], weights: Float[Array, " n"]
) -> Bool[Array, "n r"]:
    """Return for which rows the nearest centroid is unknown unless they are read."""
    relative = relative_distances(state)
    num_clusters = relative.shape[2]
    # The differences that float32 rounding of the products and norms may hide.
    longest = jnp.sqrt(jnp.max(jnp.sum(jnp.square(state.centroids), axis=2), axis=1))
    rounding = 2e-6 * jnp.sqrt(squares)[:, None] * longest[None, :]
    ids = jnp.arange(num_clusters, dtype=jnp.int32)[None, None, :]
    labels = state.labels[:, :, None]
    # Before the first step the nearest centroid stands in for the label.
    own = _minimum(jnp.where((ids == labels) | (labels < 0), relative, jnp.inf))
    residual = sub.residuals_of_rows(state.subspace, squares)[:, None, None]
    lower = relative - 2.0 * residual * bounds.of_rows(state.bound, state.labels)
    # Written so that rows that were never read, and NaN, count as open.
    is_farther = lower > (own + rounding)[:, :, None]
    is_open = jnp.sum(is_farther, axis=2, dtype=jnp.int32) < num_clusters - 1
    return is_open & ~state.is_done[None, :] & (weights[:, None] > 0.0)


def nearest_labels(state: KMeansState, weights: Float[Array, " n"]) -> Int[Array, "n r"]:
    """Return the nearest centroid of every row, lowest id on ties; a done restart keeps its own."""
    labels, _ = nearest_and_gap(relative_distances(state))
    labels = jnp.where(state.is_done[None, :], state.labels, labels)
    return jnp.where(weights[:, None] > 0.0, labels, -1)


def members(labels: Int[Array, "n r"], num_clusters: int) -> Float[Array, "r k"]:
    """Return how many rows each cluster of each restart has; rows of label -1 belong to none."""
    num_init = labels.shape[1]
    if jax.default_backend() != "cpu":  # where adding up one by one would be slow
        return jnp.sum(one_hot(labels, num_clusters), axis=0).reshape(num_init, num_clusters)
    place = (
        jnp.where(labels < 0, num_clusters, labels),
        jnp.arange(num_init, dtype=jnp.int32)[None, :],
    )
    counts = jnp.zeros((num_clusters, num_init), jnp.int32).at[place].add(1, mode="drop")
    return counts.T.astype(jnp.float32)


class Counts(NamedTuple):
    """What is counted of all rows in a step, summed over shards or processes.

    Attributes:
        members: (r, k) float32, rows in each cluster.
        references: (h,) float32, how many rows use each reference of the bound.
        squares: () float32, sum of the rows' squared norms.
    """

    members: Float[Array, "r k"]
    references: Float[Array, " h"]
    squares: Float[Array, ""]


def count(state: KMeansState, labels: Int[Array, "n r"], squares: Float[Array, " n"]) -> Counts:
    """Return the counts of this shard's rows, given their new labels."""
    num_members = members(labels, state.centroids.shape[1])
    return Counts(num_members, bounds.count_references(state.bound), jnp.sum(squares))


def one_hot(labels: Int[Array, "n r"], num_clusters: int) -> Float[Array, "n rk"]:
    """Return (n, r * k) float32 with a one where a row belongs to a cluster; -1 gives zeros."""
    ids = jnp.arange(num_clusters, dtype=jnp.int32)[None, None, :]
    return (labels[:, :, None] == ids).astype(jnp.float32).reshape(labels.shape[0], -1)


def farthest(
    state: KMeansState,
    squares: Float[Array, " n"],
    weights: Float[Array, " n"],
    distances: Float[Array, "n r"] | None = None,
    *,
    axis_name: str | None = None,
) -> tuple[Int[Array, "r m"], Bool[Array, "r m"]]:
    """Return the m = min(k, n) rows of each restart that are farthest from their centroids.

    The squared distances are those given, or else those at the rows' last visits, which are close
    enough for this choice.

    Returns:
        The rows within this shard, farthest first (padding last), and whether each belongs to this
        shard.
    """
    own = distances
    if own is None:
        own = squares[:, None] + jnp.min(relative_distances(state), axis=2)
    # Rounding, where a row equals its centroid, must not look like a distance.
    own = jnp.where(own > 1e-6 * squares[:, None], own, 0.0)
    own = jnp.where(weights[:, None] > 0.0, own, -1.0)
    most = state.centroids.shape[1]
    distance, row = jax.lax.top_k(own.T, min(most, own.shape[0]))
    if axis_name is None:
        return row, jnp.ones(row.shape, bool)
    num = row.shape[1]
    distance, row = (
        jax.lax.all_gather(value, axis_name, axis=1, tiled=True) for value in (distance, row)
    )
    _, place = jax.lax.top_k(distance, min(most, distance.shape[1]))
    return jnp.take_along_axis(row, place, axis=1), place // num == jax.lax.axis_index(axis_name)


def means(total: Float[Array, "r k f"], counts: Float[Array, "r k"]) -> Float[Array, "r k f"]:
    """Return the means of clusters, zeros for those without members."""
    return total / jnp.maximum(counts, 1.0)[:, :, None]


def fill_empty(
    moved: Float[Array, "r k f"], counts: Float[Array, "r k"], far: Float[Array, "r m f"]
) -> Float[Array, "r k f"]:
    """Put the e-th empty cluster of each restart on its e-th farthest row."""
    is_empty = counts == 0.0
    rank = jnp.cumsum(is_empty.astype(jnp.int32), axis=1) - 1
    rank = jnp.maximum(rank, 0) % far.shape[1]
    taken = jnp.take_along_axis(far, rank[:, :, None], axis=1)
    return jnp.where(is_empty[:, :, None], taken, moved)


def advance(
    state: KMeansState,
    labels: Int[Array, "n r"],
    total: Float[Array, "r k f"],
    counts: Counts,
    moved: Float[Array, "r k f"],
    least_shift: Float[Array, ""],
) -> KMeansState:
    """Return the state after the centroids moved.

    Args:
        state: the state before.
        labels: (n, r), the new labels.
        total: (r, k, f), the sums of the clusters' members.
        counts: of all rows.
        moved: (r, k, f), the new centroids: the means, or a row for an empty cluster.
        least_shift: a restart whose squared movement is not above this is done.
    """
    explained = counts.members * jnp.sum(jnp.square(means(total, counts.members)), axis=2)
    inertias = counts.squares - jnp.sum(explained, axis=1)
    movement = jnp.where(state.is_done[:, None, None], 0.0, moved - state.centroids)
    bound, products = state.bound, state.products
    if products.shape[2]:
        bound, change = bounds.advance(bound, state.subspace, movement, labels, counts.references)
        products = products + change
    # Written so that NaN counts as done: the caller reports such data.
    is_moving = jnp.sum(jnp.square(movement), axis=(1, 2)) > least_shift
    return state._replace(
        centroids=jnp.where(state.is_done[:, None, None], state.centroids, moved),
        labels=labels,
        sums=total,
        products=products,
        bound=bound,
        inertias=jnp.where(state.is_done, state.inertias, jnp.maximum(inertias, 0.0)),
        is_done=state.is_done | ~is_moving,
        num_iter=state.num_iter + (~state.is_done).astype(jnp.int32),
    )
