"""Lloyd's iteration for many restarts at once: init, step and fit as pure functions.

k-means looks for centroids mu that minimise

    sum_y min_c ||y - mu_c||^2                                              [Lloyd 1982]

All restarts share each read of the data: a block of rows is read once, multiplied with the
centroids of every restart, and while it is still in the cache its sums per cluster are added up.
Rows are centred inside the block (the expanded square loses its digits far from the origin), so
that no centred copy of the data is ever made.

Symbols: y rows (n, f), mu centroids (r, k, f) relative to the offset, r restarts, k clusters,
s rows of a block.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from cgjax.clustering.assignment import assign_blocks, block_rows
from cgjax.clustering.seeding import seed_plus_plus, seed_random, squared_distances_to
from cgjax.kernels.distance import HIGHEST, block_starts
from cgjax.parallel import all_min, all_sum, axis_position, varying


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


class Data(NamedTuple):
    """The rows to cluster and what is computed of them once.

    Attributes:
        features: (n, f) float32, this shard's rows.
        weights: (n,) float32, 1 for rows that count and 0 for padding.
        offset: (f,) float32, the mean row; everything else is relative to it.
        squares: (n,) float32, squared norm of each centred row.
        variance: () float32, mean over the features of their variance.
    """

    features: Float[Array, "n f"]
    weights: Float[Array, " n"]
    offset: Float[Array, " f"]
    squares: Float[Array, " n"]
    variance: Float[Array, ""]


class KMeansState(NamedTuple):
    """The state of all restarts.

    Attributes:
        centroids: (r, k, f) float32, relative to the offset.
        inertias: (r,) float32, objective of the centroids before the last update.
        is_done: (r,) bool, converged; such a restart no longer changes.
        num_iter: (r,) int32.
    """

    centroids: Float[Array, "r k f"]
    inertias: Float[Array, " r"]
    is_done: Bool[Array, " r"]
    num_iter: Int[Array, " r"]


def prepare(
    features: Float[Array, "n f"],
    weights: Float[Array, " n"] | None = None,
    *,
    axis_name: str | None = None,
) -> Data:
    """Compute the mean, the squared norms and the variance: two reads of the data."""
    num_rows = features.shape[0]
    if weights is None:
        weights = varying(jnp.ones((num_rows,), jnp.float32), axis_name)
    count = all_sum(jnp.sum(weights), axis_name)
    offset = all_sum(jnp.matmul(weights, features, precision=HIGHEST), axis_name) / count
    centred = features - offset[None, :]
    squares = jnp.sum(centred * centred, axis=1) * weights
    variance = all_sum(jnp.sum(squares), axis_name) / (count * features.shape[1])
    return Data(features, weights, offset, squares, variance)


def init(
    data: Data,
    key: PRNGKeyArray,
    *,
    num_clusters: int,
    num_init: int = 1,
    method: str = "k-means++",
    axis_name: str | None = None,
) -> KMeansState:
    """Choose the starting centroids of all restarts; see `cgjax.clustering.seeding`."""
    if method == "k-means++":
        centroids = seed_plus_plus(
            data.features,
            key,
            num_clusters=num_clusters,
            num_init=num_init,
            offset=data.offset,
            squares=data.squares,
            weights=data.weights,
            axis_name=axis_name,
        )
    else:
        centroids = seed_random(
            data.features,
            key,
            num_clusters=num_clusters,
            num_init=num_init,
            offset=data.offset,
            weights=data.weights,
            axis_name=axis_name,
        )
    return start(centroids)


def start(centroids: Float[Array, "r k f"]) -> KMeansState:
    """Return the state in which nothing but the centroids (relative to the offset) is known."""
    num = centroids.shape[0]
    return KMeansState(
        centroids,
        jnp.full((num,), jnp.inf, jnp.float32),
        jnp.zeros((num,), bool),
        jnp.zeros((num,), jnp.int32),
    )


def _sums(
    data: Data, centroids: Float[Array, "r k f"], axis_name: str | None
) -> tuple[Float[Array, "r k f"], Float[Array, "r k"], Float[Array, " r"]]:
    """Return the sum and the number of each cluster's rows, and the objective: one read."""
    num_init, num_clusters, dim = centroids.shape
    num_rows = data.features.shape[0]
    block = block_rows(dim, num_rows)
    flat = centroids.reshape(-1, dim)
    norms = jnp.sum(flat * flat, axis=1)
    ids = jnp.arange(num_clusters, dtype=jnp.int32)[None, None, :]

    def body(carry, position):  # type: ignore[no-untyped-def]
        sums, counts, objective = carry
        begin, first = position
        rows = jax.lax.dynamic_slice_in_dim(data.features, begin, block) - data.offset[None, :]
        weights = jax.lax.dynamic_slice_in_dim(data.weights, begin, block)
        # The last block may overlap the one before it: those rows are not counted twice.
        index = begin + jnp.arange(block, dtype=jnp.int32)
        weights = jnp.where(index >= first, weights, 0.0)
        relative = jnp.matmul(-2.0 * rows, flat.T, precision=HIGHEST) + norms[None, :]
        relative = relative.reshape(block, num_init, num_clusters)
        smallest = jnp.min(relative, axis=2, keepdims=True)
        hit = jnp.where(relative == smallest, ids, num_clusters - 1)
        is_member = jnp.min(hit, axis=2, keepdims=True) == ids
        member = jnp.where(is_member, weights[:, None, None], 0.0)
        flat_member = member.reshape(block, -1)
        added = jax.lax.dot_general(
            flat_member, rows, (((0,), (0,)), ((), ())), precision=HIGHEST
        ).reshape(centroids.shape)
        gain = jnp.matmul(weights, smallest[:, :, 0], precision=HIGHEST)
        return (sums + added, counts + jnp.sum(member, axis=0), objective + gain), None

    zeros = (
        jnp.zeros(centroids.shape, jnp.float32),
        jnp.zeros((num_init, num_clusters), jnp.float32),
        jnp.zeros((num_init,), jnp.float32),
    )
    starts = block_starts(num_rows, block)
    firsts = jnp.arange(0, num_rows, block, dtype=jnp.int32)
    carry = tuple(varying(zero, axis_name) for zero in zeros)
    (sums, counts, objective), _ = jax.lax.scan(body, carry, (starts, firsts))
    objective = objective + jnp.sum(data.squares)
    return (
        all_sum(sums, axis_name),
        all_sum(counts, axis_name),
        all_sum(objective, axis_name),
    )


def _farthest(
    data: Data, centroids: Float[Array, "r k f"], axis_name: str | None
) -> Float[Array, "r k f"]:
    """Return the k rows of each restart that are farthest from their centroids, farthest first."""
    num_init, num_clusters, dim = centroids.shape
    num_rows = data.features.shape[0]
    distance = squared_distances_to(
        data.features,
        centroids.reshape(-1, dim),
        offset=data.offset,
        squares=data.squares,
        block=block_rows(dim, num_rows),
    ).reshape(num_rows, num_init, num_clusters)
    own = jnp.min(distance, axis=2)
    # What is left of rounding where a row equals its centroid must not look like a distance.
    own = jnp.where(own > 1e-6 * data.squares[:, None], own, 0.0)
    own = jnp.where(data.weights[:, None] > 0.0, own, -1.0)
    num = min(num_clusters, num_rows)
    value, row = jax.lax.top_k(own.T, num)
    rows = data.features[row] - data.offset[None, None, :]
    if axis_name is not None:
        value = jax.lax.all_gather(value, axis_name, axis=1, tiled=True)
        rows = jax.lax.all_gather(rows, axis_name, axis=1, tiled=True)
        _, row = jax.lax.top_k(value, min(num_clusters, value.shape[1]))
        rows = jnp.take_along_axis(rows, row[:, :, None], axis=1)
        # The same in every shard; the sum over one of them tells shard_map so.
        is_first = axis_position(axis_name) == 0
        rows = all_sum(jnp.where(is_first, rows, 0.0), axis_name)
    return rows[:, jnp.arange(num_clusters) % rows.shape[1]]


def step(
    data: Data, state: KMeansState, *, tol: float = 1e-4, axis_name: str | None = None
) -> KMeansState:
    """Move every centroid to the mean of its members, once.

    A cluster without members takes the row that is farthest from its own centroid (the next such
    row for the next empty cluster). A restart is done when the centroids' squared movement is at
    most `tol` times the mean variance of the features; it is not changed from then on.
    """
    sums, counts, inertias = _sums(data, state.centroids, axis_name)
    is_empty = counts == 0.0
    moved = sums / jnp.maximum(counts, 1.0)[:, :, None]

    def refill(moved: Array) -> Array:
        far = _farthest(data, state.centroids, axis_name)
        rank = jnp.cumsum(is_empty.astype(jnp.int32), axis=1) - 1
        taken = jnp.take_along_axis(far, jnp.maximum(rank, 0)[:, :, None], axis=1)
        return jnp.where(is_empty[:, :, None], taken, moved)

    any_empty = jnp.any(is_empty & ~state.is_done[:, None])
    moved = jax.lax.cond(any_empty, refill, lambda moved: moved, moved)
    shift = jnp.sum(jnp.square(moved - state.centroids), axis=(1, 2))
    # Written so that NaN counts as done: such data are reported by the caller.
    is_moving = shift > tol * data.variance
    return KMeansState(
        jnp.where(state.is_done[:, None, None], state.centroids, moved),
        jnp.where(state.is_done, state.inertias, inertias),
        state.is_done | ~is_moving,
        state.num_iter + (~state.is_done).astype(jnp.int32),
    )


def fit(
    features: Float[Array, "n f"],
    key: PRNGKeyArray,
    *,
    num_clusters: int,
    num_init: int = 10,
    max_iter: int = 100,
    tol: float = 1e-4,
    method: str = "k-means++",
    weights: Float[Array, " n"] | None = None,
    axis_name: str | None = None,
) -> KMeansResult:
    """Run all restarts to convergence and return the best: init, step until done, assign.

    A pure function: it can be jitted, vmapped over independent problems, and called inside
    `shard_map` with the rows split over `axis_name` (labels and margins are then the shard's own,
    everything else is the same in every shard).

    Args:
        features: (n, f) float32, finite, n >= num_clusters.
        key: random key, the same in every shard.
        num_clusters: k >= 1.
        num_init: number of restarts.
        max_iter: most iterations of a restart.
        tol: see `step`; 0 stops when nothing moves.
        method: "k-means++" or "random".
        weights: (n,) 1 for rows that count and 0 for padding; default: all count.
        axis_name: mesh axis over which the rows are split, if any.
    """
    data = prepare(features, weights, axis_name=axis_name)
    state = init(
        data,
        key,
        num_clusters=num_clusters,
        num_init=num_init,
        method=method,
        axis_name=axis_name,
    )
    return finish(data, iterate(data, state, max_iter, tol, axis_name), axis_name=axis_name)


def iterate(
    data: Data, state: KMeansState, max_iter: int, tol: float, axis_name: str | None
) -> KMeansState:
    """Repeat `step` until every restart is done or has taken `max_iter` steps."""

    def is_running(state: KMeansState) -> Array:
        return jnp.any(~state.is_done & (state.num_iter < max_iter))

    def body(state: KMeansState) -> KMeansState:
        return step(data, state, tol=tol, axis_name=axis_name)

    return jax.lax.while_loop(is_running, body, state)


def finish(data: Data, state: KMeansState, *, axis_name: str | None = None) -> KMeansResult:
    """Keep the restart with the smallest objective and describe it in canonical order."""
    num_clusters = state.centroids.shape[1]
    inertias = state.inertias
    if state.centroids.shape[0] > 1:
        _, _, inertias = _sums(data, state.centroids, axis_name)
    best = jnp.argmin(inertias)
    centroids = state.centroids[best] + data.offset[None, :]
    assigned = assign_blocks(data.features, centroids)
    counts, first = _members(assigned.labels, data.weights, num_clusters, axis_name)
    order = jnp.lexsort((first, -counts))
    if num_clusters > 1:
        # Assign again in the new order, so that `assign` agrees to the last bit, ties included.
        centroids = centroids[order]
        assigned = assign_blocks(data.features, centroids)
        counts, _ = _members(assigned.labels, data.weights, num_clusters, axis_name)
    return KMeansResult(
        centroids=centroids,
        labels=assigned.labels,
        inertia=all_sum(jnp.sum(assigned.squared_distances * data.weights), axis_name),
        num_iter=state.num_iter[best],
        converged=state.is_done[best],
        margins=assigned.margins,
        counts=counts,
        inertias=inertias,
    )


def _members(
    labels: Int[Array, " n"], weights: Float[Array, " n"], num_clusters: int, axis_name: str | None
) -> tuple[Int[Array, " k"], Int[Array, " k"]]:
    """Return how many rows each cluster has, and the first of them (in the global order)."""
    num_rows = labels.shape[0]
    begin = jnp.int32(0) if axis_name is None else axis_position(axis_name) * num_rows
    index = begin + jnp.arange(num_rows, dtype=jnp.int32)
    is_member = (labels[:, None] == jnp.arange(num_clusters, dtype=jnp.int32)[None, :]) & (
        weights[:, None] > 0.0
    )
    never = jnp.iinfo(jnp.int32).max
    first = jnp.min(jnp.where(is_member, index[:, None], never), axis=0)
    counts = jnp.sum(is_member, axis=0, dtype=jnp.int32)
    return all_sum(counts, axis_name), all_min(first, axis_name)
