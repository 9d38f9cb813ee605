"""Lloyd's iteration for many restarts at once: init, step and fit as pure functions.

k-means looks for centroids mu that minimise

    sum_y min_c ||y - mu_c||^2                                              [Lloyd 1982]

All restarts share each read of the data, and most reads are avoided without changing the result:

* Which rows need a look. Between two visits of a row y the order of its centroids can change
  only if

      gap(y) <= 2 ||y|| * (path of the centroids since the visit)

  where gap is the difference of the two smallest ||mu_c||^2 - 2 <y, mu_c>, with the norms of today
  and the products of the visit, and the path adds up max_{a,c} ||d_a - d_c|| over the movements d
  of each iteration (Cauchy-Schwarz; in the spirit of [Hamerly 2010], but the norms are kept exact,
  which for two clusters makes the bound several times tighter). Only the other rows are read.
* Which rows moved. Sums of members change only by the rows whose label changed.

When more than half of the rows are concerned, one product with the whole data is faster than
picking them out. Rows are relative to their mean: far from the origin the expanded square would
lose its digits. No centred copy of the data is made.

Symbols: y rows (n, f), mu centroids (r, k, f) relative to the offset, r restarts, k clusters,
s rows of a chunk.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from cgjax.clustering.assignment import Assignment, assign_blocks
from cgjax.clustering.rows import Rows, centred, one_hot, prepare, products, reads_all, sums
from cgjax.clustering.seeding import seed_plus_plus, seed_random
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


class KMeansState(NamedTuple):
    """The state of all restarts.

    Attributes:
        centroids: (r, k, f) float32, relative to the offset.
        labels: (n, r) int32, nearest centroid at the last step; -1 before it and for padding.
        sums: (r, k, f) float32, sums of the members.
        products: (n, r, k) float32, -2 <y, mu> when the row was last visited.
        path: (r,) float32, length of the centroids' path so far, as in the module's bound.
        visited: (n, r) float32, the path at the row's last visit.
        inertias: (r,) float32, objective of the labels with the new centroids; never rises.
        is_done: (r,) bool, converged; such a restart no longer changes.
        num_iter: (r,) int32.
    """

    centroids: Float[Array, "r k f"]
    labels: Int[Array, "n r"]
    sums: Float[Array, "r k f"]
    products: Float[Array, "n r k"]
    path: Float[Array, " r"]
    visited: Float[Array, "n r"]
    inertias: Float[Array, " r"]
    is_done: Bool[Array, " r"]
    num_iter: Int[Array, " r"]


def init(
    rows: Rows,
    key: PRNGKeyArray,
    *,
    num_clusters: int,
    num_init: int = 1,
    method: str = "k-means++",
    axis_name: str | None = None,
) -> KMeansState:
    """Choose the starting centroids of all restarts; see `cgjax.clustering.seeding`."""
    seed = seed_plus_plus if method == "k-means++" else seed_random
    centroids = seed(rows, key, num_clusters=num_clusters, num_init=num_init, axis_name=axis_name)
    return start(rows, centroids, axis_name=axis_name)


def start(
    rows: Rows, centroids: Float[Array, "r k f"], *, axis_name: str | None = None
) -> KMeansState:
    """Return the state in which nothing but the centroids (relative to the offset) is known."""
    num_rows, (num_init, num_clusters) = rows.features.shape[0], centroids.shape[:2]
    return KMeansState(
        centroids=centroids,
        labels=varying(jnp.full((num_rows, num_init), -1, jnp.int32), axis_name),
        sums=jnp.zeros_like(centroids),
        products=varying(jnp.zeros((num_rows, num_init, num_clusters), jnp.float32), axis_name),
        path=jnp.zeros((num_init,), jnp.float32),
        visited=varying(jnp.full((num_rows, num_init), -jnp.inf, jnp.float32), axis_name),
        inertias=jnp.full((num_init,), jnp.inf, jnp.float32),
        is_done=jnp.zeros((num_init,), bool),
        num_iter=jnp.zeros((num_init,), jnp.int32),
    )


def step(
    rows: Rows, state: KMeansState, *, tol: float | Array = 1e-4, axis_name: str | None = None
) -> KMeansState:
    """Give every row to its nearest centroid and move every centroid to the mean of its rows.

    A cluster without members takes the row that is farthest from its own centroid (the next such
    row for the next empty cluster). A restart is done when the centroids' squared movement is at
    most `tol` times the mean variance of the features; it is not changed from then on.
    """
    num_clusters = state.centroids.shape[1]
    state = _look(rows, state, axis_name)
    norms = jnp.sum(jnp.square(state.centroids), axis=2)
    labels = jnp.argmin(state.products + norms[None, :, :], axis=2).astype(jnp.int32)
    labels = jnp.where(state.is_done[None, :], state.labels, labels)
    labels = jnp.where(rows.weights[:, None] > 0.0, labels, -1)
    total = sums(
        rows,
        labels,
        num_clusters=num_clusters,
        old_labels=state.labels,
        old_sums=state.sums,
        axis_name=axis_name,
    )
    member = one_hot(labels, num_clusters)
    counts = all_sum(jnp.sum(member, axis=0), axis_name).reshape(norms.shape)
    is_empty = counts == 0.0
    moved = total / jnp.maximum(counts, 1.0)[:, :, None]
    inertias = jnp.maximum(
        all_sum(jnp.sum(rows.squares), axis_name)
        - jnp.sum(counts * jnp.sum(jnp.square(moved), axis=2), axis=1),
        0.0,
    )

    def refill(moved: Array) -> Array:
        far = _farthest(rows, state.centroids, axis_name)
        rank = jnp.cumsum(is_empty.astype(jnp.int32), axis=1) - 1
        taken = jnp.take_along_axis(far, jnp.maximum(rank, 0)[:, :, None], axis=1)
        return jnp.where(is_empty[:, :, None], taken, moved)

    any_empty = jnp.any(is_empty & ~state.is_done[:, None])
    moved = jax.lax.cond(any_empty, refill, lambda moved: moved, moved)
    moved = jnp.where(state.is_done[:, None, None], state.centroids, moved)
    movement = moved - state.centroids
    # Written so that NaN counts as done: such data are reported by the caller.
    is_moving = jnp.sum(jnp.square(movement), axis=(1, 2)) > tol * rows.variance
    return state._replace(
        centroids=moved,
        labels=labels,
        sums=total,
        path=state.path + _largest_difference(movement),
        inertias=jnp.where(state.is_done, state.inertias, inertias),
        is_done=state.is_done | ~is_moving,
        num_iter=state.num_iter + (~state.is_done).astype(jnp.int32),
    )


def _look(rows: Rows, state: KMeansState, axis_name: str | None) -> KMeansState:
    """Compute the products of all rows whose nearest centroid may have changed."""
    num_init, num_clusters, dim = state.centroids.shape
    norms = jnp.sum(jnp.square(state.centroids), axis=2)
    relative = state.products + norms[None, :, :]
    smallest = jnp.min(relative, axis=2)
    if num_clusters > 1:
        ids = jnp.arange(num_clusters, dtype=jnp.int32)[None, None, :]
        is_smallest = ids == jnp.argmin(relative, axis=2)[:, :, None].astype(jnp.int32)
        gap = jnp.min(jnp.where(is_smallest, jnp.inf, relative), axis=2) - smallest
    else:
        gap = jnp.full_like(smallest, jnp.inf)
    size = jnp.sqrt(rows.squares)[:, None]
    # What float32 rounding of the products and norms may hide counts as path.
    rounding = 1e-6 * jnp.sqrt(jnp.max(norms, axis=1))[None, :]
    slack = 2.0 * size * (state.path[None, :] - state.visited + rounding)
    may_change = jnp.isneginf(state.visited) | (gap <= slack)
    may_change = may_change & ~state.is_done[None, :] & (rows.weights[:, None] > 0.0)
    is_wanted = jnp.any(may_change, axis=1)
    found = products(
        rows,
        state.centroids.reshape(-1, dim),
        is_wanted=is_wanted,
        known=state.products.reshape(-1, num_init * num_clusters),
        axis_name=axis_name,
    )
    is_seen = is_wanted | reads_all(rows, is_wanted)
    return state._replace(
        products=found.reshape(state.products.shape),
        visited=jnp.where(is_seen[:, None], state.path[None, :], state.visited),
    )


def _largest_difference(movement: Float[Array, "r k f"]) -> Float[Array, " r"]:
    """Return max_{a,c} ||d_a - d_c|| of each restart, or a bound on it.

    Two clusters are compared directly; for more, the bound is the sum of the two longest movements.
    """
    num_clusters = movement.shape[1]
    if num_clusters == 1:
        return jnp.zeros((movement.shape[0],), jnp.float32)
    if num_clusters == 2:
        return jnp.linalg.norm(movement[:, 0] - movement[:, 1], axis=1)
    lengths = jnp.linalg.norm(movement, axis=2)
    return jnp.sum(jax.lax.top_k(lengths, 2)[0], axis=1)


def _farthest(
    rows: Rows, centroids: Float[Array, "r k f"], axis_name: str | None
) -> Float[Array, "r k f"]:
    """Return the k rows of each restart that are farthest from their centroids, farthest first."""
    num_init, num_clusters, dim = centroids.shape
    num_rows = rows.features.shape[0]
    product = products(rows, centroids.reshape(-1, dim), axis_name=axis_name)
    relative = product.reshape(num_rows, num_init, num_clusters)
    relative = relative + jnp.sum(jnp.square(centroids), axis=2)[None, :, :]
    own = rows.squares[:, None] + jnp.min(relative, axis=2)
    # What is left of rounding where a row equals its centroid must not look like a distance.
    own = jnp.where(own > 1e-6 * rows.squares[:, None], own, 0.0)
    own = jnp.where(rows.weights[:, None] > 0.0, own, -1.0)
    value, row = jax.lax.top_k(own.T, min(num_clusters, num_rows))
    far = centred(rows, row)
    if axis_name is not None:
        value = jax.lax.all_gather(value, axis_name, axis=1, tiled=True)
        far = jax.lax.all_gather(far, axis_name, axis=1, tiled=True)
        _, row = jax.lax.top_k(value, min(num_clusters, value.shape[1]))
        far = jnp.take_along_axis(far, row[:, :, None], axis=1)
        # The same in every shard; the sum over one of them tells shard_map so.
        is_first = axis_position(axis_name) == 0
        far = all_sum(jnp.where(is_first, far, 0.0), axis_name)
    return far[:, jnp.arange(num_clusters) % far.shape[1]]


def fit(
    features: Float[Array, "n f"],
    key: PRNGKeyArray,
    *,
    num_clusters: int,
    num_init: int = 10,
    max_iter: int | Array = 100,
    tol: float | Array = 1e-4,
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
    rows = prepare(features, weights, axis_name=axis_name)
    state = init(
        rows,
        key,
        num_clusters=num_clusters,
        num_init=num_init,
        method=method,
        axis_name=axis_name,
    )
    state = iterate(rows, state, max_iter=max_iter, tol=tol, axis_name=axis_name)
    return finish(rows, state, axis_name=axis_name)


def iterate(
    rows: Rows,
    state: KMeansState,
    *,
    max_iter: int | Array,
    tol: float | Array,
    axis_name: str | None = None,
) -> KMeansState:
    """Repeat `step` until every restart is done or has taken `max_iter` steps."""

    def is_running(state: KMeansState) -> Array:
        return jnp.any(~state.is_done & (state.num_iter < max_iter))

    def body(state: KMeansState) -> KMeansState:
        return step(rows, state, tol=tol, axis_name=axis_name)

    return jax.lax.while_loop(is_running, body, state)


def finish(rows: Rows, state: KMeansState, *, axis_name: str | None = None) -> KMeansResult:
    """Keep the restart with the smallest objective and describe it in canonical order.

    The labels are those of `assign` with the centroids returned, to the last bit. They are computed
    again when they call for another order of the clusters than the one they were computed in.
    """
    best = jnp.argmin(state.inertias)
    centroids = state.centroids[best] + rows.offset[None, :]
    num_clusters = centroids.shape[0]
    identity = jnp.arange(num_clusters, dtype=jnp.int32)

    def order_of(labels: Array) -> Array:
        counts, first = _members(labels, rows.weights, num_clusters, axis_name)
        return jnp.lexsort((first, -counts)).astype(jnp.int32)

    def is_unordered(attempt: tuple[Array, Array, Array, Assignment]) -> Array:
        order, count = attempt[1:3]
        # Rounding could in theory make two orders alternate: three attempts are enough.
        return (count == 0) | (jnp.any(order != identity) & (count < 3))

    def assign_again(
        attempt: tuple[Array, Array, Array, Assignment],
    ) -> tuple[Array, Array, Array, Assignment]:
        centroids, order, count, _ = attempt
        centroids = centroids[order]
        assigned = assign_blocks(rows.features, centroids)
        return centroids, order_of(assigned.labels), count + 1, assigned

    zeros = jnp.zeros_like(rows.squares)
    nothing = Assignment(zeros.astype(jnp.int32), zeros, zeros)
    attempt = (centroids, order_of(state.labels[:, best]), jnp.int32(0), nothing)
    centroids, _, _, assigned = jax.lax.while_loop(is_unordered, assign_again, attempt)
    counts, _ = _members(assigned.labels, rows.weights, num_clusters, axis_name)
    return KMeansResult(
        centroids=centroids,
        labels=assigned.labels,
        inertia=all_sum(jnp.sum(assigned.squared_distances * rows.weights), axis_name),
        num_iter=state.num_iter[best],
        converged=state.is_done[best],
        margins=assigned.margins,
        counts=counts,
        inertias=state.inertias,
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
