"""k-means over rows that do not fit into memory: the iteration of `lloyd`, block by block.

What is known of the restarts (`state`) stays in memory, O(n r k + r k f); rows are
asked for where they are needed and let go again. A row is read in an iteration only if

* its nearest centroid may have changed, by the bound of `state`, or
* what is known of it already says that it has: its sum has to move.

All restarts, trials and numbers of clusters share each read, so that a fit reads every row at most
k times for k-means++ (exact, not k-means||: the draws use the distances to all rows), once for the
first iteration, partly for the further ones, and once to assign. Rows are relative to the mean of
the first block: the distances do not depend on the origin, and any one amid the data keeps their
digits.

Each of several processes reads and holds its own rows. What they send is what the devices of
`cgjax.clustering.kmeans.sharded` do: drawn rows, and one sum of centroids an iteration.

Symbols: y rows (n, f) of this process, mu centroids (r, k, f), r restarts, k clusters, t trials,
s rows of a block.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from cgjax.clustering.assignment import Assignment, assign_rows
from cgjax.clustering.kmeans import gram
from cgjax.clustering.kmeans.bounds import count_marks, visit
from cgjax.clustering.kmeans.results import (
    BestRestart,
    KMeansResult,
    best_of,
    canonical_order,
    count_members,
    in_canonical_order,
)
from cgjax.clustering.kmeans.seeding import (
    choose,
    draw,
    draw_distinct,
    first_seeds,
    fresh_candidates,
    num_trials,
    uniforms,
    uniforms_of_rows,
)
from cgjax.clustering.kmeans.sources import ColumnSource, OnBlock, Reader, RowSource
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
from cgjax.kernels.distance import HIGHEST
from cgjax.runtime.mesh import join_rows

_sum = jax.jit(lambda block, is_real: jnp.sum(jnp.where(is_real[:, None], block, 0.0), axis=0))
_first_seeds = jax.jit(first_seeds, static_argnames=("num_clusters",))
_start = jax.jit(start)
_fill_empty = jax.jit(fill_empty)


def fit_streamed(
    source: RowSource,
    key: PRNGKeyArray,
    *,
    numbers: tuple[int, ...],
    num_init: int = 10,
    max_iter: int = 100,
    tol: float = 1e-4,
    method: str = "k-means++",
    centroids: Float[Array, "r k f"] | None = None,
    weights: Float[Array, " n"] | None = None,
    mesh: Mesh | None = None,
    on_block: OnBlock | None = None,
) -> tuple[KMeansResult, ...]:
    """Run k-means on rows that are read block by block; up to rounding what `lloyd` finds of them.

    Args:
        source: the rows; of several processes this one's, as many in each.
        key: random key; it draws the rows that `lloyd.fit_numbers` draws.
        numbers, num_init, max_iter, tol, method, centroids, weights: as for `lloyd.fit_numbers`.
        mesh: of the processes, from `cgjax.runtime.mesh.process_mesh`; None for one.
        on_block: called between two blocks; may raise to stop, then in every process.

    Returns:
        A result for each number; of several processes labels and margins are split over the mesh.

    Raises:
        UserError: naming the rows that hold NaN or Inf.
    """
    reader = Reader(source, on_block, weights=weights, mesh=mesh)
    first = reader.every[: source.block]
    own = jnp.zeros((source.dim,), jnp.float32)
    for index, block in reader.blocks("first block", first):
        own = _sum(block, index < source.num_rows)
    total, num = reader.total((own, jnp.float32(len(first))))
    offset = total / num
    reader.check_finite(first, jnp.sum(offset))
    options: dict[str, Any] = {"numbers": numbers, "num_init": num_init, "max_iter": max_iter}
    if (
        centroids is None
        and len(reader.every) == source.num_rows
        and mesh is None
        and isinstance(source, ColumnSource)
        and source.has_columns
        and gram.is_cheaper(source.num_rows, source.dim, **options)
    ):
        found = gram.fit_numbers(
            reader, source, key, origin=offset, tol=tol, method=method, **options
        )
        if found is not None:
            return tuple(_describe(reader, *both) for both in found)
    squares = jnp.zeros((source.num_rows,), jnp.float32)
    if centroids is None:
        centred, squares = _seed(
            reader,
            key,
            offset,
            squares,
            num_clusters=max(numbers),
            num_init=num_init,
            method=method,
        )
    else:
        centred = centroids - offset[None, None, :]
    states = tuple(_start(centred[:, :k], squares) for k in numbers)
    del centred
    for iteration in range(1, max_iter + 1):
        states, squares = _iterate(reader, states, squares, offset, tol, iteration)
        if all(bool(jnp.all(state.is_done)) for state in states):
            break
    bests = [_in_order(reader, best_of(state, offset)) for state in states]
    del states  # makes room for what the assignment holds
    assigned = _assign(reader, tuple(best.centroids for best in bests))
    return tuple(_describe(reader, *both) for both in zip(bests, assigned, strict=True))


def _seed(
    reader: Reader,
    key: PRNGKeyArray,
    offset: Float[Array, " f"],
    squares: Float[Array, " n"],
    *,
    num_clusters: int,
    num_init: int,
    method: str,
) -> tuple[Float[Array, "r k f"], Float[Array, " n"]]:
    """Choose the starting centroids as `seeding` does; also the rows' squares."""
    if method == "random":
        uniform = uniforms_of_rows(key, num_clusters=num_clusters, num_init=num_init)
        drawn = reader.over(draw_distinct)(uniform, reader.weights)
        return reader.fetch(drawn, offset), squares
    drawing, keeping = uniforms(key, num_clusters=num_clusters, num_init=num_init)

    def products(points: Array, count: int) -> Array:
        nonlocal squares
        product = jnp.zeros((reader.num_rows, points.shape[0]), jnp.float32)
        for index, block in reader.blocks(f"k-means++ {count}/{num_clusters}", reader.every):
            product, squares = _seed_block(product, squares, index, block, offset, points)
            product.block_until_ready()
        return product

    equally = jnp.broadcast_to(reader.weights[:, None], (reader.num_rows, num_init))
    drawn = reader.over(draw)(drawing[0, :, :1], equally)
    centres = reader.fetch(drawn, offset)[:, 0]
    product = products(centres, 1)
    reader.check_finite(reader.every, squares)
    options = {"squares": squares, "weights": reader.weights}
    seeds = _first_seeds(centres, product, num_clusters=num_clusters, **options)
    choose_best = reader.over(choose, trials=num_trials(num_clusters))
    num_reads = 1
    while (num_chosen := int(seeds.num_chosen)) < num_clusters:
        row, is_here = reader.over(draw)(drawing[num_reads], seeds.closest.T)
        closest = reader.from_shards(jnp.take_along_axis(seeds.closest, row, axis=1), is_here)
        picked = reader.fetch((row, is_here), offset)
        candidates = fresh_candidates(picked, closest, keeping[num_reads])
        product = products(picked.reshape(-1, len(offset)), num_chosen + 1)
        # A read donates the squares and finds them again.
        options = {"squares": squares, "weights": reader.weights}
        seeds = choose_best(seeds, candidates, product, **options)
        num_reads += 1
    return seeds.centroids, squares


@partial(jax.jit, donate_argnames=("product", "squares"))
def _seed_block(
    product: Float[Array, "n p"],
    squares: Float[Array, " n"],
    index: Int[Array, " s"],
    block: Float[Array, "s f"],
    offset: Float[Array, " f"],
    points: Float[Array, "p f"],
) -> tuple[Float[Array, "n p"], Float[Array, " n"]]:
    """Enter -2 <y, point> and ||y||^2 of a block's rows."""
    rows = block - offset[None, :]
    found = -2.0 * jnp.matmul(rows, points.T, precision=HIGHEST)
    return (
        product.at[index].set(found, mode="drop"),
        squares.at[index].set(jnp.sum(jnp.square(rows), axis=1), mode="drop"),
    )


def _iterate(
    reader: Reader,
    states: tuple[KMeansState, ...],
    squares: Float[Array, " n"],
    offset: Float[Array, " f"],
    tol: float,
    iteration: int,
) -> tuple[tuple[KMeansState, ...], Float[Array, " n"]]:
    """Do what `lloyd.step_numbers` does, in one reading of the rows that matter."""
    is_wanted = _must_be_read(states, squares, reader.weights)
    index = np.flatnonzero(np.asarray(is_wanted)).astype(np.int32)
    for filled, block in reader.blocks(f"iteration {iteration}", index):
        states, squares = _visit_block(states, squares, filled, block, offset)
        squares.block_until_ready()
    if iteration == 1:
        reader.check_finite(index, squares)
    counted = [_count(state, squares, reader.weights) for state in states]
    parts = [(state.sums, own) for state, (_, own) in zip(states, counted, strict=True)]
    moved = []
    for state, (labels, _), part in zip(states, counted, reader.total(parts), strict=True):
        moved.append(_move(reader, state, labels, squares, offset, part, tol))
    return tuple(moved), squares


def _move(
    reader: Reader,
    state: KMeansState,
    labels: Int[Array, "n r"],
    squares: Float[Array, " n"],
    offset: Float[Array, " f"],
    found: tuple[Array, tuple[Array, Array, Array]],
    tol: float,
) -> KMeansState:
    """Move the centroids to the means, by what was summed over all processes: see `_count`."""
    total, (counts, marks, all_squares) = found
    moved = _means(total, counts)
    if bool(jnp.any((counts == 0.0) & ~state.is_done[:, None])):
        drawn = reader.over(farthest)(state, squares, reader.weights)
        moved = _fill_empty(moved, counts, reader.fetch(drawn, offset))
    # Of one process it is the state's own, which is donated.
    others = None if reader.mesh is None else total
    return _advance(state, labels, others, counts, moved, marks, all_squares, jnp.float32(tol))


@jax.jit
def _must_be_read(
    states: tuple[KMeansState, ...], squares: Float[Array, " n"], weights: Float[Array, " n"]
) -> Bool[Array, " n"]:
    def some(state: KMeansState) -> Array:
        is_open = may_change(state, squares, weights)
        return jnp.any(is_open | (nearest_labels(state, weights) != state.labels), axis=1)

    return jnp.any(jnp.stack([some(state) for state in states]), axis=0)


@partial(jax.jit, donate_argnames=("states", "squares"))
def _visit_block(
    states: tuple[KMeansState, ...],
    squares: Float[Array, " n"],
    index: Int[Array, " s"],
    block: Float[Array, "s f"],
    offset: Float[Array, " f"],
) -> tuple[tuple[KMeansState, ...], Float[Array, " n"]]:
    """Enter the products of a block's rows and move those whose label changed to their new sums."""
    is_real = index < squares.shape[0]
    rows = jnp.where(is_real[:, None], block - offset[None, :], 0.0)
    own_squares = jnp.sum(jnp.square(rows), axis=1)
    states = tuple(_visit_rows(state, index, rows, is_real) for state in states)
    return states, squares.at[index].set(own_squares, mode="drop")


def _visit_rows(
    state: KMeansState,
    index: Int[Array, " s"],
    rows: Float[Array, "s f"],
    is_real: Bool[Array, " s"],
) -> KMeansState:
    num_init, num_clusters, dim = state.centroids.shape
    found = jnp.matmul(rows, state.centroids.reshape(-1, dim).T, precision=HIGHEST)
    found = -2.0 * found.reshape(-1, num_init, num_clusters)
    before = state.labels.at[index].get(mode="clip")
    weights = is_real.astype(jnp.float32)
    after = nearest_labels(state._replace(products=found, labels=before), weights)
    before = jnp.where(is_real[:, None], before, -1)

    def move(sums: Array) -> Array:
        member = one_hot(after, num_clusters) - one_hot(before, num_clusters)
        change = jax.lax.dot_general(member, rows, (((0,), (0,)), ((), ())), precision=HIGHEST)
        return sums + change.reshape(sums.shape)

    sums = jax.lax.cond(jnp.any(after != before), move, lambda sums: sums, state.sums)
    is_visited = jnp.zeros(state.labels.shape, bool).at[index].set(True, mode="drop")
    return state._replace(
        products=state.products.at[index].set(found, mode="drop"),
        drift=visit(state.drift, is_visited),
        sums=sums,
    )


@jax.jit
def _count(
    state: KMeansState, squares: Float[Array, " n"], weights: Float[Array, " n"]
) -> tuple[Int[Array, "n r"], tuple[Array, Array, Array]]:
    """Return the new labels; their counts (r, k), how many rows go by each mark, sum of squares."""
    labels = nearest_labels(state, weights)
    num_init, num_clusters = state.sums.shape[:2]
    counts = jnp.sum(one_hot(labels, num_clusters), axis=0).reshape(num_init, num_clusters)
    return labels, (counts, count_marks(state.drift), jnp.sum(squares))


@jax.jit
def _means(total: Float[Array, "r k f"], counts: Float[Array, "r k"]) -> Float[Array, "r k f"]:
    return total / jnp.maximum(counts, 1.0)[:, :, None]


@partial(jax.jit, donate_argnames=("state",))
def _advance(
    state: KMeansState,
    labels: Int[Array, "n r"],
    total: Float[Array, "r k f"] | None,
    counts: Float[Array, "r k"],
    moved: Float[Array, "r k f"],
    marks: Float[Array, " h"],
    all_squares: Float[Array, ""],
    tol: Float[Array, ""],
) -> KMeansState:
    total = state.sums if total is None else total
    # Those of any restart add up to all rows and their sum.
    num_rows = jnp.sum(counts[0])
    mean = jnp.sum(total[0], axis=0) / num_rows
    spread = all_squares / num_rows - jnp.sum(jnp.square(mean))
    advanced = advance(
        state,
        labels,
        total,
        counts,
        moved,
        marks=marks,
        all_squares=all_squares,
        least_shift=tol * spread / moved.shape[2],
    )
    # A state's sums are those of all rows; here each process keeps those of its own.
    return advanced._replace(sums=state.sums)


def _in_order(reader: Reader, best: BestRestart) -> BestRestart:
    """Put centroids in the canonical order of the last step's labels."""
    count = reader.over(count_members, num_clusters=len(best.centroids))
    order = canonical_order(*count(best.labels, reader.weights))
    return best._replace(centroids=best.centroids[order])


def _describe(reader: Reader, best: BestRestart, assigned: Assignment) -> KMeansResult:
    """Join both, in canonical order of the labels."""
    result = KMeansResult(
        centroids=best.centroids,
        labels=assigned.labels,
        inertia=reader.total(jnp.sum(assigned.squared_distances)),
        num_iter=best.num_iter,
        converged=best.converged,
        margins=assigned.margins,
        counts=jnp.zeros((len(best.centroids),), jnp.int32),
        inertias=best.inertias,
    )
    mesh = reader.mesh
    result = in_canonical_order(result, assigned.labels, weights=reader.weights, mesh=mesh)
    if mesh is None:
        return result
    num = mesh.size * reader.num_rows
    labels, margins = (
        join_rows(np.asarray(own), num, mesh)[0] for own in (result.labels, result.margins)
    )
    return result._replace(labels=labels, margins=margins)


def extend(
    result: KMeansResult,
    source: RowSource,
    *,
    weights: Float[Array, " n"] | None = None,
    mesh: Mesh | None = None,
    on_block: OnBlock | None = None,
) -> KMeansResult:
    """Assign further rows to the centroids that were found without them.

    Args:
        result: of the rows that were clustered, with all their labels.
        source: the further rows; of several processes this one's, as many in each.
        weights, mesh, on_block: as for `fit_streamed`.

    Returns:
        Labels and margins of all rows, the further ones last, with their inertia and counts, in
        canonical order.
    """
    reader = Reader(source, on_block, weights=weights, mesh=mesh)
    (further,) = _assign(reader, (result.centroids,))
    labels = jnp.concatenate([result.labels, reader.gather(further.labels)])
    result = result._replace(
        margins=jnp.concatenate([result.margins, reader.gather(further.margins)]),
        inertia=result.inertia + reader.total(jnp.sum(further.squared_distances)),
    )
    return in_canonical_order(result, labels)


def _assign(reader: Reader, centroids: tuple[Float[Array, "k f"], ...]) -> tuple[Assignment, ...]:
    """Assign all rows to several sets of centroids, in one reading."""
    zeros = np.zeros((reader.num_rows,), np.float32)
    # Each an array of its own, for all of them are donated.
    found = tuple(
        Assignment(*(jnp.array(zeros, dtype) for dtype in (jnp.int32, jnp.float32, jnp.float32)))
        for _ in centroids
    )
    for index, block in reader.blocks("assignment", reader.every):
        found = _assign_block(found, index, block, centroids)
        found[0].labels.block_until_ready()
    return found


@partial(jax.jit, donate_argnames=("found",))
def _assign_block(
    found: tuple[Assignment, ...],
    index: Int[Array, " s"],
    block: Float[Array, "s f"],
    centroids: tuple[Float[Array, "k f"], ...],
) -> tuple[Assignment, ...]:
    def enter(known: Assignment, centroids: Array) -> Assignment:
        new = assign_rows(block, centroids)
        entered = (a.at[index].set(b, mode="drop") for a, b in zip(known, new, strict=True))
        return Assignment(*entered)

    return tuple(map(enter, found, centroids))
