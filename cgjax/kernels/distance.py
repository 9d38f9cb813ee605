"""Nearest rows in squared Euclidean distance, exact and in blocks.

For a query q and base rows b_j the search minimises

    ||q - b_j||^2 = ||q||^2 - 2 <q, b_j> + ||b_j||^2

so that the costly part is one matrix product. Three numeric traps are dealt with here:

* Cancellation: the expanded square loses all digits when the data lie far from the origin. Both
  sides are shifted by the mean of the base first, inside the block, and the distance returned is
  computed again from the difference to the winner.
* Speed: XLA's argmin on a CPU costs as much as the product itself. A vectorised minimum of groups
  of columns, and a search inside the winning group only, gives the same answer (ties to the lowest
  index) almost for free while the block of distances is still in the cache. The base is padded to
  whole groups for it.
* Reproducibility: -2 (exact, a power of two) is folded into the product and the norms are added as
  the first step of each pass: every pass sees the same bits, and none is spent on adding.

Symbols: q queries, b base rows, f features, k neighbours, s block of queries.
"""

from collections.abc import Callable
from functools import partial, reduce
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from cgjax.kernels.products import float32_product

Product = Literal["float32", "bfloat16"]

# Columns whose minimum is taken together when looking for a row's smallest value, and how many of
# them side by side: a vector register.
_GROUP = 128
_LANES = 16

# How many candidates the bfloat16 product keeps for the float32 re-check.
_CANDIDATES = 8


def row_argmin(values: Float[Array, "s b"]) -> Int[Array, " s"]:
    """Return the index of the smallest value of each row; the lowest one on ties.

    The same as `jnp.argmin(values, 1)`, whose pair-wise reduction costs XLA as much on a CPU as the
    product that made the values. Where the width allows it, one vectorised pass takes the minimum
    of every group of columns, first lane by lane, for XLA does not vectorise a minimum along a
    row; the first group that has the row's minimum is then searched alone. Elsewhere a second pass
    looks for the smallest index that equals the minimum. A row of infinities gives index 0; a row
    with NaN any index.
    """
    num = values.shape[1]
    if num % _GROUP == 0 and num > _GROUP:
        groups = values.reshape(values.shape[0], num // _GROUP, _GROUP)
        vectors = groups.reshape(*groups.shape[:2], _GROUP // _LANES, _LANES)
        lanes = reduce(jnp.minimum, (vectors[:, :, i] for i in range(vectors.shape[2])))
        # Fused into the last minimum the lanes would be taken one at a time.
        lanes = jax.lax.optimization_barrier(lanes)
        group = _first_smallest(jnp.min(lanes, axis=2))
        inside = jnp.take_along_axis(groups, group[:, None, None], axis=1)[:, 0]
        return group * _GROUP + _first_smallest(inside)
    return _first_smallest(values)


def _first_smallest(values: Float[Array, "s b"]) -> Int[Array, " s"]:
    smallest = jnp.min(values, axis=1, keepdims=True)
    columns = jax.lax.broadcasted_iota(jnp.int32, values.shape, 1)
    return jnp.min(jnp.where(values == smallest, columns, values.shape[1] - 1), axis=1)


def block_starts(num_rows: int, block: int) -> Int[Array, " blocks"]:
    """Return the first rows of blocks that cover `num_rows`; the last may overlap its neighbour.

    With an overlap no row has to be padded or copied. `block` must not exceed `num_rows`.
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
    block: int = 512,
    product: Product = "float32",
) -> tuple[Int[Array, " q"], Float[Array, " q"]]:
    """Find the nearest base row of each query (un-jitted body of `nearest`)."""
    if product == "bfloat16":
        index, distance = _search(queries, base, valid, active, 1, block, _by_recheck)
    else:
        index, distance = _search(queries, base, valid, active, 1, block, _by_minimum)
    return index[:, 0], distance[:, 0]


def k_nearest_(
    queries: Float[Array, "q f"],
    base: Float[Array, "b f"],
    k: int,
    *,
    valid: Bool[Array, " b"] | None = None,
    block: int = 512,
) -> tuple[Int[Array, "q k"], Float[Array, "q k"]]:
    """Find the k nearest base rows of each query (un-jitted body of `k_nearest`)."""
    if not 1 <= k <= base.shape[0]:
        raise ValueError(f"k={k}: expected 1 to the number of base rows ({base.shape[0]})")
    return _search(queries, base, valid, None, k, block, _by_top_k)


@partial(jax.jit, static_argnames=("block", "product"))
def nearest(
    queries: Float[Array, "q f"],
    base: Float[Array, "b f"],
    *,
    valid: Bool[Array, " b"] | None = None,
    active: Int[Array, ""] | None = None,
    block: int = 512,
    product: Product = "float32",
) -> tuple[Int[Array, " q"], Float[Array, " q"]]:
    """Find the nearest base row of each query: argmin_j ||q - b_j||^2, lowest index on ties.

    O(q b f) time, O(block * b) memory. It may be vmapped, scanned and used inside `shard_map`.
    Candidates whose distances differ by less than float32 rounding of the centred norms (about
    1e-6 of them) count as equal or may swap.

    Args:
        queries: (q, f) float32.
        base: (b, f) float32, b >= 1.
        valid: (b,) bool; rows that are False are never chosen, whatever they hold. If none is
            valid the index is 0 and the distance infinite.
        active: how many of the queries count; blocks past them are skipped, and what is returned
            for the others is any index. All by default.
        block: queries per block of distances.
        product: "bfloat16" rounds the inputs of the product, keeps the 8 best candidates and
            decides among them in float32; a block in which a bound on the rounding cannot prove
            that the winner is among them is done again in float32. Same answer, faster where
            bfloat16 has its own units.

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
    block: int = 512,
) -> tuple[Int[Array, "q k"], Float[Array, "q k"]]:
    """Find the k nearest base rows of each query, nearest first, lowest index on ties.

    O(q b f) time, O(block * b) memory. Arguments as for `nearest`; k is at most b. Where fewer than
    k rows are valid, the surplus has infinite distance.

    Returns:
        index (q, k) int32 and squared distance (q, k) float32, ascending.
    """
    return k_nearest_(queries, base, k, valid=valid, block=block)


# Centred queries, centred base, its squared norms and k -> k base rows of each query.
Choose = Callable[[Array, Array, Array, int], Array]


def _search(
    queries: Float[Array, "q f"],
    base: Float[Array, "b f"],
    valid: Bool[Array, " b"] | None,
    active: Int[Array, ""] | None,
    k: int,
    block: int,
    choose: Choose,
) -> tuple[Int[Array, "q k"], Float[Array, "q k"]]:
    """Run `choose` on blocks of centred queries; re-compute the distances of what it chose."""
    num_queries = queries.shape[0]
    base, offset, norms = _prepare(base, valid)
    surplus = -base.shape[0] % _GROUP
    if choose is _by_minimum and base.shape[0] > _GROUP and surplus:
        base = jnp.pad(base, ((0, surplus), (0, 0)))
        norms = jnp.pad(norms, (0, surplus), constant_values=jnp.inf)
    if num_queries == 0:
        return jnp.zeros((0, k), jnp.int32), jnp.zeros((0, k), jnp.float32)
    block = min(block, num_queries)

    def search(start: Array) -> tuple[Array, Array]:
        rows = jax.lax.dynamic_slice_in_dim(queries, start, block) - offset[None, :]
        index = choose(rows, base, norms, k)
        difference = rows[:, None, :] - base[index]
        distance = jnp.sum(difference * difference, axis=-1)
        distance = jnp.where(jnp.isinf(norms)[index], jnp.inf, distance)
        if k > 1:
            # The re-computed distances can order two near-ties the other way round.
            distance, index = jax.lax.sort((distance, index), dimension=1, num_keys=2)
        return index, distance

    def skip(start: Array) -> tuple[Array, Array]:
        return jnp.zeros((block, k), jnp.int32), jnp.full((block, k), jnp.inf, jnp.float32)

    def body(_: None, start: Array) -> tuple[None, tuple[Array, Array]]:
        if active is None:
            return None, search(start)
        return None, jax.lax.cond(start < active, search, skip, start)

    _, (index, distance) = jax.lax.scan(body, None, block_starts(num_queries, block))
    return join_blocks(index, num_queries), join_blocks(distance, num_queries)


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


def _by_minimum(
    rows: Float[Array, "s f"], base: Float[Array, "b f"], norms: Float[Array, " b"], k: int
) -> Int[Array, "s 1"]:
    """Choose one row by the float32 product."""
    return row_argmin(_relative(rows, base, norms))[:, None]


def _by_top_k(
    rows: Float[Array, "s f"], base: Float[Array, "b f"], norms: Float[Array, " b"], k: int
) -> Int[Array, "s k"]:
    """Choose k rows by the float32 product."""
    return jax.lax.top_k(-_relative(rows, base, norms), k)[1]


def _relative(
    rows: Float[Array, "s f"], base: Float[Array, "b f"], norms: Float[Array, " b"]
) -> Float[Array, "s b"]:
    """Return squared distances up to ||q||^2, which does not change their order."""
    # Contracting both on their features spares a transposed copy of the base.
    return norms[None, :] + float32_product(-2.0 * rows, base, ((1,), (1,)))


def _by_recheck(
    rows: Float[Array, "s f"], base: Float[Array, "b f"], norms: Float[Array, " b"], k: int
) -> Int[Array, "s 1"]:
    """Choose one row by a bfloat16 product, several candidates and a float32 decision.

    With r and r' the rounded rows, d the error of a row and e that of a base row (Cauchy-Schwarz):
    |<r, b> - <r', b'>| <= |d| |b| + |r'| |e|. Twice that bounds the error of a distance, and a
    candidate can be ruled out when it lies more than two such errors above the smallest one.
    """
    columns = base.T
    low_rows, low_base = rows.astype(jnp.bfloat16), columns.astype(jnp.bfloat16)
    product = jnp.matmul(-2.0 * low_rows, low_base, preferred_element_type=jnp.float32)
    num = min(_CANDIDATES + 1, base.shape[0])
    values, candidates = jax.lax.top_k(-(product + norms[None, :]), num)

    back_rows, back_base = low_rows.astype(jnp.float32), low_base.astype(jnp.float32)
    error_rows = jnp.linalg.norm(rows - back_rows, axis=1)
    error_base = jnp.max(jnp.linalg.norm(columns - back_base, axis=0))
    largest = jnp.sqrt(jnp.max(jnp.where(jnp.isinf(norms), 0.0, norms)))
    # 1e-5 of the norms covers the float32 accumulation of both products.
    size_rows = jnp.linalg.norm(rows, axis=1)
    error = 2.0 * (error_rows * largest + (size_rows + error_rows) * error_base)
    error = error + 1e-5 * (size_rows + largest) ** 2
    is_decided = (values[:, 0] - values[:, -1] > 2.0 * error) | (num == base.shape[0])

    def recheck(_: None) -> Array:
        difference = rows[:, None, :] - base[candidates]
        distance = jnp.sum(difference * difference, axis=-1)
        distance = jnp.where(jnp.isinf(norms)[candidates], jnp.inf, distance)
        return jax.lax.sort((distance, candidates), dimension=1, num_keys=2)[1][:, :1]

    def redo(_: None) -> Array:
        return _by_minimum(rows, base, norms, k)

    return jax.lax.cond(jnp.all(is_decided), recheck, redo, None)
