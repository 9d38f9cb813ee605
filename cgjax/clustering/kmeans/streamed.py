"""k-means over rows that do not fit into memory: the iteration of `lloyd`, block by block.

What is known of the restarts (`state`) stays in memory, O(n r k + r k f); rows are read where they
are needed and not kept. A row is read in an iteration only if

* its nearest centroid may have changed, by the bound of `state`, or
* what is known of it already says that it has: its cluster's sum has to change.

All restarts, trials and numbers of clusters share each pass, so that a fit reads every row at most
k times for k-means++ (exact, not k-means||: the draws use the distances to all rows), once for the
first iteration, partly for the further ones, and once to assign. Rows are relative to the mean of
the first block: the distances do not depend on the origin, and any origin amid the data keeps their
digits.

Each of several processes reads and holds its own rows. What they send is what the devices of
`cgjax.clustering.kmeans.sharded` do: drawn rows, and one sum of centroids an iteration.

Symbols: y rows (n, f) of this process, mu centroids (r, k, f), r restarts, k clusters.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray

from cgjax.clustering.assignment import Assignment
from cgjax.clustering.kmeans import blocks, gram
from cgjax.clustering.kmeans.drawing import Uniforms, draw, draw_distinct
from cgjax.clustering.kmeans.options import Options
from cgjax.clustering.kmeans.results import (
    BestRestart,
    KMeansResult,
    best_of,
    describe,
    in_canonical_order,
    put_in_order,
)
from cgjax.clustering.kmeans.seeding import (
    choose,
    first_seeds,
    fresh_candidates,
    num_trials,
    uniforms,
    uniforms_of_rows,
)
from cgjax.clustering.kmeans.sources import ColumnSource, OnBlock, Reader, RowSource
from cgjax.clustering.kmeans.state import KMeansState, farthest, start
from cgjax.runtime.mesh import join_rows

_first_seeds = jax.jit(first_seeds, static_argnames=("num_clusters",))
_start = jax.jit(start)


def fit_streamed(
    source: RowSource,
    key: PRNGKeyArray,
    options: Options,
    *,
    weights: Float[Array, " n"] | None = None,
    mesh: Mesh | None = None,
    on_block: OnBlock | None = None,
) -> tuple[KMeansResult, ...]:
    """Run k-means on rows that are read block by block; up to rounding what `lloyd` finds of them.

    Args:
        source: the rows; of several processes this one's, as many in each.
        key: random key; it draws the rows that `lloyd.fit` draws.
        options: how to search.
        weights: (n,) 1 for rows that count and 0 for padding; default: all count.
        mesh: of the processes, from `cgjax.runtime.mesh.process_mesh`; None for one.
        on_block: called between two blocks; may raise to stop, then in every process.

    Returns:
        A result for each number of clusters; of several processes labels and margins are split over
        the mesh.

    Raises:
        UserError: naming the rows that hold NaN or Inf.
    """
    reader = Reader(source, on_block, weights=weights, mesh=mesh)
    offset = _first_mean(reader)
    if (
        options.centroids is None
        and len(reader.every) == source.num_rows
        and mesh is None
        and isinstance(source, ColumnSource)
        and source.has_columns
        and gram.is_cheaper(source.num_rows, source.dim, options)
    ):
        results = gram.fit_columns(reader, source, key, options, offset)
        if results is not None:
            return tuple(_describe(reader, best, assigned) for best, assigned in results)
    squares = jnp.zeros((source.num_rows,), jnp.float32)
    if options.centroids is not None:
        centred = options.centroids - offset[None, None, :]
    elif options.method == "random":
        centred = _random_rows(reader, key, offset, options)
    else:
        centred, squares = _seed(reader, key, offset, squares, options)
    states = tuple(_start(centred[:, :k], squares) for k in options.numbers)
    del centred
    for iteration in range(1, int(options.max_iter) + 1):
        states, squares = _iterate(reader, states, squares, offset, options.tol, iteration)
        if all(bool(jnp.all(state.is_done)) for state in states):
            break
    in_order = reader.over(put_in_order)
    bests = [in_order(best_of(state, offset), reader.weights) for state in states]
    del states  # makes room for the assignment
    assignments = _assign(reader, tuple(best.centroids for best in bests))
    return tuple(map(partial(_describe, reader), bests, assignments))


def _first_mean(reader: Reader) -> Float[Array, " f"]:
    """Return the mean of the first block of every process."""
    first = reader.every[: reader.block]
    add_up = partial(blocks.add_up, num_rows=reader.num_rows)
    own = reader.fold("first block", first, add_up, jnp.zeros((reader.dim,), jnp.float32))
    total, num = reader.total((own, jnp.float32(len(first))))
    offset = total / num
    reader.check_finite(first, jnp.sum(offset))
    return offset


def _random_rows(
    reader: Reader, key: PRNGKeyArray, offset: Float[Array, " f"], options: Options
) -> Float[Array, "r k f"]:
    """Choose different rows as `seeding.seed_random` does."""
    num_clusters = max(options.numbers)
    uniform = uniforms_of_rows(key, num_clusters=num_clusters, num_init=options.num_init)
    return reader.fetch(reader.over(draw_distinct)(uniform, reader.weights), offset)


def _seed(
    reader: Reader,
    key: PRNGKeyArray,
    offset: Float[Array, " f"],
    squares: Float[Array, " n"],
    options: Options,
) -> tuple[Float[Array, "r k f"], Float[Array, " n"]]:
    """Choose starting centroids as `seeding.seed_plus_plus` does; also return the rows' squares."""
    num_clusters, num_init = max(options.numbers), options.num_init
    drawing, keeping = uniforms(key, num_clusters=num_clusters, num_init=num_init)

    def products(points: Array, count: int) -> Array:
        nonlocal squares
        seed = partial(blocks.seed, offset=offset, points=points)
        empty = jnp.zeros((reader.num_rows, points.shape[0]), jnp.float32)
        what = f"k-means++ {count}/{num_clusters}"
        product, squares = reader.fold(what, reader.every, seed, (empty, squares))
        return product

    equally = jnp.broadcast_to(reader.weights[:, None], (reader.num_rows, num_init))
    first = Uniforms(*(values[0, :, :1] for values in drawing))
    drawn = reader.over(draw)(first, equally)
    centres = reader.fetch(drawn, offset)[:, 0]
    product = products(centres, 1)
    reader.check_finite(reader.every, squares)
    same = {"squares": squares, "weights": reader.weights}
    seeds = _first_seeds(centres, product, num_clusters=num_clusters, **same)
    choose_best = reader.over(choose, trials=num_trials(num_clusters))
    num_passes = 1
    while (num_chosen := int(seeds.num_chosen)) < num_clusters:
        row, is_here = reader.over(draw)(drawing.at(num_passes), seeds.closest.T)
        closest = reader.from_shards(jnp.take_along_axis(seeds.closest, row, axis=1), is_here)
        picked = reader.fetch((row, is_here), offset)
        candidates = fresh_candidates(picked, closest, keeping[num_passes])
        product = products(picked.reshape(-1, len(offset)), num_chosen + 1)
        # A pass donates the squares and computes them again.
        same = {"squares": squares, "weights": reader.weights}
        seeds = choose_best(seeds, candidates, product, **same)
        num_passes += 1
    return seeds.centroids, squares


def _iterate(
    reader: Reader,
    states: tuple[KMeansState, ...],
    squares: Float[Array, " n"],
    offset: Float[Array, " f"],
    tol: float | Array,
    iteration: int,
) -> tuple[tuple[KMeansState, ...], Float[Array, " n"]]:
    """Do what `lloyd.step` does, in one pass over the rows that matter."""
    is_wanted = blocks.must_be_read(states, squares, reader.weights)
    index = np.flatnonzero(np.asarray(is_wanted)).astype(np.int32)
    visit = partial(blocks.visit, offset=offset)
    states, squares = reader.fold(f"iteration {iteration}", index, visit, (states, squares))
    if iteration == 1:
        reader.check_finite(index, squares)
    counted = [blocks.count(state, squares, reader.weights) for state in states]
    own = [(state.sums, numbers) for state, (_, numbers) in zip(states, counted, strict=True)]
    moved = []
    for state, (labels, _), total in zip(states, counted, reader.total(own), strict=True):
        moved.append(_move(reader, state, labels, squares, offset, total, tol))
    return tuple(moved), squares


def _move(
    reader: Reader,
    state: KMeansState,
    labels: Int[Array, "n r"],
    squares: Float[Array, " n"],
    offset: Float[Array, " f"],
    totals: tuple[Array, blocks.Counts],
    tol: float | Array,
) -> KMeansState:
    """Move the centroids to the means, from sums over all processes (see `blocks.count`)."""
    total, counts = totals
    moved = blocks.means(total, counts.members)
    if bool(jnp.any((counts.members == 0.0) & ~state.is_done[:, None])):
        drawn = reader.over(farthest)(state, squares, reader.weights)
        moved = blocks.fill_empty(moved, counts.members, reader.fetch(drawn, offset))
    # With one process it is the state's own, which is donated.
    others = None if reader.mesh is None else total
    return blocks.advance(state, labels, others, counts, moved, jnp.float32(tol))


def _describe(reader: Reader, best: BestRestart, assigned: Assignment) -> KMeansResult:
    """Join both, in canonical order; with a mesh, labels and margins are split over it."""
    result: KMeansResult = reader.over(describe)(best, assigned, reader.weights)
    reader.check_finite(reader.every, result.inertia)
    mesh = reader.mesh
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
    inertia = result.inertia + reader.total(jnp.sum(further.squared_distances))
    reader.check_finite(reader.every, inertia)
    labels = jnp.concatenate([result.labels, reader.gather(further.labels)])
    margins = jnp.concatenate([result.margins, reader.gather(further.margins)])
    result = result._replace(labels=labels, margins=margins, inertia=inertia)
    return _in_canonical_order(result, jnp.ones(labels.shape, jnp.float32))


_in_canonical_order = jax.jit(in_canonical_order)


def _assign(reader: Reader, centroids: tuple[Array, ...]) -> tuple[Assignment, ...]:
    """Assign all rows to several sets of centroids (k, f), in one pass."""
    zeros = np.zeros((reader.num_rows,), np.float32)
    # Each an array of its own: all of them are donated.
    assigned = tuple(
        Assignment(*(jnp.array(zeros, dtype) for dtype in (jnp.int32, jnp.float32, jnp.float32)))
        for _ in centroids
    )
    assign = partial(blocks.assign, centroids=centroids)
    return reader.fold("assignment", reader.every, assign, assigned)
