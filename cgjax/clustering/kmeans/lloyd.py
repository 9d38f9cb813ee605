"""Lloyd's iteration for many restarts at once: init, step and fit as pure functions.

k-means looks for centroids mu that minimise

    sum_y min_c ||y - mu_c||^2                                              [Lloyd 1982]

All restarts share each read of the data, and most reads are avoided without changing the result:

* Which rows need a look: those whose nearest centroid may have changed, by the bound of
  `cgjax.clustering.kmeans.state`.
* Which rows moved: sums of members change only by the rows whose label changed.

Where most rows are concerned, one product with the whole data is faster than picking them out.
Rows are relative to their mean: far from the origin the expanded square would lose its digits. No
centred copy of the data is made.

Symbols: y rows (n, f), mu centroids (r, k, f) relative to the offset, r restarts, k clusters,
s rows of a chunk.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from cgjax.clustering.assignment import Assignment, assign_rows
from cgjax.clustering.kmeans.bounds import count_marks, visit
from cgjax.clustering.kmeans.results import (
    BestRestart,
    KMeansResult,
    best_of,
    canonical_order,
    count_members,
)
from cgjax.clustering.kmeans.rows import (
    Rows,
    centred,
    prepare,
    products,
    some_products,
    sums,
    whole_products,
)
from cgjax.clustering.kmeans.seeding import seed_plus_plus, seed_random
from cgjax.clustering.kmeans.state import (
    KMeansState,
    advance,
    farthest,
    fill_empty,
    may_change,
    nearest_labels,
    one_hot,
    start,
)
from cgjax.clustering.kmeans.subspace import most_points, span
from cgjax.runtime.mesh import all_sum, from_shards

# Centroids whose rows are picked out together. Measured on a CPU: beside its products picking out a
# row takes as long as so many products, and reading it in its place as so many.
_GROUP, _PICKING, _READING = 16, 56, 16
# On a GPU picking out is a row of small kernels: an estimate, for none was at hand.
_KERNELS = 10


def init(
    rows: Rows,
    key: PRNGKeyArray,
    *,
    num_clusters: int,
    num_init: int = 1,
    method: str = "k-means++",
    axis_name: str | None = None,
) -> KMeansState:
    """Choose the starting centroids of all restarts; see `cgjax.clustering.kmeans.seeding`."""
    options: dict[str, Any] = {"num_init": num_init, "method": method, "axis_name": axis_name}
    return init_numbers(rows, key, numbers=(num_clusters,), **options)[0]


def init_numbers(
    rows: Rows,
    key: PRNGKeyArray,
    *,
    numbers: tuple[int, ...],
    num_init: int = 1,
    method: str = "k-means++",
    axis_name: str | None = None,
) -> tuple[KMeansState, ...]:
    """Choose starting centroids for several numbers of clusters.

    Each gets the first k of those chosen for the largest: k-means++ goes centre by centre (and
    tries as many candidates for each as the largest number asks for).
    """
    options: dict[str, Any] = {
        "num_clusters": max(numbers),
        "num_init": num_init,
        "axis_name": axis_name,
    }
    if method == "random":
        centroids = seed_random(rows, key, **options)
        return tuple(_start(rows, centroids[:, :k]) for k in numbers)
    seeds, tried = seed_plus_plus(rows, key, **options)
    product, subspace = seeds.products.transpose(2, 0, 1), span(*tried)
    return tuple(
        start(seeds.centroids[:, :k], rows.squares, product[:, :, :k], subspace) for k in numbers
    )


def _start(rows: Rows, centroids: Float[Array, "r k f"]) -> KMeansState:
    """Return the state of centroids whose products are not known yet."""
    points = centroids.reshape(-1, centroids.shape[2])
    product = products(rows, points)
    num = len(points) if len(points) <= most_points(points.shape[1]) else 0
    return start(
        centroids,
        rows.squares,
        product.reshape(-1, *centroids.shape[:2]),
        span(points[:num], product[:, :num]),
    )


def step(
    rows: Rows, state: KMeansState, *, tol: float | Array = 1e-4, axis_name: str | None = None
) -> KMeansState:
    """Give every row to its nearest centroid and move every centroid to the mean of its rows.

    A cluster without members takes the row that is farthest from its own centroid (the next such
    row for the next empty cluster). A restart is done when the centroids' squared movement is at
    most `tol` times the mean variance of the features; it is not changed from then on.
    """
    return step_numbers(rows, (state,), tol=tol, axis_name=axis_name)[0]


def step_numbers(
    rows: Rows,
    states: tuple[KMeansState, ...],
    *,
    tol: float | Array = 1e-4,
    axis_name: str | None = None,
) -> tuple[KMeansState, ...]:
    """Do the same for several numbers of clusters, which share the reads."""
    states = _look(rows, states)
    numbers = [state.centroids.shape[1] for state in states]
    labels = [nearest_labels(state, rows.weights) for state in states]
    totals = sums(
        rows,
        labels,
        num_clusters=numbers,
        old_labels=[state.labels for state in states],
        old_sums=[state.sums for state in states],
        axis_name=axis_name,
    )
    members = [jnp.sum(one_hot(own, k), axis=0) for own, k in zip(labels, numbers, strict=True)]
    marks = [count_marks(state.drift) for state in states]
    all_counts, all_marks, all_squares = all_sum((members, marks, jnp.sum(rows.squares)), axis_name)

    def move(
        state: KMeansState, labels: Array, total: Array, counts: Array, marks: Array
    ) -> KMeansState:
        counts = counts.reshape(total.shape[:2])

        def refill(moved: Array) -> Array:
            row, is_here = farthest(state, rows.squares, rows.weights, axis_name=axis_name)
            far = from_shards(centred(rows, row), is_here, axis_name)
            return fill_empty(moved, counts, far)

        moved = jax.lax.cond(
            jnp.any((counts == 0.0) & ~state.is_done[:, None]),
            refill,
            lambda moved: moved,
            total / jnp.maximum(counts, 1.0)[:, :, None],
        )
        least = tol * rows.spread / total.shape[2]
        sizes = {"all_squares": all_squares, "least_shift": least}
        return advance(state, labels, total, counts, moved, marks=marks, **sizes)

    return tuple(map(move, states, labels, totals, all_counts, all_marks))


# Products, and which rows were visited; the rest of a state would be copied by a branch.
Known = tuple[Float[Array, "n r k"], Bool[Array, "n r"]]


def _look(rows: Rows, states: tuple[KMeansState, ...]) -> tuple[KMeansState, ...]:
    """Compute the products of all rows whose nearest centroid may have changed.

    A few restarts at a time, whose rows are picked out, or all at once: whichever is less work.
    """
    opens = [may_change(state, rows.squares, rows.weights) for state in states]
    points = [state.centroids.reshape(-1, state.centroids.shape[2]) for state in states]
    widths = [len(part) for part in points]
    picking = sum(map(_picking, states, opens))
    reading = rows.weights.shape[0] * (sum(widths) + _READING)
    is_whole = jax.lax.platform_dependent(
        picking, cpu=lambda work: work > reading, default=lambda work: _KERNELS * work > reading
    )

    def whole(known: tuple[Known, ...]) -> tuple[Known, ...]:
        found = whole_products(rows, jnp.concatenate(points))
        parts = jnp.split(found, np.cumsum(widths)[:-1], axis=1)
        return tuple(
            (part.reshape(product.shape), jnp.ones_like(is_visited))
            for part, (product, is_visited) in zip(parts, known, strict=True)
        )

    def by_groups(known: tuple[Known, ...]) -> tuple[Known, ...]:
        return tuple(_pick(rows, *one) for one in zip(states, opens, known, strict=True))

    known = tuple(
        (state.products, jnp.zeros_like(is_open))
        for state, is_open in zip(states, opens, strict=True)
    )
    known = jax.lax.cond(is_whole & ~rows.is_far, whole, by_groups, known)
    return tuple(
        state._replace(products=product, drift=visit(state.drift, is_visited))
        for state, (product, is_visited) in zip(states, known, strict=True)
    )


def _picking(state: KMeansState, is_open: Bool[Array, "n r"]) -> Float[Array, ""]:
    """Return how much work it is to pick out the open rows, in products of a row."""
    size, begins = _groups(state)
    wanted = jax.vmap(lambda begin: _wanted(is_open, begin, size))(begins)
    return jnp.sum(wanted, dtype=jnp.float32) * (size * state.centroids.shape[1] + _PICKING)


def _pick(rows: Rows, state: KMeansState, is_open: Bool[Array, "n r"], known: Known) -> Known:
    """Compute the products of the open rows, one group of restarts after the other."""
    size, begins = _groups(state)
    dim = state.centroids.shape[2]
    part = jax.lax.dynamic_slice_in_dim
    put = jax.lax.dynamic_update_slice_in_dim

    def look_at(group: Array, known: Known) -> Known:
        begin = begins[group]
        is_wanted = _wanted(is_open, begin, size)
        product, is_visited = (part(values, begin, size, 1) for values in known)
        found = some_products(
            rows,
            part(state.centroids, begin, size).reshape(-1, dim),
            is_wanted=is_wanted,
            known=product.reshape(product.shape[0], -1),
        )
        return (
            put(known[0], found.reshape(product.shape), begin, 1),
            put(known[1], is_visited | is_wanted[:, None], begin, 1),
        )

    return jax.lax.fori_loop(0, len(begins), look_at, known)


def _wanted(is_open: Bool[Array, "n r"], begin: Int[Array, ""], size: int) -> Bool[Array, " n"]:
    return jnp.any(jax.lax.dynamic_slice_in_dim(is_open, begin, size, 1), axis=1)


def _groups(state: KMeansState) -> tuple[int, Int[Array, " g"]]:
    """Return for how many restarts rows are picked out together, and the first of each group."""
    num_init, num_clusters = state.centroids.shape[:2]
    num_groups = min(max(num_init * num_clusters // _GROUP, 1), num_init)
    size = -(-num_init // num_groups)
    # Of the last group some restarts belong to the one before it too.
    begins = jnp.arange(0, num_init, size, dtype=jnp.int32)
    return size, jnp.minimum(begins, num_init - size)


def fit(
    features: Float[Array, "n f"],
    key: PRNGKeyArray,
    *,
    num_clusters: int,
    num_init: int = 10,
    max_iter: int | Array = 100,
    tol: float | Array = 1e-4,
    method: str = "k-means++",
    centroids: Float[Array, "r k f"] | None = None,
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
        centroids: (r, k, f) where to start instead; the key and `num_init` then do not matter.
        weights: (n,) 1 for rows that count and 0 for padding; default: all count.
        axis_name: mesh axis over which the rows are split, if any.
    """
    return fit_numbers(
        features,
        key,
        numbers=(num_clusters,),
        num_init=num_init,
        max_iter=max_iter,
        tol=tol,
        method=method,
        centroids=centroids,
        weights=weights,
        axis_name=axis_name,
    )[0]


def fit_numbers(
    features: Float[Array, "n f"],
    key: PRNGKeyArray,
    *,
    numbers: tuple[int, ...],
    num_init: int,
    max_iter: int | Array,
    tol: float | Array,
    method: str,
    centroids: Float[Array, "r k f"] | None = None,
    weights: Float[Array, " n"] | None = None,
    axis_name: str | None = None,
) -> tuple[KMeansResult, ...]:
    """Do the same for several numbers of clusters, which share the reads; arguments as for `fit`.

    Centroids that are given are those of a single number.
    """
    rows = prepare(features, weights, axis_name=axis_name)
    if centroids is not None:
        states: tuple[KMeansState, ...] = (_start(rows, centroids - rows.offset[None, None, :]),)
    else:
        options: dict[str, Any] = {"num_init": num_init, "method": method, "axis_name": axis_name}
        states = init_numbers(rows, key, numbers=numbers, **options)
    states = iterate(rows, states, max_iter=max_iter, tol=tol, axis_name=axis_name)
    return tuple(finish(rows, state, axis_name=axis_name) for state in states)


def iterate(
    rows: Rows,
    states: tuple[KMeansState, ...],
    *,
    max_iter: int | Array,
    tol: float | Array,
    axis_name: str | None = None,
) -> tuple[KMeansState, ...]:
    """Repeat `step_numbers` until every restart is done or has taken `max_iter` steps."""

    def is_running(states: tuple[KMeansState, ...]) -> Array:
        running = [~state.is_done & (state.num_iter < max_iter) for state in states]
        return jnp.any(jnp.concatenate(running))

    def body(states: tuple[KMeansState, ...]) -> tuple[KMeansState, ...]:
        return step_numbers(rows, states, tol=tol, axis_name=axis_name)

    return jax.lax.while_loop(is_running, body, states)


def finish(rows: Rows, state: KMeansState, *, axis_name: str | None = None) -> KMeansResult:
    """Keep the restart with the smallest objective; see `describe`."""
    best = best_of(state, rows.offset)
    return describe(rows.features, best, weights=rows.weights, axis_name=axis_name)


def describe(
    features: Float[Array, "n f"],
    best: BestRestart,
    *,
    weights: Float[Array, " n"],
    axis_name: str | None = None,
) -> KMeansResult:
    """Assign all rows to a restart's centroids, in canonical order.

    The labels are those of `assign` with the centroids returned, to the last bit. They are computed
    again when they call for another order of the clusters than the one they were computed in.
    """
    num_clusters = best.centroids.shape[0]
    identity = jnp.arange(num_clusters, dtype=jnp.int32)

    def count(labels: Array) -> tuple[Array, Array]:
        return count_members(labels, weights, num_clusters=num_clusters, axis_name=axis_name)

    def order_of(labels: Array) -> Array:
        return canonical_order(*count(labels))

    def is_unordered(attempt: tuple[Array, Array, Array, Assignment]) -> Array:
        order, count = attempt[1:3]
        # Rounding could in theory make two orders alternate: three attempts are enough.
        return (count == 0) | (jnp.any(order != identity) & (count < 3))

    def assign_again(
        attempt: tuple[Array, Array, Array, Assignment],
    ) -> tuple[Array, Array, Array, Assignment]:
        centroids, order, count, _ = attempt
        centroids = centroids[order]
        assigned = assign_rows(features, centroids)
        return centroids, order_of(assigned.labels), count + 1, assigned

    zeros = jnp.zeros_like(weights)
    nothing = Assignment(zeros.astype(jnp.int32), zeros, zeros)
    attempt = (best.centroids, order_of(best.labels), jnp.int32(0), nothing)
    centroids, _, _, assigned = jax.lax.while_loop(is_unordered, assign_again, attempt)
    counts, _ = count(assigned.labels)
    return KMeansResult(
        centroids=centroids,
        labels=assigned.labels,
        inertia=all_sum(jnp.sum(assigned.squared_distances * weights), axis_name),
        num_iter=best.num_iter,
        converged=best.converged,
        margins=assigned.margins,
        counts=counts,
        inertias=best.inertias,
    )
