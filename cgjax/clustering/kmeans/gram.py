"""k-means of few long rows by their inner products.

The objective, its seeding and its iteration depend on the rows only through their distances, which
follow from

    G = (Y - o)(Y - o)^T = L L^T

for any origin o. The n rows of L have the same distances as the rows of Y and n numbers each
instead of f, so that every restart, iteration and number of clusters runs in memory. That takes one
pass over Y for G, and one for the centroids, which are means of rows of Y, and the distances to
them: both a slab of columns of all rows at a time. The products are n^2 f operations: G is
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


# Estimates of what clustering without inner products costs: how many products take as long as
# reading one number, and how many full passes the iterations amount to where nothing else ends
# them. Streamed: from 1.4 s an iteration at 2,000 x 524,288. In memory, seen: 2 passes (groups far
# apart, C = 2), 5 to 8 (real features), 17 (no groups).
_STREAMED_COST, _IN_MEMORY_COST = (200, 15), (100, 8)


def is_cheaper(
    num_rows: int, dim: int, options: Options, cost: tuple[int, int] = _STREAMED_COST
) -> bool:
    """Return whether the inner products cost less than the passes that they save.

    Counted for each of the n f numbers: n operations for half of G and one pass, against 4 r k
    operations (of all numbers k) and a pass for each centre of k-means++ and each iteration.
    """
    # The products say nothing of centroids that are given.
    if options.centroids is not None or not _has_room(num_rows, dim):
        return False
    read, iterations = cost
    passes = max(options.numbers) + min(int(options.max_iter), iterations)
    without = passes * (4 * options.num_init * sum(options.numbers) + read)
    # The n rows of L, of n numbers each, are clustered too.
    return without * (1 - num_rows / dim) > num_rows + read


def is_cheaper_in_memory(num_rows: int, dim: int, options: Options) -> bool:
    """Return the same for rows in memory: on a CPU, and only if they far exceed its caches."""
    is_large = 4 * num_rows * dim > _LARGE_MB * 2**20
    is_less = is_cheaper(num_rows, dim, options, _IN_MEMORY_COST)
    return is_large and is_less and jax.default_backend() == "cpu"


def slab_width(num_rows: int, dim: int) -> int:
    """Return how many columns are read at a time: all of them if there is no room for G."""
    if not _has_room(num_rows, dim):
        return dim
    width = int(_SLAB_MB * 2**20) // (4 * num_rows)
    # A row of a multiple of 1,024 numbers fills whole pages, in the file too.
    multiple = 1024 if width >= 1024 else 64
    return min(max(width // multiple * multiple, multiple), dim)


def _has_room(num_rows: int, dim: int) -> bool:
    return num_rows <= dim and 8 * num_rows**2 <= _GRAM_MB * 2**20


def inner_products(
    source: ColumnSource,
    origin: Float[np.ndarray, " _"],
    on_columns: OnProgress,
) -> Float[np.ndarray, "n n"]:
    """Return G, float64, summed over slabs of float32 products.

    O(n^2 f) time in one pass, O(n^2 + n w) memory. The source has kept all its rows. With an origin
    amid the rows (padded to whole slabs) their products keep their digits.
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
    """Return the rows' products, written to `out` where that is faster."""
    if jax.default_backend() != "cpu":
        return np.asarray(_square(rows))
    # NumPy sees that both sides are one matrix and lets BLAS do half of the work; XLA does not.
    # Unlike SciPy's call of the same BLAS routine it releases the lock, so the next slab is read.
    return np.matmul(rows, rows.T, out=out)


_square = jax.jit(lambda rows: jnp.matmul(rows, rows.T, precision=HIGHEST))


def assign_to_means(
    source: ColumnSource,
    restarts: Sequence[tuple[BestRestart, Array]],
    origin: Float[np.ndarray, " _"],
    on_columns: OnProgress,
) -> list[tuple[BestRestart, Assignment]]:
    """Return restarts with their centroids and, from the same pass, every row's assignment.

    O(n k f) time. What `cgjax.clustering.assignment` computes for a row is summed over the slabs.
    The source has kept all its rows; `restarts` come from `best_restarts`.
    """
    sums = [
        _Sums(
            means=np.empty((len(shares), source.dim), np.float32),
            relative=np.zeros((source.num_rows, len(shares))),
            own=np.zeros(source.num_rows),
        )
        for _, shares in restarts
    ]
    for begin, slab in _slabs(source):
        end = min(begin + slab.shape[1], source.dim)
        part = origin[begin : begin + slab.shape[1]]
        for (best, shares), total in zip(restarts, sums, strict=True):
            mean, relative, own = _compare(slab, part, best.labels, shares)
            total.means[:, begin:end] = np.asarray(mean)[:, : end - begin]
            total.relative[:] += np.asarray(relative)
            total.own[:] += np.asarray(own)
        on_columns(end, source.dim)
    return [
        (best._replace(centroids=jnp.asarray(total.means)), total.assign(np.asarray(best.labels)))
        for (best, _), total in zip(restarts, sums, strict=True)
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

    def assign(self, last_labels: Int[np.ndarray, " n"]) -> Assignment:
        """Return every row's assignment, given the labels of the last step.

        The centroids have moved since those labels were computed: others may be nearest now.
        """
        rows = np.arange(len(self.own))
        labels = np.argmin(self.relative, axis=1)
        smallest = self.relative[rows, labels]
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
    source: ColumnSource, *, origin: Float[np.ndarray, " _"] | None = None
) -> Iterator[tuple[int, Float[np.ndarray, "n w"]]]:
    """Yield each slab and its first column while the next is read; the last is padded with zeros.

    A slab, relative to the origin if there is one, is valid until the next one is requested.
    """
    width = slab_width(source.num_rows, source.dim)
    buffers = [empty_aligned((source.num_rows, width)) for _ in range(2)]
    starts = range(0, source.dim, width)

    def read(number: int) -> Float[np.ndarray, "n w"]:
        slab, begin = buffers[number % 2], starts[number]
        num = min(width, source.dim - begin)
        source.read_columns(begin, slab[:, :num])
        slab[:, num:] = 0.0
        if origin is not None:
            with np.errstate(invalid="ignore"):  # the caller looks for NaN and Inf
                slab -= origin[begin : begin + width]
        return slab

    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(read, 0)
        for number, begin in enumerate(starts):
            slab = ahead.result()
            if number + 1 < len(starts):
                ahead = pool.submit(read, number + 1)
            yield begin, slab


@jax.jit
def _compare(
    slab: Float[Array, "n w"],
    origin: Float[Array, " w"],
    labels: Int[Array, " n"],
    shares: Float[Array, "k n"],
) -> tuple[Float[Array, "k w"], Float[Array, "n k"], Float[Array, " n"]]:
    """Return what a slab adds to `_Sums`: its means, relative squared distances and own ones."""
    rows = slab - origin[None, :]
    means = jnp.matmul(shares, rows, precision=HIGHEST)
    middle = jnp.mean(means, axis=0)
    points = means - middle[None, :]
    relative = jnp.sum(jnp.square(points), axis=1)[None, :] - 2.0 * jnp.matmul(
        rows - middle[None, :], points.T, precision=HIGHEST
    )
    own = jnp.sum(jnp.square(rows - means[labels]), axis=1)
    return means + origin[None, :], relative, own


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
    # A residual below the rounding of the products is noise.
    noise = np.finfo(np.float32).eps * float(np.max(np.diagonal(gram)))
    # G is symmetric, so its transpose is the same matrix in LAPACK's order.
    factor, pivots, rank, _ = dpstrf(gram.T, lower=1, tol=noise, overwrite_a=1)
    factor[:, rank:] = 0.0
    rows = np.empty(gram.shape, np.float32)
    rows[pivots - 1] = np.tril(factor)
    return rows


# Compilation takes most of the time, and is twice as fast like this.
@partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
def best_restarts(
    embedded: Float[Array, "n n"], key: PRNGKeyArray, options: Options
) -> tuple[tuple[BestRestart, Array], ...]:
    """Run all restarts on the rows of L. Arguments as for `lloyd.fit`.

    The tolerance is in units of the mean variance of a feature, of which there are n here.

    Returns:
        For each number the best restart, its centroids relative to the mean of L's rows, and the
        weight (k, n) of each row in each centroid (the sums are 1).
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
        reader: of the source; it reports progress and looks for bad rows.
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
        # Padded to whole slabs.
        surplus = -source.dim % slab_width(num_rows, source.dim)
        middle = np.pad(np.asarray(origin), (0, surplus))
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
