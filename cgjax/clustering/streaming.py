"""k-means over rows that do not fit into memory: the iteration of `lloyd`, block by block.

What is known of the restarts (`cgjax.clustering.state`) stays in memory, O(n r k + r k f); rows are
asked for where they are needed and let go again. A row is read in an iteration only if

* its nearest centroid may have changed, by the bound of `state`, or
* what is known of it already says that it has: its sum has to move.

All restarts and trials share each read, so that a fit reads every row at most k times for k-means++
(exact, not k-means||: the draws use the distances to all rows), once for the first iteration,
partly for the further ones, and once to assign. Rows are relative to the mean of the first block:
the distances do not depend on the origin, and any one amid the data keeps their digits.

Symbols: y rows (n, f), mu centroids (r, k, f), r restarts, k clusters, t trials, s rows of a block.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from cgjax.clustering import gram
from cgjax.clustering.assignment import Assignment, assign_rows
from cgjax.clustering.drift import count_marks, visit
from cgjax.clustering.results import KMeansResult, canonical_order, in_canonical_order
from cgjax.clustering.seeding import (
    choose,
    draw,
    draw_distinct,
    first_seeds,
    fresh_candidates,
    num_trials,
    uniforms,
    uniforms_of_rows,
)
from cgjax.clustering.sources import ColumnSource, OnBlock, Reader, RowSource, check_finite
from cgjax.clustering.state import (
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

_mean = jax.jit(lambda block: jnp.mean(block, axis=0))
_draw = jax.jit(draw)
_draw_distinct = jax.jit(draw_distinct)
_first_seeds = jax.jit(first_seeds, static_argnames=("num_clusters",))
_choose = jax.jit(choose, static_argnames=("trials",))
_start = jax.jit(start)


def fit_streamed(
    source: RowSource,
    key: PRNGKeyArray,
    *,
    num_clusters: int,
    num_init: int = 10,
    max_iter: int = 100,
    tol: float = 1e-4,
    method: str = "k-means++",
    centroids: Float[Array, "r k f"] | None = None,
    on_block: OnBlock | None = None,
) -> KMeansResult:
    """Run k-means on rows that are read block by block; the result of `lloyd.fit` up to rounding.

    Args:
        source: the rows.
        key: random key; it draws the rows that `fit` draws.
        num_clusters, num_init, max_iter, tol, method, centroids: as for `fit`.
        on_block: called between two blocks; may raise to stop.

    Raises:
        UserError: naming the rows that hold NaN or Inf.
    """
    reader = Reader(source, on_block)
    first = np.arange(source.block, dtype=np.int32)
    ((_, block),) = reader.blocks("first block", first)
    offset = _mean(block)
    check_finite(reader, first, np.asarray(jnp.sum(offset)))
    counts = {"num_clusters": num_clusters, "num_init": num_init, "max_iter": max_iter}
    if (
        centroids is None
        and isinstance(source, ColumnSource)
        and source.has_columns
        and gram.is_cheaper(source.num_rows, source.dim, **counts)
    ):
        result = gram.fit(reader, source, key, origin=offset, tol=tol, method=method, **counts)
        if result is not None:
            return result
    squares = jnp.zeros((source.num_rows,), jnp.float32)
    if centroids is None:
        centred, squares = _seed(
            reader,
            key,
            offset,
            squares,
            num_clusters=num_clusters,
            num_init=num_init,
            method=method,
        )
    else:
        centred = centroids - offset[None, None, :]
    state = _start(centred, squares)
    del centred
    for iteration in range(1, max_iter + 1):
        state, squares = _iterate(reader, state, squares, offset, tol, iteration)
        if bool(jnp.all(state.is_done)):
            break
    return _finish(reader, state, offset)


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
    """Choose the starting centroids as `cgjax.clustering.seeding` does; also the rows' squares."""
    num_rows = reader.num_rows
    weights = jnp.ones((num_rows,), jnp.float32)
    if method == "random":
        uniform = uniforms_of_rows(key, num_clusters=num_clusters, num_init=num_init)
        row, _ = _draw_distinct(uniform, weights)
        return reader.fetch(np.asarray(row), offset), squares
    drawing, keeping = uniforms(key, num_clusters=num_clusters, num_init=num_init)
    every = np.arange(num_rows, dtype=np.int32)

    def products(points: Array, count: int) -> Array:
        nonlocal squares
        product = jnp.zeros((num_rows, points.shape[0]), jnp.float32)
        for index, block in reader.blocks(f"k-means++ {count}/{num_clusters}", every):
            product, squares = _seed_block(product, squares, index, block, offset, points)
            product.block_until_ready()
        return product

    row, _ = _draw(drawing[0, :, :1], jnp.ones((num_rows, num_init), jnp.float32))
    centres = reader.fetch(np.asarray(row), offset)[:, 0]
    product = products(centres, 1)
    check_finite(reader, every, np.asarray(squares))
    options = {"squares": squares, "weights": weights}
    seeds = _first_seeds(centres, product, num_clusters=num_clusters, **options)
    num_reads = 1
    while (num_chosen := int(seeds.num_chosen)) < num_clusters:
        row, _ = _draw(drawing[num_reads], seeds.closest.T)
        closest = jnp.take_along_axis(seeds.closest, row, axis=1)
        picked = reader.fetch(np.asarray(row), offset)
        candidates = fresh_candidates(picked, closest, keeping[num_reads])
        product = products(picked.reshape(-1, len(offset)), num_chosen + 1)
        # A read donates the squares and finds them again.
        options = {"squares": squares, "weights": weights}
        seeds = _choose(seeds, candidates, product, trials=num_trials(num_clusters), **options)
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
    state: KMeansState,
    squares: Float[Array, " n"],
    offset: Float[Array, " f"],
    tol: float,
    iteration: int,
) -> tuple[KMeansState, Float[Array, " n"]]:
    """Do what `lloyd.step` does, in one reading of the rows that matter."""
    index = np.flatnonzero(np.asarray(_must_be_read(state, squares))).astype(np.int32)
    for filled, block in reader.blocks(f"iteration {iteration}", index):
        state, squares = _visit_block(state, squares, filled, block, offset)
        squares.block_until_ready()
    if iteration == 1:
        check_finite(reader, index, np.asarray(squares))
    labels, counts, moved = _means(state, squares)
    if bool(jnp.any((counts == 0.0) & ~state.is_done[:, None])):
        far = reader.fetch(np.asarray(_farthest(state, squares)), offset)
        moved = _fill_empty(moved, counts, far)
    return _advance(state, squares, labels, counts, moved, jnp.float32(tol)), squares


@jax.jit
def _must_be_read(state: KMeansState, squares: Float[Array, " n"]) -> Bool[Array, " n"]:
    weights = jnp.ones_like(squares)
    is_open = may_change(state, squares, weights)
    return jnp.any(is_open | (nearest_labels(state, weights) != state.labels), axis=1)


@partial(jax.jit, donate_argnames=("state", "squares"))
def _visit_block(
    state: KMeansState,
    squares: Float[Array, " n"],
    index: Int[Array, " s"],
    block: Float[Array, "s f"],
    offset: Float[Array, " f"],
) -> tuple[KMeansState, Float[Array, " n"]]:
    """Enter the products of a block's rows and move those whose label changed to their new sums."""
    num_init, num_clusters, dim = state.centroids.shape
    is_real = index < squares.shape[0]
    rows = jnp.where(is_real[:, None], block - offset[None, :], 0.0)
    own_squares = jnp.sum(jnp.square(rows), axis=1)
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
    return (
        state._replace(
            products=state.products.at[index].set(found, mode="drop"),
            drift=visit(state.drift, is_visited),
            sums=sums,
        ),
        squares.at[index].set(own_squares, mode="drop"),
    )


@jax.jit
def _means(
    state: KMeansState, squares: Float[Array, " n"]
) -> tuple[Int[Array, "n r"], Float[Array, "r k"], Float[Array, "r k f"]]:
    """Return the new labels, their counts and the means of the sums."""
    labels = nearest_labels(state, jnp.ones_like(squares))
    num_init, num_clusters = state.sums.shape[:2]
    counts = jnp.sum(one_hot(labels, num_clusters), axis=0).reshape(num_init, num_clusters)
    return labels, counts, state.sums / jnp.maximum(counts, 1.0)[:, :, None]


@jax.jit
def _farthest(state: KMeansState, squares: Float[Array, " n"]) -> Int[Array, "r m"]:
    return farthest(state, squares, jnp.ones_like(squares))[1]


_fill_empty = jax.jit(fill_empty)


@partial(jax.jit, donate_argnames=("state",))
def _advance(
    state: KMeansState,
    squares: Float[Array, " n"],
    labels: Int[Array, "n r"],
    counts: Float[Array, "r k"],
    moved: Float[Array, "r k f"],
    tol: Float[Array, ""],
) -> KMeansState:
    num_rows, dim = squares.shape[0], moved.shape[2]
    # The sums of any restart add up to the sum of all rows.
    mean = jnp.sum(state.sums[0], axis=0) / num_rows
    spread = jnp.mean(squares) - jnp.sum(jnp.square(mean))
    return advance(
        state,
        labels,
        state.sums,
        counts,
        moved,
        marks=count_marks(state.drift),
        all_squares=jnp.sum(squares),
        least_shift=tol * spread / dim,
    )


def _finish(reader: Reader, state: KMeansState, offset: Float[Array, " f"]) -> KMeansResult:
    """Keep the restart with the smallest objective, assign to it, put it in canonical order."""
    best = int(jnp.argmin(state.inertias))
    centroids = state.centroids[best] + offset[None, :]
    num_iter, is_done, inertias = state.num_iter[best], state.is_done[best], state.inertias
    labels = np.asarray(state.labels[:, best])
    del state  # makes room for what the assignment holds
    centroids = centroids[canonical_order(labels, centroids.shape[0])]
    found = _assign(reader, centroids)
    result = KMeansResult(
        centroids=centroids,
        labels=found.labels,
        inertia=jnp.sum(found.squared_distances),
        num_iter=num_iter,
        converged=is_done,
        margins=found.margins,
        counts=jnp.zeros((centroids.shape[0],), jnp.int32),
        inertias=inertias,
    )
    return in_canonical_order(result, np.asarray(found.labels))


def extend(
    result: KMeansResult, source: RowSource, *, on_block: OnBlock | None = None
) -> KMeansResult:
    """Assign further rows to the centroids that were found without them.

    Args:
        result: of the rows that were clustered.
        source: the further rows.
        on_block: called between two blocks; may raise to stop.

    Returns:
        Labels and margins of all rows, the further ones last, with their inertia and counts, in
        canonical order.
    """
    further = _assign(Reader(source, on_block), result.centroids)
    labels = np.concatenate([result.labels, further.labels])
    result = result._replace(
        margins=jnp.concatenate([result.margins, further.margins]),
        inertia=result.inertia + jnp.sum(further.squared_distances),
    )
    return in_canonical_order(result, labels)


def _assign(reader: Reader, centroids: Float[Array, "k f"]) -> Assignment:
    zeros = jnp.zeros((reader.num_rows,), jnp.float32)
    found = Assignment(zeros.astype(jnp.int32), zeros, jnp.zeros_like(zeros))
    every = np.arange(reader.num_rows, dtype=np.int32)
    for index, block in reader.blocks("assignment", every):
        found = _assign_block(found, index, block, centroids)
        found.labels.block_until_ready()
    return found


@partial(jax.jit, donate_argnames=("found",))
def _assign_block(
    found: Assignment,
    index: Int[Array, " s"],
    block: Float[Array, "s f"],
    centroids: Float[Array, "k f"],
) -> Assignment:
    new = assign_rows(block, centroids)
    entered = (a.at[index].set(b, mode="drop") for a, b in zip(found, new, strict=True))
    return Assignment(*entered)
