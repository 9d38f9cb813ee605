"""k-means of few long rows by their inner products.

The objective, its seeding and its iteration know the rows only by their distances, and those are in

    G = (Y - o)(Y - o)^T = L L^T

for any origin o. The n rows of L have the same distances as the rows of Y and n numbers each
instead of f, so that every restart, iteration and number of clusters runs in memory. That takes one
pass over Y for G, and one for the centroids, which are means of rows of Y, and the distances to
them: both a slab of columns at a time, where all rows meet. The products are n^2 f operations: G is
symmetric, and half of it is enough.

Symbols: y rows (n, f), G their products (n, n), w columns of a slab, r restarts, k clusters.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray
from scipy.linalg.lapack import dpstrf

from cgjax.clustering.assignment import Assignment
from cgjax.clustering.kmeans.lloyd import init, iterate
from cgjax.clustering.kmeans.options import Options
from cgjax.clustering.kmeans.results import BestRestart, best_of
from cgjax.clustering.kmeans.rows import Rows, prepare, products
from cgjax.clustering.kmeans.sources import ArrayRows, ColumnSource, OnProgress, Reader
from cgjax.clustering.kmeans.state import KMeansState, one_hot
from cgjax.kernels.products import HIGHEST
from cgjax.runtime.memory import empty_aligned

# The size of one slab (two are held), and the most for G in float64.
_SLAB_MB, _GRAM_MB = 64, 256
# Rows in memory must exceed this.
_LARGE_MB = 256


class _Cost(NamedTuple):
    """What clustering without inner products costs; estimates.

    Attributes:
        read: how many products take as long as reading one number.
        iterations: how many full passes the iterations amount to where nothing else ends them.
    """

    read: int
    iterations: int


# From 1.4 s an iteration at 2,000 x 524,288.
_STREAMED = _Cost(read=200, iterations=15)
# Seen: 2 (groups far apart, C = 2), 5 to 8 (real features), 17 (no groups).
_IN_MEMORY = _Cost(read=100, iterations=8)


def is_cheaper(num_rows: int, dim: int, options: Options) -> bool:
    """Return whether the inner products cost less than the passes that they save.

    Counted for each of the n f numbers: n operations for half of G and one pass, against 4 r k
    operations (of all numbers k) and a pass for each centre of k-means++ and each iteration.
    """
    return _gain(_STREAMED, num_rows, dim, options) > 0.0


def is_cheaper_in_memory(num_rows: int, dim: int, options: Options) -> bool:
    """Return the same for rows in memory: on a CPU, and only if they far exceed its caches."""
    is_large = 4 * num_rows * dim > _LARGE_MB * 2**20
    gain = _gain(_IN_MEMORY, num_rows, dim, options)
    return is_large and gain > 0.0 and jax.default_backend() == "cpu"


def _gain(cost: _Cost, num_rows: int, dim: int, options: Options) -> float:
    """Return how many operations are saved for each of the n f numbers."""
    if not _has_room(num_rows, dim):
        return 0.0
    passes = max(options.numbers) + min(int(options.max_iter), cost.iterations)
    without = passes * (4 * options.num_init * sum(options.numbers) + cost.read)
    # The n rows of L, of n numbers each, are clustered too.
    return without * (1 - num_rows / dim) - (num_rows + cost.read)


def slab_width(num_rows: int, dim: int) -> int:
    """Return how many columns are read at a time: all of them where there is no room for G."""
    if not _has_room(num_rows, dim):
        return dim
    width = int(_SLAB_MB * 2**20) // (4 * num_rows)
    # Of a multiple of 1,024 numbers a row fills whole pages, in the file too.
    multiple = 1024 if width >= 1024 else 64
    return min(max(width // multiple * multiple, multiple), dim)


def _has_room(num_rows: int, dim: int) -> bool:
    return num_rows <= dim and 8 * num_rows**2 <= _GRAM_MB * 2**20


def inner_products(
    source: ColumnSource,
    origin: Float[np.ndarray, " f"],
    on_columns: OnProgress,
) -> Float[np.ndarray, "n n"]:
    """Return G.

    O(n^2 f) time in one pass, O(n^2 + n w) memory.

    Args:
        source: the rows, all of them kept.
        origin: (f,), amid the rows, so that their products keep their digits.
        on_columns: called after every slab.

    Returns:
        (n, n) float64, summed over slabs of float32 products.
    """
    shape = (source.num_rows, source.num_rows)
    total, product = np.zeros(shape), np.empty(shape, np.float32)
    for begin, slab in _slabs(source, origin=origin):
        with np.errstate(invalid="ignore", over="ignore"):
            total += _multiply(slab, product)
        on_columns(min(begin + slab.shape[1], source.dim), source.dim)
    return total


def _multiply(
    rows: Float[np.ndarray, "n w"], out: Float[np.ndarray, "n n"]
) -> Float[np.ndarray, "n n"]:
    """Return the rows' products, in the array given where that is faster."""
    if jax.default_backend() != "cpu":
        return np.asarray(_square(rows))
    # numpy sees that both sides are one matrix and lets BLAS do half of the work; XLA does not.
    # Unlike scipy's call of the same BLAS routine it releases the lock, so the next slab is read.
    return np.matmul(rows, rows.T, out=out)


_square = jax.jit(lambda rows: jnp.matmul(rows, rows.T, precision=HIGHEST))


def assign_to_means(
    source: ColumnSource,
    restarts: Sequence[tuple[BestRestart, Array]],
    origin: Float[np.ndarray, " f"],
    on_columns: OnProgress,
) -> list[tuple[BestRestart, Assignment]]:
    """Return restarts with their centroids and, from the same pass, every row's assignment.

    O(n k f) time. What `cgjax.clustering.assignment` computes for a row is summed over the slabs.

    Args:
        source: the rows, all of them kept.
        restarts: for each number of clusters the best restart and how much (k, n) of each row is
            in each centroid, see `best_restarts`.
        origin: as above.
        on_columns: called after every slab.
    """
    sums = [_Sums.of(shares, source.dim) for _, shares in restarts]
    for begin, slab in _slabs(source):
        end = min(begin + slab.shape[1], source.dim)
        part = _part(origin, begin, slab.shape[1])
        for (best, shares), one in zip(restarts, sums, strict=True):
            mean, order, own = _compare(slab, part, best.labels, shares)
            one.means[:, begin:end] = np.asarray(mean)[:, : end - begin]
            one.relative[:] += np.asarray(order)
            one.own[:] += np.asarray(own)
        on_columns(end, source.dim)
    return [
        (best._replace(centroids=jnp.asarray(one.means)), one.assign(np.asarray(best.labels)))
        for (best, _), one in zip(restarts, sums, strict=True)
    ]


class _Sums(NamedTuple):
    """The sums over the slabs.

    Attributes:
        means: (k, f) float32, the centroids.
        relative: (n, k) float64, squared distances to them, up to a constant of each row.
        own: (n,) float64, squared distance to the centroid of the row's label.
    """

    means: Float[np.ndarray, "k f"]
    relative: Float[np.ndarray, "n k"]
    own: Float[np.ndarray, " n"]

    @classmethod
    def of(cls, shares: Float[Array, "k n"], dim: int) -> "_Sums":
        """Return the sums before the first slab."""
        num_clusters, num_rows = shares.shape
        means = np.empty((num_clusters, dim), np.float32)
        return cls(means, np.zeros((num_rows, num_clusters)), np.zeros(num_rows))

    def assign(self, last_labels: Int[np.ndarray, " n"]) -> Assignment:
        """Return every row's assignment; the last step's label may have been another."""
        rows = np.arange(len(self.own))
        labels = np.argmin(self.relative, axis=1)
        smallest = self.relative[rows, labels]
        # The centroids have moved since the labels were computed: the nearest may be another now.
        squared = np.maximum(self.own + smallest - self.relative[rows, last_labels], 0.0)
        others = self.relative.copy()
        others[rows, labels] = np.inf
        gap = np.min(others, axis=1) - smallest
        root = np.sqrt(squared)
        with np.errstate(invalid="ignore"):  # one cluster, or centroids that coincide with the row
            margins = np.nan_to_num(gap / (root + np.sqrt(squared + gap)), posinf=0.0)
        return Assignment(
            jnp.asarray(labels, jnp.int32),
            jnp.asarray(margins, jnp.float32),
            jnp.asarray(squared, jnp.float32),
        )


def _slabs(
    source: ColumnSource, *, origin: Float[np.ndarray, " f"] | None = None
) -> Iterator[tuple[int, Float[np.ndarray, "n w"]]]:
    """Yield first columns and slabs while the next is read; the last is filled up with zeros.

    A slab, relative to the origin if there is one, lives until the next one is asked for.
    """
    width = slab_width(source.num_rows, source.dim)
    buffers = [empty_aligned((source.num_rows, width)) for _ in range(2)]
    starts = range(0, source.dim, width)

    def read(number: int) -> Float[np.ndarray, "n w"]:
        slab, begin = buffers[number % 2], starts[number]
        left = min(width, source.dim - begin)
        source.read_columns(begin, slab[:, :left])
        slab[:, left:] = 0.0
        if origin is not None:
            with np.errstate(invalid="ignore"):  # the caller looks for NaN and Inf
                slab -= _part(origin, begin, width)
        return slab

    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(read, 0)
        for number, begin in enumerate(starts):
            slab = ahead.result()
            if number + 1 < len(starts):
                ahead = pool.submit(read, number + 1)
            yield begin, slab


def _part(origin: Float[np.ndarray, " f"], begin: int, width: int) -> Float[np.ndarray, " w"]:
    part = origin[begin : begin + width]
    return np.pad(part, (0, width - len(part)))


@jax.jit
def _compare(
    slab: Float[Array, "n w"],
    origin: Float[Array, " w"],
    labels: Int[Array, " n"],
    shares: Float[Array, "k n"],
) -> tuple[Float[Array, "k w"], Float[Array, "n k"], Float[Array, " n"]]:
    """Return the means, the squared distances to them (up to a constant of each row) and the
    squared distance to the mean of the row's label."""
    rows = slab - origin[None, :]
    means = jnp.matmul(shares, rows, precision=HIGHEST)
    middle = jnp.mean(means, axis=0)
    points = means - middle[None, :]
    order = jnp.sum(jnp.square(points), axis=1)[None, :] - 2.0 * jnp.matmul(
        rows - middle[None, :], points.T, precision=HIGHEST
    )
    own = jnp.sum(jnp.square(rows - means[labels]), axis=1)
    return means + origin[None, :], order, own


def embed(gram: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """Return rows with the given inner products: L of G = L L^T, by pivoted Cholesky.

    Args:
        gram: (n, n) float64, G; it is overwritten.

    Returns:
        (n, n) float32; where the rows span fewer dimensions the last columns are zeros.

    Example:
        >>> embed(np.array([[4.0, 2.0], [2.0, 1.0]])).tolist()
        [[2.0, 0.0], [1.0, 0.0]]
    """
    # What is left of a row below the rounding of the products is noise.
    noise = np.finfo(np.float32).eps * float(np.max(np.diagonal(gram)))
    # It is symmetric, so that its transpose is the same matrix in LAPACK's order.
    factor, pivots, rank, _ = dpstrf(gram.T, lower=1, tol=noise, overwrite_a=1)
    factor[:, rank:] = 0.0
    rows = np.empty(gram.shape, np.float32)
    rows[pivots - 1] = np.tril(factor)
    return rows


# Most of the time is compilation, which is twice as fast like this.
@partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
def best_restarts(
    embedded: Float[Array, "n n"], key: PRNGKeyArray, options: Options
) -> tuple[tuple[BestRestart, Array], ...]:
    """Run all restarts on the rows of L. Arguments as for `lloyd.fit`.

    The tolerance is in units of the mean variance of a feature, of which there are n here.

    Returns:
        For each number the best restart, its centroids relative to the mean of L's rows, and how
        much (k, n) of each row is in each centroid (the sums are 1).
    """
    rows = prepare(embedded)
    states = iterate(rows, init(rows, key, options), options)
    return tuple(_best(rows, state) for state in states)


def _best(rows: Rows, state: KMeansState) -> tuple[BestRestart, Float[Array, "k n"]]:
    best = best_of(state, jnp.zeros_like(rows.offset))
    members = one_hot(best.labels[:, None], len(best.centroids)).T
    # The centroid of a cluster that lost its members in the last step is a row.
    relative = products(rows, best.centroids) + jnp.sum(jnp.square(best.centroids), axis=1)[None, :]
    nearest = jnp.argmin(relative + rows.squares[:, None], axis=0)
    itself = jax.nn.one_hot(nearest, len(best.labels))
    counts = jnp.sum(members, axis=1, keepdims=True)
    return best, jnp.where(counts > 0.0, members / jnp.maximum(counts, 1.0), itself)


def fit_columns(
    reader: Reader,
    source: ColumnSource,
    key: PRNGKeyArray,
    options: Options,
    origin: Float[Array, " f"],
) -> list[tuple[BestRestart, Assignment]] | None:
    """Run all restarts on the inner products of the rows; None if there is no room to keep rows.

    Args:
        reader: of the source; it reports and looks for bad rows.
        source: the rows.
        key: random key; it draws the rows that `lloyd.fit` draws.
        options: how to search.
        origin: (f,), amid the rows.
    """
    num_rows = source.num_rows
    # In units of the mean variance of a feature, of which there are n then.
    options = options._replace(tol=options.tol * num_rows / source.dim)
    with ThreadPoolExecutor(1) as pool:
        # Compiles while the rows are read.
        pool.submit(best_restarts, np.zeros((num_rows, num_rows), np.float32), key, options)
        source.keep_rows(partial(reader.report, "keeping rows"))
        if not source.has_columns:
            return None
        middle = np.asarray(origin)
        gram = inner_products(source, middle, partial(reader.report, "inner products"))
    total = np.trace(gram)
    is_small = total < np.finfo(np.float32).max
    reader.check_finite(reader.every, np.where(is_small, total, np.nan))
    bests = best_restarts(embed(gram), key, options)
    del gram
    return assign_to_means(source, bests, middle, partial(reader.report, "assignment"))


def fit_in_memory(
    features: Float[np.ndarray, "n f"], key: PRNGKeyArray, options: Options
) -> list[BestRestart]:
    """Run all restarts on the inner products of rows in memory; arguments as for `lloyd.fit`."""
    source = ArrayRows(features)
    origin = jnp.asarray(np.mean(features[: source.block], axis=0))
    results = fit_columns(Reader(source), source, key, options, origin)
    assert results is not None, "rows in memory always have columns"
    return [best for best, _ in results]
