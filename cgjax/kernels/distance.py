"""Nearest rows in squared Euclidean distance, exact and in blocks.

For a query q and base rows b_j the search minimises

    ||q - b_j||^2 = ||q||^2 - 2 <q, b_j> + ||b_j||^2

so that the costly part is one matrix product. Three traps are avoided here:

* Cancellation: the expanded square loses all digits when the data are far from the origin. Both
  sides are first shifted by the mean of the base, inside the block, and the returned distance is
  recomputed from the difference to the nearest row.
* Speed: XLA's argmin on a CPU costs as much as the product itself. A vectorised minimum over groups
  of columns, followed by a search of the best group only, gives the same answer (ties to the lowest
  index) almost for free while the block of distances is still in the cache. The base is padded to
  whole groups for this.
* Reproducibility: -2 (exact, a power of two) is folded into the product and the norms are added as
  the first step of each pass, so that every pass sees the same bits and no pass only adds.

Symbols: q queries, b base rows, f features, k neighbours, s block of queries.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from cgjax.kernels.products import at_least_two_features, float32_product, has_fast_bfloat16
from cgjax.kernels.smallest import GROUP, Ascending, row_argmin
from cgjax.runtime.mesh import varying_like

Product = Literal["float32", "bfloat16"]

# The smallest base, in rows and features, for which the bfloat16 product is used where it is fast:
# below that, checking its results in float32 takes longer than the product saves.
_LONG = (4_096, 64)

# The number of nearest rows by the bfloat16 product whose distances are recomputed in float32.
_LOOKS = 3
# The number of queries per batch that are searched again, if that does not settle the nearest row.
_AGAIN = 32

# The number of distances that fit a CPU's caches: 20 MB; the faster product runs best with half.
_DISTANCES = {"float32": 5_242_880, "bfloat16": 2_621_440}

# A float32 has 24 bits of precision and a bfloat16 has 8, so three of these hold one float32.
_PARTS = 3
# The features of a bfloat16 product are padded to a multiple of this: other widths take a quarter
# longer.
_FEATURES = 8


def block_starts(num_rows: int, block: int) -> Int[Array, " blocks"]:
    """Return the first rows of blocks that cover `num_rows`; the last may overlap its neighbour.

    Because of the overlap no row is padded or copied. `block` must not exceed `num_rows`.
    """
    starts = jnp.arange(0, num_rows, block, dtype=jnp.int32)
    return jnp.minimum(starts, num_rows - block)


def join_blocks(stacked: Array, num_rows: int) -> Array:
    """Turn (blocks, block, ...) results of blocks at `block_starts` into (num_rows, ...)."""
    num_blocks, block = stacked.shape[:2]
    whole = stacked[:-1].reshape((num_blocks - 1) * block, *stacked.shape[2:])
    return jnp.concatenate([whole, stacked[-1, num_blocks * block - num_rows :]])


def nearest_(
    queries: Float[Array, "q f"],
    base: Float[Array, "b f"],
    *,
    valid: Bool[Array, " b"] | None = None,
    active: Int[Array, ""] | None = None,
    block: int | None = None,
    product: Product | None = None,
) -> tuple[Int[Array, " q"], Float[Array, " q"]]:
    """Find the nearest base row of each query (un-jitted body of `nearest`)."""
    if product is None:
        is_long = all(size >= least for size, least in zip(base.shape, _LONG, strict=True))
        product = "bfloat16" if is_long and has_fast_bfloat16() else "float32"
    choosers = (_by_looking, _by_minimum) if product == "bfloat16" else (_by_minimum,)
    index, distance = _search(queries, base, valid, active, block, *choosers)
    return index[:, 0], distance[:, 0]


def k_nearest_(
    queries: Float[Array, "q f"],
    base: Float[Array, "b f"],
    k: int,
    *,
    valid: Bool[Array, " b"] | None = None,
    block: int | None = None,
) -> tuple[Int[Array, "q k"], Float[Array, "q k"]]:
    """Find the k nearest base rows of each query (un-jitted body of `k_nearest`)."""
    if not 1 <= k <= base.shape[0]:
        raise ValueError(f"k={k}: expected 1 to the number of base rows ({base.shape[0]})")
    return _search(queries, base, valid, None, block, partial(_by_walk, k=k))


@partial(jax.jit, static_argnames=("block", "product"))
def nearest(
    queries: Float[Array, "q f"],
    base: Float[Array, "b f"],
    *,
    valid: Bool[Array, " b"] | None = None,
    active: Int[Array, ""] | None = None,
    block: int | None = None,
    product: Product | None = None,
) -> tuple[Int[Array, " q"], Float[Array, " q"]]:
    """Find the nearest base row of each query: argmin_j ||q - b_j||^2, lowest index on ties.

    O(q b f) time, O(block * b) memory. It may be vmapped, scanned and used inside `shard_map`.
    Candidates whose distances differ by less than float32 rounding of the centred norms (about
    1e-6 of them) count as equal or may swap.

    Args:
        queries: (q, f) float32.
        base: (b, f) float32, b >= 1.
        valid: (b,) bool; rows that are False are never chosen, whatever they hold. If no row is
            valid, the index is 0 and the distance infinite.
        active: the number of leading queries that matter; later blocks are skipped, and the index
            of the other queries is arbitrary. By default all.
        block: queries per block of distances; by default 512, or on a CPU as many as fit its
            caches.
        product: "bfloat16" rounds the inputs of the product and decides by float32 distances to
            the best rows found; queries for which a bound on the rounding error does not rule out
            all other rows are searched again in float32. The answer is the same, and faster on
            hardware with bfloat16 units. By default the faster product here.

    Returns:
        index (q,) int32 and squared distance (q,) float32, at least 0.

    Example:
        >>> index, distance = nearest(jnp.array([[0.9], [4.0]]), jnp.array([[1.0], [3.0], [1.0]]))
        >>> index.tolist()
        [0, 1]
    """
    return nearest_(queries, base, valid=valid, active=active, block=block, product=product)


@partial(jax.jit, static_argnames=("k", "block"))
def k_nearest(
    queries: Float[Array, "q f"],
    base: Float[Array, "b f"],
    k: int,
    *,
    valid: Bool[Array, " b"] | None = None,
    block: int | None = None,
) -> tuple[Int[Array, "q k"], Float[Array, "q k"]]:
    """Find the k nearest base rows of each query, nearest first, lowest index on ties.

    O(q b f) time, O(block * b) memory. Arguments as for `nearest`; k is at most b. If fewer than
    k rows are valid, the remaining entries have infinite distance.

    Returns:
        index (q, k) int32 and squared distance (q, k) float32, ascending.
    """
    return k_nearest_(queries, base, k, valid=valid, block=block)


# Centred queries -> k base rows for each, their distances (infinite for no row), and whether the
# choice for each query is certain.
Choose = Callable[[Array], tuple[Array, Array, Array]]
# The centred base, padded to whole groups, and its squared norms (infinite: never chosen)
# -> how to choose.
Chooser = Callable[[Array, Array], Choose]


def _search(
    queries: Float[Array, "q f"],
    base: Float[Array, "b f"],
    valid: Bool[Array, " b"] | None,
    active: Int[Array, ""] | None,
    block: int | None,
    chooser: Chooser,
    again: Chooser | None = None,
) -> tuple[Int[Array, "q k"], Float[Array, "q k"]]:
    """Choose rows for blocks of centred queries.

    Queries for which `chooser` is not certain are collected and passed to the chooser `again`.
    """
    num_queries = queries.shape[0]
    queries, base = at_least_two_features(queries, base)
    base, offset, norms = _prepare(base, valid)
    surplus = -base.shape[0] % GROUP
    if surplus:
        base = jnp.pad(base, ((0, surplus), (0, 0)))
        norms = jnp.pad(norms, (0, surplus), constant_values=jnp.inf)
    choose = chooser(base, norms)
    if num_queries == 0:
        shape = jax.eval_shape(choose, queries)[0].shape
        return jnp.zeros(shape, jnp.int32), jnp.zeros(shape, jnp.float32)
    block = min(block or _block(base.shape[0], "bfloat16" if again else "float32"), num_queries)

    def search(start: Array) -> tuple[Array, Array, Array]:
        return choose(jax.lax.dynamic_slice_in_dim(queries, start, block) - offset[None, :])

    def skip(start: Array) -> tuple[Array, Array, Array]:
        shape = jax.eval_shape(search, start)[0].shape
        nothing = jnp.full(shape, jnp.inf, jnp.float32)
        return jnp.zeros(shape, jnp.int32), nothing, jnp.ones((block,), bool)

    def body(_: None, start: Array) -> tuple[None, tuple[Array, Array, Array]]:
        if active is None:
            return None, search(start)
        return None, jax.lax.cond(start < active, search, skip, start)

    _, stacked = jax.lax.scan(body, None, block_starts(num_queries, block))
    index, distance, is_sure = (join_blocks(blocks, num_queries) for blocks in stacked)
    if again is None:
        return index, distance
    return _search_unsure(queries, offset, again(base, norms), index, distance, is_sure)


def _search_unsure(
    queries: Float[Array, "q f"],
    offset: Float[Array, " f"],
    choose: Choose,
    index: Int[Array, "q k"],
    distance: Float[Array, "q k"],
    is_sure: Bool[Array, " q"],
) -> tuple[Int[Array, "q k"], Float[Array, "q k"]]:
    """Choose again for the queries whose choice is not certain, a batch at a time."""
    num_queries = queries.shape[0]
    some = min(_AGAIN, num_queries)
    unsure = jnp.sort(jnp.where(is_sure, num_queries, jnp.arange(num_queries, dtype=jnp.int32)))
    unsure = jnp.pad(unsure, (0, some), constant_values=num_queries)

    def is_left(state: tuple[Array, Array, Array]) -> Array:
        return unsure[state[0]] < num_queries

    def search(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        begin, index, distance = state
        row = jax.lax.dynamic_slice_in_dim(unsure, begin, some)
        rows = queries.at[row].get(mode="clip") - offset[None, :]
        new_index, new_distance, _ = choose(rows)
        index = index.at[row].set(new_index, mode="drop")
        return begin + some, index, distance.at[row].set(new_distance, mode="drop")

    begin = varying_like(jnp.int32(0), unsure)
    _, index, distance = jax.lax.while_loop(is_left, search, (begin, index, distance))
    return index, distance


def _block(num_base: int, product: Product) -> int:
    if jax.default_backend() != "cpu":
        return 512
    return min(max(_DISTANCES[product] // num_base, 256), 2_048)


def _prepare(
    base: Float[Array, "b f"], valid: Bool[Array, " b"] | None
) -> tuple[Float[Array, "b f"], Float[Array, " f"], Float[Array, " b"]]:
    """Return the base minus its mean, the mean, and the squared norms (infinite if not valid)."""
    base = base.astype(jnp.float32)
    if valid is None:
        offset = jnp.mean(base, axis=0)
        base = base - offset[None, :]
        return base, offset, jnp.sum(base * base, axis=1)
    base = jnp.where(valid[:, None], base, 0.0)
    count = jnp.maximum(jnp.sum(valid, dtype=jnp.float32), 1.0)
    offset = jnp.sum(base, axis=0) / count
    base = jnp.where(valid[:, None], base - offset[None, :], 0.0)
    return base, offset, jnp.where(valid, jnp.sum(base * base, axis=1), jnp.inf)


def _ordered(
    rows: Float[Array, "s f"],
    base: Float[Array, "b f"],
    norms: Float[Array, " b"],
    index: Int[Array, "s k"],
) -> tuple[Int[Array, "s k"], Float[Array, "s k"]]:
    """Sort chosen rows by their exact distances; return their indices and squared distances.

    An index of -1, or of a row that must not be chosen, comes last as 0 at infinite distance. Rows
    that were nearly tied in the product may swap.
    """
    is_none = (index < 0) | jnp.isinf(norms)[index]
    index = jnp.maximum(index, 0)
    difference = rows[:, None, :] - base[index]
    distance = jnp.where(is_none, jnp.inf, jnp.sum(difference * difference, axis=-1))
    if index.shape[1] > 1:
        distance, index = jax.lax.sort((distance, index), dimension=1, num_keys=2)
    return index, distance


def _by_minimum(base: Float[Array, "b f"], norms: Float[Array, " b"]) -> Choose:
    """Choose one row by the float32 product."""

    def choose(rows: Array) -> tuple[Array, Array, Array]:
        index = row_argmin(_relative(rows, base, norms))[:, None]
        return *_ordered(rows, base, norms, index), jnp.ones(rows.shape[:1], bool)

    return choose


def _by_walk(base: Float[Array, "b f"], norms: Float[Array, " b"], k: int) -> Choose:
    """Choose k rows by the float32 product, one after the other."""

    def choose(rows: Array) -> tuple[Array, Array, Array]:
        values = _relative(rows, base, norms)

        def step(at: Ascending, _: None) -> tuple[Ascending, Array]:
            at = at.next(values)
            return at, at.column

        columns = jax.lax.scan(step, Ascending.begin(values), length=k)[1]
        return *_ordered(rows, base, norms, columns.T), jnp.ones(rows.shape[:1], bool)

    return choose


def _relative(
    rows: Float[Array, "s f"], base: Float[Array, "b f"], norms: Float[Array, " b"]
) -> Float[Array, "s b"]:
    """Return squared distances minus ||q||^2, which does not change their order."""
    # Contracting both over their features avoids a transposed copy of the base.
    return norms[None, :] + float32_product(-2.0 * rows, base, ((1,), (1,)))


def _split(values: Float[Array, " b"]) -> Float[Array, "parts b"]:
    """Write float32 numbers as sums of three bfloat16 numbers, which together have 24 bits."""
    parts = []
    for _ in range(_PARTS):
        parts.append(_to_bfloat16(values))
        values = jnp.where(jnp.isinf(values), 0.0, values - parts[-1])
    return jnp.stack(parts)


def _rounding(rows: Float[Array, "n f"]) -> Float[Array, " n"]:
    """Return the norm of each row's rounding error in bfloat16."""
    return jnp.linalg.norm(rows - _to_bfloat16(rows), axis=1)


def _to_bfloat16(values: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Round to bfloat16 precision; XLA would remove a conversion to bfloat16 and back."""
    return jax.lax.reduce_precision(values, exponent_bits=8, mantissa_bits=7)


def _by_looking(base: Float[Array, "b f"], norms: Float[Array, " b"]) -> Choose:
    """Choose one row by a bfloat16 product and float32 distances to the best rows it finds.

    With r' and b' the rounded rows, |<r, b> - <r', b'>| <= |r - r'| |b| + |r'| |b - b'|
    (Cauchy-Schwarz). A row is ruled out if its value exceeds the smallest distance by more than the
    error bound; the choice is certain if all rows that were not measured are ruled out.
    """
    low_error = jnp.max(_rounding(base))
    largest = jnp.sqrt(jnp.max(jnp.where(jnp.isinf(norms), 0.0, norms)))
    # The norms are additional features, so that the product adds them. XLA concatenates float32
    # arrays several times faster than bfloat16 ones.
    surplus = -(base.shape[1] + _PARTS) % _FEATURES
    low_base = jnp.concatenate([base, _split(norms).T], axis=1).astype(jnp.bfloat16)
    low_base = jnp.pad(low_base, ((0, 0), (0, surplus)))
    # Transposed once, not in every block: XLA's product with a row-major bfloat16 base is half as
    # fast.
    low_columns = jax.lax.optimization_barrier(low_base.T)

    def choose(rows: Array) -> tuple[Array, Array, Array]:
        extended = jnp.pad(-2.0 * rows, ((0, 0), (0, _PARTS + surplus)), constant_values=1.0)
        low = extended.astype(jnp.bfloat16)
        values = jnp.matmul(low, low_columns, preferred_element_type=jnp.float32)
        at = Ascending.begin(values)
        columns = []
        for _ in range(_LOOKS):
            at = at.next(values)
            columns.append(at.column)
        index, distance = _ordered(rows, base, norms, jnp.stack(columns, axis=1))
        size, row_error = jnp.linalg.norm(rows, axis=1), _rounding(rows)
        error = 2.0 * (row_error * largest + (size + row_error) * low_error)
        # 1e-5 of the norms covers the float32 accumulation of both products.
        error = error + 1e-5 * (size + largest) ** 2
        ahead = jnp.min(at.ahead, axis=1)
        is_open = jnp.isfinite(ahead) & (ahead + size * size - error <= distance[:, 0])
        return index[:, :1], distance[:, :1], ~is_open

    return choose
