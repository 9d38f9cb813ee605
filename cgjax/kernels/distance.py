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

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from cgjax.kernels.products import float32_product, has_fast_bfloat16
from cgjax.runtime.mesh import varying_like

Product = Literal["float32", "bfloat16"]

# Queries per block of distances: what fits beside the base in a CPU's last cache.
_BLOCKS: dict[Product, int] = {"float32": 512, "bfloat16": 256}

# From so many rows of so many features on is the bfloat16 product, where it is fast, worth the
# float32 distances that follow it.
_LONG = (4_096, 64)

# Columns whose minimum is taken together when looking for a row's smallest value, and how many of
# them side by side: a vector register.
_GROUP = 128
_LANES = 16

# How many candidates of the bfloat16 product are looked at before a block is done again in float32.
_CANDIDATES = 32

# How many undecided rows are walked through together.
_TOGETHER = 64

# bfloat16 numbers of 8 bits that together hold a float32 number's 24.
_PARTS = 3


def row_argmin(values: Float[Array, "s b"]) -> Int[Array, " s"]:
    """Return the index of the smallest value of each row; the lowest one on ties.

    The same as `jnp.argmin(values, 1)`, whose pair-wise reduction costs XLA as much on a CPU as the
    product that made the values. Where the width allows it, one vectorised pass takes the minimum
    of every group of columns; the first group that has the row's minimum is then searched alone.
    Elsewhere a second pass looks for the smallest index that equals the minimum. A row of
    infinities gives index 0; a row with NaN any index.
    """
    num = values.shape[1]
    if num % _GROUP == 0 and num > _GROUP:
        group = _first_smallest(_group_minima(values))
        row = jnp.arange(values.shape[0], dtype=jnp.int32)
        return group * _GROUP + _first_smallest(_columns_of(values, row, group))
    return _first_smallest(values)


def _split(values: Float[Array, " b"]) -> Float[Array, "parts b"]:
    """Return numbers as sums of such that bfloat16 holds, three for float32's 24 bits."""
    parts = []
    for _ in range(_PARTS):
        parts.append(_to_bfloat16(values))
        values = jnp.where(jnp.isinf(values), 0.0, values - parts[-1])
    return jnp.stack(parts)


def _rounding(rows: Float[Array, "n f"]) -> Float[Array, " n"]:
    """Return the norm of what rounding to bfloat16 takes away from each row."""
    return jnp.linalg.norm(rows - _to_bfloat16(rows), axis=1)


def _to_bfloat16(values: Float[Array, "..."]) -> Float[Array, "..."]:
    """Round to what bfloat16 holds; XLA takes a conversion there and back for nothing."""
    return jax.lax.reduce_precision(values, exponent_bits=8, mantissa_bits=7)


def _group_minima(values: Float[Array, "s b"]) -> Float[Array, "s groups"]:
    """Return the smallest value of every group of columns; b is a multiple of their number.

    First lane by lane, for XLA does not vectorise a minimum along a row.
    """
    vectors = values.reshape(values.shape[0], -1, _GROUP // _LANES, _LANES)
    lanes = reduce(jnp.minimum, (vectors[:, :, i] for i in range(vectors.shape[2])))
    # Fused into the last minimum the lanes would be taken one at a time.
    return jnp.min(jax.lax.optimization_barrier(lanes), axis=2)


def _columns_of(
    values: Float[Array, "s b"], row: Int[Array, " w"], group: Int[Array, " w"]
) -> Float[Array, "w group"]:
    """Return one group of columns of each of some rows."""
    return values.reshape(values.shape[0], -1, _GROUP).at[row, group].get(mode="clip")


def _first_smallest(values: Float[Array, "s b"]) -> Int[Array, " s"]:
    smallest = jnp.min(values, axis=1, keepdims=True)
    columns = jax.lax.broadcasted_iota(jnp.int32, values.shape, 1)
    return jnp.min(jnp.where(values == smallest, columns, values.shape[1] - 1), axis=1)


class _Ascending(NamedTuple):
    """Where a walk through each row's values, smallest first and lower columns first, stands.

    Attributes:
        value: of the column that was reached.
        column: which that is; -1 at the beginning.
        ahead: the smallest value of every group of columns that has not been reached.
    """

    value: Float[Array, " w"]
    column: Int[Array, " w"]
    ahead: Float[Array, "w groups"]

    @classmethod
    def begin(cls, values: Float[Array, "s b"]) -> _Ascending:
        """Stand before the first value; b is a multiple of the columns of a group."""
        before = jnp.full(values.shape[:1], -jnp.inf, values.dtype)
        ahead = jnp.min(values.reshape(values.shape[0], -1, _GROUP), axis=2)
        return cls(before, jnp.full(values.shape[:1], -1, jnp.int32), ahead)

    def next(self, values: Float[Array, "s b"], row: Int[Array, " w"]) -> _Ascending:
        """Go to the next value of each row, which costs one group of columns.

        Args:
            values: of all rows.
            row: the rows that are walked through, which are this walk's.
        """
        group = _first_smallest(self.ahead)
        inside = _columns_of(values, row, group)
        place = jax.lax.broadcasted_iota(jnp.int32, inside.shape, 1)
        columns = group[:, None] * _GROUP + place
        is_ahead = (inside > self.value[:, None]) | (
            (inside == self.value[:, None]) & (columns > self.column[:, None])
        )
        inside = jnp.where(is_ahead, inside, jnp.inf)
        first = _first_smallest(inside)
        rest = jnp.min(jnp.where(place == first[:, None], jnp.inf, inside), axis=1)
        groups = jax.lax.broadcasted_iota(jnp.int32, self.ahead.shape, 1)
        ahead = jnp.where(groups == group[:, None], rest[:, None], self.ahead)
        return _Ascending(jnp.min(inside, axis=1), group * _GROUP + first, ahead)


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
    block: int | None = None,
    product: Product | None = None,
) -> tuple[Int[Array, " q"], Float[Array, " q"]]:
    """Find the nearest base row of each query (un-jitted body of `nearest`)."""
    if product is None:
        is_long = all(size >= least for size, least in zip(base.shape, _LONG, strict=True))
        product = "bfloat16" if is_long and has_fast_bfloat16() else "float32"
    chooser = _by_recheck if product == "bfloat16" else _by_minimum
    block = block or _BLOCKS[product]
    index, distance = _search(queries, base, valid, active, block, chooser)
    return index[:, 0], distance[:, 0]


def k_nearest_(
    queries: Float[Array, "q f"],
    base: Float[Array, "b f"],
    k: int,
    *,
    valid: Bool[Array, " b"] | None = None,
    block: int = _BLOCKS["float32"],
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
        valid: (b,) bool; rows that are False are never chosen, whatever they hold. If none is
            valid the index is 0 and the distance infinite.
        active: how many of the queries count; blocks past them are skipped, and what is returned
            for the others is any index. All by default.
        block: queries per block of distances; a good number by default.
        product: "bfloat16" rounds the inputs of the product and decides by float32 distances to
            the rows that a bound on the rounding leaves. Where many are left the block is done
            again in float32. Same answer, faster where bfloat16 has its own units. By default what
            is faster here.

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
    block: int = _BLOCKS["float32"],
) -> tuple[Int[Array, "q k"], Float[Array, "q k"]]:
    """Find the k nearest base rows of each query, nearest first, lowest index on ties.

    O(q b f) time, O(block * b) memory. Arguments as for `nearest`; k is at most b. Where fewer than
    k rows are valid, the surplus has infinite distance.

    Returns:
        index (q, k) int32 and squared distance (q, k) float32, ascending.
    """
    return k_nearest_(queries, base, k, valid=valid, block=block)


# Centred queries -> k base rows of each.
Choose = Callable[[Array], Array]


def _search(
    queries: Float[Array, "q f"],
    base: Float[Array, "b f"],
    valid: Bool[Array, " b"] | None,
    active: Int[Array, ""] | None,
    block: int,
    chooser: Callable[[Array, Array], Choose],
) -> tuple[Int[Array, "q k"], Float[Array, "q k"]]:
    """Choose for blocks of centred queries; re-compute the distances of what was chosen.

    `chooser` is given the centred base, padded to whole groups, and its squared norms, infinite
    where a row is not to be chosen.
    """
    num_queries = queries.shape[0]
    base, offset, norms = _prepare(base, valid)
    surplus = -base.shape[0] % _GROUP
    if surplus:
        base = jnp.pad(base, ((0, surplus), (0, 0)))
        norms = jnp.pad(norms, (0, surplus), constant_values=jnp.inf)
    choose = chooser(base, norms)
    if num_queries == 0:
        shape = jax.eval_shape(choose, queries).shape
        return jnp.zeros(shape, jnp.int32), jnp.zeros(shape, jnp.float32)
    block = min(block, num_queries)

    def search(start: Array) -> tuple[Array, Array]:
        rows = jax.lax.dynamic_slice_in_dim(queries, start, block) - offset[None, :]
        index = choose(rows)
        distance = jnp.where(jnp.isinf(norms)[index], jnp.inf, _distances(rows, base, index))
        if index.shape[1] > 1:
            # The re-computed distances can order two near-ties the other way round.
            distance, index = jax.lax.sort((distance, index), dimension=1, num_keys=2)
        return index, distance

    def skip(start: Array) -> tuple[Array, Array]:
        index, distance = jax.eval_shape(search, start)
        return jnp.zeros(index.shape, jnp.int32), jnp.full(distance.shape, jnp.inf, jnp.float32)

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


def _distances(
    rows: Float[Array, "s f"], base: Float[Array, "b f"], index: Int[Array, "s k"]
) -> Float[Array, "s k"]:
    """Return the squared distances to rows of the base, from the differences."""
    difference = rows[:, None, :] - base[index]
    return jnp.sum(difference * difference, axis=-1)


def _by_minimum(base: Float[Array, "b f"], norms: Float[Array, " b"]) -> Choose:
    """Choose one row by the float32 product."""
    return lambda rows: row_argmin(_relative(rows, base, norms))[:, None]


def _by_walk(base: Float[Array, "b f"], norms: Float[Array, " b"], k: int) -> Choose:
    """Choose k rows by the float32 product, one after the other."""

    def choose(rows: Array) -> Array:
        values = _relative(rows, base, norms)
        every = jnp.arange(rows.shape[0], dtype=jnp.int32)

        def step(at: _Ascending, _: None) -> tuple[_Ascending, Array]:
            at = at.next(values, every)
            return at, at.column

        return jax.lax.scan(step, _Ascending.begin(values), length=k)[1].T

    return choose


def _relative(
    rows: Float[Array, "s f"], base: Float[Array, "b f"], norms: Float[Array, " b"]
) -> Float[Array, "s b"]:
    """Return squared distances up to ||q||^2, which does not change their order."""
    # Contracting both on their features spares a transposed copy of the base.
    return norms[None, :] + float32_product(-2.0 * rows, base, ((1,), (1,)))


class _Walk(NamedTuple):
    """A walk through rows' values, and the nearest by float32 distance on its way.

    Attributes:
        at: where it stands.
        best: the base row that is nearest so far.
        distance: to it, squared.
    """

    at: _Ascending
    best: Int[Array, " w"]
    distance: Float[Array, " w"]

    def is_open(self, reach: Float[Array, " w"]) -> Bool[Array, " w"]:
        """Return where a base row that was not looked at may be nearer, or as near.

        Args:
            reach: how far a value may lie above the squared distance.
        """
        ahead = jnp.min(self.at.ahead, axis=1)
        return jnp.isfinite(ahead) & (ahead - reach <= self.distance)

    def look(
        self,
        rows: Float[Array, "w f"],
        base: Float[Array, "b f"],
        values: Float[Array, "s b"],
        row: Int[Array, " w"],
    ) -> _Walk:
        """Look at the next base row of each."""
        at = self.at.next(values, row)
        distance = _distances(rows, base, at.column[:, None])[:, 0]
        is_nearer = (distance < self.distance) | (
            (distance == self.distance) & (at.column < self.best)
        )
        best = jnp.where(is_nearer, at.column, self.best)
        return _Walk(at, best, jnp.where(is_nearer, distance, self.distance))


def _by_recheck(base: Float[Array, "b f"], norms: Float[Array, " b"]) -> Choose:
    """Choose one row by a bfloat16 product and float32 distances to the rows that it leaves.

    With r' and b' the rounded rows, |<r, b> - <r', b'>| <= |r - r'| |b| + |r'| |b - b'|
    (Cauchy-Schwarz). A row can be ruled out when its value lies further above the smallest distance
    so far than the product may be off; so the rows are looked at in the order of their values until
    the next one is ruled out.
    """
    low_error = jnp.max(_rounding(base))
    largest = jnp.sqrt(jnp.max(jnp.where(jnp.isinf(norms), 0.0, norms)))
    # The norms are rows of their own, so that the product adds them. XLA joins float32 arrays
    # several times faster than bfloat16 ones.
    low_columns = jnp.concatenate([base.T, _split(norms)]).astype(jnp.bfloat16)

    def choose(rows: Array) -> Array:
        extended = jnp.pad(-2.0 * rows, ((0, 0), (0, _PARTS)), constant_values=1.0)
        low = extended.astype(jnp.bfloat16)
        values = jnp.matmul(low, low_columns, preferred_element_type=jnp.float32)
        size = jnp.linalg.norm(rows, axis=1)
        row_error = _rounding(rows)
        error = 2.0 * (row_error * largest + (size + row_error) * low_error)
        # 1e-5 of the norms covers the float32 accumulation of both products.
        reach = error + 1e-5 * (size + largest) ** 2 - size * size

        every = varying_like(jnp.arange(rows.shape[0], dtype=jnp.int32), values)
        nothing = jnp.zeros_like(every), varying_like(jnp.full(rows.shape[:1], jnp.inf), values)
        walk = _Walk(_Ascending.begin(values), *nothing).look(rows, base, values, every)
        some = min(_TOGETHER, rows.shape[0])

        def is_left(state: tuple[Array, Array, Array]) -> Array:
            return jnp.any(state[0])

        def settle(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            """Walk on with some of the rows that are left."""
            left, index, is_decided = state
            row = jnp.sort(jnp.where(left, every, rows.shape[0]))[:some]
            own = jax.tree.map(lambda leaf: leaf.at[row].get(mode="clip"), walk)
            theirs = rows.at[row].get(mode="clip")
            far = reach.at[row].get(mode="clip")

            def is_unfinished(state: tuple[Array, _Walk]) -> Array:
                return (state[0] < _CANDIDATES) & jnp.any(state[1].is_open(far))

            def on(state: tuple[Array, _Walk]) -> tuple[Array, _Walk]:
                return state[0] + 1, state[1].look(theirs, base, values, row)

            _, own = jax.lax.while_loop(
                is_unfinished, on, (varying_like(jnp.int32(1), values), own)
            )
            return (
                left.at[row].set(False, mode="drop"),
                index.at[row].set(own.best, mode="drop"),
                is_decided & ~jnp.any(own.is_open(far)),
            )

        begin = (walk.is_open(reach), walk.best, varying_like(jnp.array(True), values))
        _, index, is_decided = jax.lax.while_loop(is_left, settle, begin)
        redo = _by_minimum(base, norms)
        return jax.lax.cond(is_decided, lambda _: index[:, None], redo, rows)

    return choose
