"""Lloyd's iteration for many restarts at once: init, step and fit as pure functions.

k-means looks for centroids mu that minimise

    sum_y min_c ||y - mu_c||^2                                              [Lloyd 1982]

All restarts share each pass over the data, and most of it is avoided without changing the result:

* Which rows are visited: those whose nearest centroid may have changed, by the bound of
  `cgjax.clustering.kmeans.state`.
* Which sums change: those of clusters with rows whose label changed, by these rows only.

Where that is most rows, one product with the whole data is faster than gathering them. With many
clusters one of them nearly always comes close enough to matter: then nothing is tracked between two
passes, no array of n k numbers is kept, and every row's nearest centroid is searched again.

Rows are relative to their mean: far from the origin the expanded square would lose its digits. No
centred copy of the data is made.

Symbols: y rows (n, f), mu centroids (r, k, f) relative to the offset, r restarts, k clusters,
s rows of a chunk. `axis_name` is the mesh axis over which the rows are split, if any.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, PRNGKeyArray

from cgjax.clustering.assignment import assign_rows
from cgjax.clustering.kmeans.options import Options
from cgjax.clustering.kmeans.results import (
    BestRestart,
    KMeansResult,
    best_of,
    describe,
    order_centroids,
)
from cgjax.clustering.kmeans.rows import Rows, centred, prepare, products
from cgjax.clustering.kmeans.seeding import seed_plus_plus, seed_random
from cgjax.clustering.kmeans.state import (
    Counts,
    KMeansState,
    advance,
    count,
    farthest,
    fill_empty,
    means,
    nearest_labels,
    start,
)
from cgjax.clustering.kmeans.subspace import most_points, span
from cgjax.clustering.kmeans.sums import Relabelling, sums
from cgjax.clustering.kmeans.visits import update_products
from cgjax.kernels.distance import nearest_
from cgjax.runtime.mesh import DATA_AXIS, all_sum, from_shards

# With fewer clusters than this, or than half the features, tracking was never slower (of 25,000 x
# 2,048 into 512 twice as fast). 50,000 x 64 into 64 and 100,000 x 512 into 256 take the same time
# both ways; searched again, 50,000 x 64 into 256 takes 0.42 of it, 200,000 x 512 into 1,000 0.8.
_MANY = 64

# Labels (n, r), and where they were searched for the squared distances (n, r).
Nearest = tuple[Array, Array | None]


def init(
    rows: Rows, key: PRNGKeyArray, options: Options, *, axis_name: str | None = None
) -> tuple[KMeansState, ...]:
    """Choose the starting centroids of all restarts, see `cgjax.clustering.kmeans.seeding`.

    Each number of clusters gets the first k of those chosen for the largest: k-means++ chooses
    centre by centre (and tries the number of candidates that the largest number calls for).

    Returns:
        A state for each number of clusters.
    """
    # Tracking saves time, except on a CPU for many clusters.
    is_many = min(options.numbers) >= max(_MANY, rows.features.shape[1] // 2)
    is_tracked = not is_many or jax.default_backend() != "cpu"
    if options.centroids is not None:
        centroids = options.centroids - rows.offset[None, None, :]
    elif options.method == "random":
        centroids = seed_random(rows, key, options, axis_name=axis_name)
    else:
        (centroids, product, *_), tried = seed_plus_plus(rows, key, options, axis_name=axis_name)
        if is_tracked:
            product, subspace = product.transpose(2, 0, 1), span(*tried)
            return tuple(
                start(centroids[:, :k], rows.squares, product[:, :, :k], subspace)
                for k in options.numbers
            )
    begin = partial(_start, rows, is_tracked=is_tracked)
    return tuple(begin(centroids[:, :k]) for k in options.numbers)


def _start(rows: Rows, centroids: Float[Array, "r k f"], *, is_tracked: bool) -> KMeansState:
    """Return the state of centroids whose products are not known yet."""
    if not is_tracked:
        return start(centroids, rows.squares, is_tracked=False)
    points = centroids.reshape(-1, centroids.shape[2])
    product = products(rows, points)
    num = len(points) if len(points) <= most_points(points.shape[1]) else 0
    subspace = span(points[:num], product[:, :num])
    return start(centroids, rows.squares, product.reshape(-1, *centroids.shape[:2]), subspace)


def step(
    rows: Rows,
    states: tuple[KMeansState, ...],
    *,
    tol: float | Array = 1e-4,
    axis_name: str | None = None,
) -> tuple[KMeansState, ...]:
    """Give every row to its nearest centroid and move every centroid to the mean of its rows.

    A cluster without members takes the row that is farthest from its own centroid (the next such
    row for the next empty cluster). A restart is done when the centroids' squared movement is at
    most `tol` times the mean variance of the features; it does not change from then on. The states
    are those of several numbers of clusters, which share the passes over the data.
    """
    if states[0].products.shape[2]:
        states = update_products(rows, states)
        nearest: list[Nearest] = [(nearest_labels(state, rows.weights), None) for state in states]
    else:
        nearest = [_search(rows, state) for state in states]
    changes = [
        Relabelling(labels, state.labels, state.sums)
        for (labels, _), state in zip(nearest, states, strict=True)
    ]
    totals = sums(rows, changes, axis_name=axis_name)
    counts = [
        count(state, change.new, rows.squares)
        for change, state in zip(changes, states, strict=True)
    ]
    counts = all_sum(counts, axis_name)

    def move(state: KMeansState, nearest: Nearest, total: Array, counts: Counts) -> KMeansState:
        labels, distances = nearest

        def refill(moved: Array) -> Array:
            row, is_here = farthest(
                state, rows.squares, rows.weights, distances, axis_name=axis_name
            )
            far = from_shards(centred(rows, row), is_here, axis_name)
            return fill_empty(moved, counts.members, far)

        moved = jax.lax.cond(
            jnp.any((counts.members == 0.0) & ~state.is_done[:, None]),
            refill,
            lambda moved: moved,
            means(total, counts.members),
        )
        least = tol * rows.spread / total.shape[2]
        return advance(state, labels, total, counts, moved, least)

    return tuple(map(move, states, nearest, totals, counts))


def _search(rows: Rows, state: KMeansState) -> Nearest:
    """Return the nearest centroid of every row, lowest id on ties; a done restart keeps its own."""

    def one(restart: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        centroids, labels, is_done = restart
        return jax.lax.cond(
            is_done,
            lambda: (labels, jnp.zeros_like(rows.squares)),
            lambda: nearest_(rows.features, centroids + rows.offset[None, :]),
        )

    labels, distances = jax.lax.map(one, (state.centroids, state.labels.T, state.is_done))
    return jnp.where(rows.weights[:, None] > 0.0, labels.T, -1), distances.T


def iterate(
    rows: Rows,
    states: tuple[KMeansState, ...],
    options: Options,
    *,
    axis_name: str | None = None,
) -> tuple[KMeansState, ...]:
    """Repeat `step` until every restart is done or has taken `max_iter` steps."""

    def is_running(states: tuple[KMeansState, ...]) -> Array:
        running = [~state.is_done & (state.num_iter < options.max_iter) for state in states]
        return jnp.any(jnp.concatenate(running))

    def body(states: tuple[KMeansState, ...]) -> tuple[KMeansState, ...]:
        return step(rows, states, tol=options.tol, axis_name=axis_name)

    return jax.lax.while_loop(is_running, body, states)


def assign_best(
    features: Float[Array, "n f"],
    best: BestRestart,
    weights: Float[Array, " n"] | None = None,
    *,
    axis_name: str | None = None,
) -> KMeansResult:
    """Assign all rows to a restart's centroids: one pass over the data.

    The clusters are ordered by the last step's labels first, so that the order almost always holds
    after the assignment, and the labels and margins equal those of `assign` to the last bit.
    """
    weights = jnp.ones((features.shape[0],), jnp.float32) if weights is None else weights
    best = order_centroids(best, weights, axis_name=axis_name)
    assigned = assign_rows(features, best.centroids)
    return describe(best, assigned, weights, axis_name=axis_name)


def fit(
    features: Float[Array, "n f"],
    key: PRNGKeyArray,
    options: Options,
    weights: Float[Array, " n"] | None = None,
    *,
    axis_name: str | None = None,
) -> tuple[KMeansResult, ...]:
    """Run all restarts to convergence and return the best: init, step until done, assign.

    A pure function: it can be jitted, vmapped over independent problems, and called inside
    `shard_map` with the rows split over `axis_name` (labels and margins are then the shard's own,
    everything else is the same in every shard).

    Args:
        features: (n, f) float32, finite, n >= max(options.numbers).
        key: random key, the same in every shard.
        options: how to search.
        weights: (n,) 1 for rows that count and 0 for padding; default: all count.
        axis_name: mesh axis over which the rows are split, if any.

    Returns:
        A result for each number of clusters.
    """
    rows = prepare(features, weights, axis_name=axis_name)
    states = init(rows, key, options, axis_name=axis_name)
    states = iterate(rows, states, options, axis_name=axis_name)
    return tuple(
        assign_best(features, best_of(state, rows.offset), rows.weights, axis_name=axis_name)
        for state in states
    )


@partial(jax.jit, static_argnames=("mesh",))
def fit_sharded(
    features: Float[Array, "n f"],
    key: PRNGKeyArray,
    options: Options,
    weights: Float[Array, " n"],
    *,
    mesh: Mesh,
) -> tuple[KMeansResult, ...]:
    """Run `fit` over the devices of a mesh: each of them holds and reads its own rows.

    Each iteration sends one sum over the devices: r k f numbers for the centroids and r k for their
    counts, whatever the number of rows.

    Args:
        features, key, options, weights: as for `fit`; the rows are split over the mesh, and n is a
            multiple of its size.
        mesh: from `cgjax.runtime.mesh.data_mesh`.

    Returns:
        A result for each number of clusters; labels and margins are split over the mesh as the rows
        are (those of padding rows are arbitrary), everything else is on every device.
    """
    own = P(DATA_AXIS)
    specs: Any = [own if f in ("labels", "margins") else P() for f in KMeansResult._fields]
    return jax.shard_map(
        partial(fit, axis_name=DATA_AXIS),
        mesh=mesh,
        in_specs=(own, P(), P(), own),
        out_specs=(KMeansResult(*specs),) * len(options.numbers),
    )(features, key, options, weights)
