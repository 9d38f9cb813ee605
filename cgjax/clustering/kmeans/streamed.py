"""k-means over rows that do not fit into memory: the iteration of `lloyd`, block by block.

What is known of the restarts (`state`) stays in memory, O(n r k + r k f); rows are read where they
are needed and not kept. A row is read in an iteration only if

* its nearest centroid may have changed, by the bound of `state`, or
* its tracked products already show that it has: its cluster's sum has to change.

All restarts, trials and numbers of clusters share each pass, so that a fit reads every row at most
k times for k-means++ (exact, not k-means||: the draws use the distances to all rows), once for the
first iteration, partly for the further ones, and once to assign. Rows are relative to the mean of
the first block: the distances do not depend on the origin, and any origin amid the data keeps their
digits.

Each of several processes reads and holds its own rows. They send each other what the devices of
`lloyd.fit_sharded` do: drawn rows, and one sum of centroids an iteration.

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
from cgjax.clustering.kmeans.drawing import Uniforms, draw_distinct
from cgjax.clustering.kmeans.options import Options
from cgjax.clustering.kmeans.results import (
    BestRestart,
    KMeansResult,
    best_of,
    describe,
    in_canonical_order,
    order_centroids,
)
from cgjax.clustering.kmeans.seeding import (
    Candidates,
    choose,
    draw_candidates,
    draw_first,
    first_seeds,
    uniforms,
)
from cgjax.clustering.kmeans.sources import ColumnSource, OnBlock, Reader, RowSource
from cgjax.clustering.kmeans.state import Counts, KMeansState, farthest, start
from cgjax.runtime.mesh import join_rows

_first_seeds = jax.jit(first_seeds, static_argnames=("num_clusters",))
_start = jax.jit(start)
_in_canonical_order = jax.jit(in_canonical_order)


def fit_streamed(
    source: RowSource,
    key: PRNGKeyArray,
    options: Options,
    *,
    weights: Float[Array, " n"] | None = None,
    mesh: Mesh | None = None,
    on_block: OnBlock | None = None,
) -> tuple[KMeansResult, ...]:
    """Run k-means on rows read block by block; the result is that of `lloyd.fit` up to rounding.

    Args:
        source: the rows; with several processes this one's, the same number in each.
        key: random key; it draws the rows that `lloyd.fit` draws.
        options: how to search.
        weights: (n,) 1 for rows that count and 0 for padding; default: all count.
        mesh: of the processes, from `cgjax.runtime.mesh.process_mesh`; None for one.
        on_block: called between two blocks; may raise to stop, then in every process.

    Returns:
        A result for each number of clusters; with several processes labels and margins are split
        over the mesh.

    Raises:
        UserError: naming the rows that hold NaN or Inf.
    """
    reader = Reader(source, on_block, weights=weights, mesh=mesh)
    offset = _first_mean(reader)
    if (
        len(reader.every) == source.num_rows
        and mesh is None
        and isinstance(source, ColumnSource)
        and source.has_columns
        and gram.is_cheaper(source.num_rows, source.dim, options)
    ):
        results = gram.fit_columns(reader, source, key, options, offset)
        if results is not None:
            return tuple(_describe(reader, best, assigned) for best, assigned in results)
    search = _Search(reader, options, offset)
    states = search.start(key)
    for iteration in range(1, int(options.max_iter) + 1):
        states = search.step(states, iteration)
        if all(bool(jnp.all(state.is_done)) for state in states):
            break
    in_order = reader.over(order_centroids)
    bests = [in_order(best_of(state, offset), reader.weights) for state in states]
    del states, search  # makes room for the assignment
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


class _Search:
    """`lloyd.init` and `lloyd.step`, reading rows block by block."""

    def __init__(self, reader: Reader, options: Options, offset: Float[Array, " f"]):
        self._reader, self._options, self._offset = reader, options, offset
        # Squared norms of the rows, entered as they are read. A pass donates and returns them.
        self._squares = jnp.zeros((reader.num_rows,), jnp.float32)

    def start(self, key: PRNGKeyArray) -> tuple[KMeansState, ...]:
        """Return a state for each number of clusters, at the starting centroids."""
        options = self._options
        if options.centroids is not None:
            centroids = options.centroids - self._offset[None, None, :]
        elif options.method == "random":
            uniform = Uniforms.draw(key, (max(options.numbers), options.num_init, 1))
            drawn = self._reader.over(draw_distinct)(uniform, self._reader.weights)
            centroids = self._reader.fetch(drawn, self._offset)
        else:
            centroids = self._seed(key)
        return tuple(_start(centroids[:, :k], self._squares) for k in options.numbers)

    def _seed(self, key: PRNGKeyArray) -> Float[Array, "r k f"]:
        """Choose starting centroids as `seeding.seed_plus_plus` does."""
        reader, num_clusters = self._reader, max(self._options.numbers)
        weights = reader.weights
        drawing, keeping = uniforms(key, self._options)
        centres = reader.fetch(reader.over(draw_first)(drawing, weights), self._offset)[:, 0]
        product = self._products(centres, 1)
        reader.check_finite(reader.every, self._squares)
        seeds = _first_seeds(centres, product, self._squares, weights, num_clusters=num_clusters)
        num_passes = 1
        while (num_chosen := int(seeds.num_chosen)) < num_clusters:
            drawn, closest = reader.over(draw_candidates)(drawing.at(num_passes), seeds.closest)
            picked = reader.fetch(drawn, self._offset)
            candidates = Candidates(picked, closest, keeping[num_passes])
            product = self._products(picked.reshape(-1, reader.dim), num_chosen + 1)
            seeds = reader.over(choose)(seeds, candidates, product, self._squares, weights)
            num_passes += 1
        return seeds.centroids

    def _products(self, points: Float[Array, "p f"], count: int) -> Float[Array, "n p"]:
        """Return -2 <y, point> from a pass over all rows, for the given centre of k-means++."""
        seed = partial(blocks.seed, offset=self._offset, points=points)
        empty = jnp.zeros((self._reader.num_rows, points.shape[0]), jnp.float32)
        what, every = f"k-means++ {count}/{max(self._options.numbers)}", self._reader.every
        product, self._squares = self._reader.fold(what, every, seed, (empty, self._squares))
        return product

    def step(self, states: tuple[KMeansState, ...], iteration: int) -> tuple[KMeansState, ...]:
        """Do what `lloyd.step` does, in one pass over the rows that matter."""
        reader = self._reader
        is_needed = blocks.must_be_read(states, self._squares, reader.weights)
        index = np.flatnonzero(np.asarray(is_needed)).astype(np.int32)
        visit = partial(blocks.visit, offset=self._offset)
        what = f"iteration {iteration}"
        states, self._squares = reader.fold(what, index, visit, (states, self._squares))
        if iteration == 1:
            reader.check_finite(index, self._squares)
        counted = [blocks.count(state, self._squares, reader.weights) for state in states]
        own = [(state.sums, counts) for state, (_, counts) in zip(states, counted, strict=True)]
        labels = [own_labels for own_labels, _ in counted]
        return tuple(map(self._move, states, labels, reader.total(own)))

    def _move(
        self,
        state: KMeansState,
        labels: Int[Array, "n r"],
        totals: tuple[Array, Counts],
    ) -> KMeansState:
        """Move the centroids to the means, from sums over all processes (see `blocks.count`)."""
        reader, (total, counts) = self._reader, totals
        moved = blocks.means(total, counts.members)
        if bool(jnp.any((counts.members == 0.0) & ~state.is_done[:, None])):
            drawn = reader.over(farthest)(state, self._squares, reader.weights)
            moved = blocks.fill_empty(moved, counts.members, reader.fetch(drawn, self._offset))
        # With one process it is the state's own, which is donated.
        others = None if reader.mesh is None else total
        return blocks.advance(state, labels, others, counts, moved, jnp.float32(self._options.tol))


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
        source: the further rows; with several processes this one's, the same number in each.
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
