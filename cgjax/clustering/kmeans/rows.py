"""The rows to cluster, and the two ways to read them: all at once, or the few that matter.

Rows are used relative to an offset, their mean. Reading all of them, the offset is taken out of the
product (<y - o, m> = <y, m> - <o, m>), which costs nothing and loses digits only in proportion to
||o|| / ||y - o||; where that ratio is large, and when only some rows are read, it is subtracted
from the rows themselves, chunk by chunk. No centred copy of the data is ever made.

Symbols: y rows (n, f), o offset, m points, s rows of a chunk.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from cgjax.clustering.kmeans.state import one_hot
from cgjax.kernels.distance import HIGHEST
from cgjax.runtime.mesh import all_sum, varying_like

Carry = TypeVar("Carry")

# Rows picked out at a time: 8 MB of 8,192 features, which stays in the cache.
CHUNK = 256

# How many points are multiplied at a time by XLA's products on a CPU.
_TILE = 64

# How many rows of a restart are moved together.
_MOVES = 64

# Up to this ratio of ||o|| to ||y - o|| the offset may be taken out of a product.
_FAR = 4.0


class Rows(NamedTuple):
    """The rows to cluster and what is computed of them once.

    Attributes:
        features: (n, f) float32, this shard's rows.
        weights: (n,) float32, 1 for rows that count and 0 for padding.
        offset: (f,) float32, the mean row; everything else is relative to it.
        squares: (n,) float32, squared norm of each row relative to the offset; 0 for padding.
        spread: () float32, mean of the squares over the rows that count.
    """

    features: Float[Array, "n f"]
    weights: Float[Array, " n"]
    offset: Float[Array, " f"]
    squares: Float[Array, " n"]
    spread: Float[Array, ""]

    @property
    def is_far(self) -> Bool[Array, ""]:
        """Whether the offset is so long that rows must be centred one by one."""
        return jnp.sum(jnp.square(self.offset)) > _FAR**2 * self.spread


def prepare(
    features: Float[Array, "n f"],
    weights: Float[Array, " n"] | None = None,
    *,
    offset: Float[Array, " f"] | None = None,
    axis_name: str | None = None,
) -> Rows:
    """Describe rows relative to their mean, or to a given offset: one or two reads of the data.

    The result holds the features themselves: returned from jit they would be copied.

    Args:
        features: (n, f) float32, this shard's rows.
        weights: (n,) 1 for rows that count and 0 for padding; default: all count.
        offset: (f,) float32; default: the mean of the rows that count.
        axis_name: mesh axis over which the rows are split, if any.
    """
    if weights is None:
        weights = varying_like(jnp.ones((features.shape[0],), jnp.float32), features)
        # XLA would replace a product with known ones by a sum over columns, which is slower.
        weights = jax.lax.optimization_barrier(weights)
    count = all_sum(jnp.sum(weights), axis_name)
    if offset is None:
        offset = all_sum(jnp.matmul(weights, features, precision=HIGHEST), axis_name) / count
    squares = jnp.sum(jnp.square(features - offset[None, :]), axis=1)
    # A factor instead would enter the sum's own kernel on a CPU and make it several times slower.
    squares = jnp.where(weights > 0.0, squares, 0.0)
    spread = all_sum(jnp.sum(squares), axis_name) / jnp.maximum(count, 1.0)
    return Rows(features, weights, offset, squares, spread)


def centred(rows: Rows, index: Int[Array, "*i"]) -> Float[Array, "*i f"]:
    """Return the given rows relative to the offset."""
    picked = rows.features.at[index].get(mode="clip")
    return picked - jnp.broadcast_to(rows.offset, picked.shape)


def visit(
    rows: Rows,
    is_wanted: Bool[Array, " n"],
    function: Callable[[Carry, Int[Array, " s"], Float[Array, "s f"], Bool[Array, " s"]], Carry],
    carry: Carry,
) -> Carry:
    """Fold a function over the wanted rows only, a chunk at a time: O(wanted f) time.

    Args:
        rows: all rows.
        is_wanted: (n,) bool.
        function: (carry, index (s,), centred rows (s, f), is real (s,)) -> carry. The last chunk is
            filled up: such entries are not real and have the index n, which a scatter drops.
        carry: start value.
    """
    num_rows = rows.features.shape[0]
    chunk = min(CHUNK, num_rows)
    count = jnp.sum(is_wanted, dtype=jnp.int32)
    # A sort compiles ten times faster than the prefix sums of `flatnonzero`, and runs as fast.
    order = jnp.sort(jnp.where(is_wanted, jnp.arange(num_rows, dtype=jnp.int32), num_rows))
    order = jnp.pad(order, (0, chunk), constant_values=num_rows)

    def is_left(state: tuple[Array, Carry]) -> Array:
        return state[0] < count

    def body(state: tuple[Array, Carry]) -> tuple[Array, Carry]:
        begin, carry = state
        index = jax.lax.dynamic_slice_in_dim(order, begin, chunk)
        return begin + chunk, function(carry, index, centred(rows, index), index < num_rows)

    begin = varying_like(jnp.int32(0), count)
    return jax.lax.while_loop(is_left, body, (begin, carry))[1]


def products(rows: Rows, points: Float[Array, "m f"]) -> Float[Array, "n m"]:
    """Return -2 <y, m> for all rows and points, both relative to the offset.

    Args:
        rows: all rows.
        points: (m, f) float32, relative to the offset.
    """

    def by_chunks(zero: Array) -> Array:
        every = varying_like(jnp.ones((zero.shape[0],), bool), rows.features)
        return some_products(rows, points, is_wanted=every, known=zero)

    def whole(_: Array) -> Array:
        return whole_products(rows, points)

    zero = jnp.zeros((rows.features.shape[0], points.shape[0]), jnp.float32)
    return jax.lax.cond(rows.is_far, by_chunks, whole, varying_like(zero, rows.features))


def whole_products(rows: Rows, points: Float[Array, "m f"]) -> Float[Array, "n m"]:
    """Return the same in one product; only where the rows are not far (`Rows.is_far`)."""
    doubled = -2.0 * points
    product = _times(rows.features, doubled)
    return product - jnp.matmul(doubled, rows.offset, precision=HIGHEST)[None, :]


def some_products(
    rows: Rows,
    points: Float[Array, "m f"],
    *,
    is_wanted: Bool[Array, " n"],
    known: Float[Array, "n m"],
) -> Float[Array, "n m"]:
    """Return -2 <y, m> for the wanted rows, and what is known of the others; see `products`."""
    doubled = -2.0 * points

    def add(known: Array, index: Array, picked: Array, _: Array) -> Array:
        product = jnp.matmul(picked, doubled.T, precision=HIGHEST)
        return known.at[index].set(product, mode="drop")

    return visit(rows, is_wanted, add, known)


def _times(rows: Float[Array, "n f"], points: Float[Array, "m f"]) -> Float[Array, "n m"]:
    """Return <y, m>, by whole tiles of points first: XLA's products on a CPU are wasteful of parts.

    Of 10,000 x 8,192, 80 points at once take 42 ms, 64 take 23 and then 16 more 12; 48 take 28.
    """
    num = points.shape[0]
    if num % _TILE > _TILE // 2:
        points = jnp.pad(points, ((0, -num % _TILE), (0, 0)))
    num_tiled = points.shape[0] // _TILE * _TILE
    parts = [part for part in (points[:num_tiled], points[num_tiled:]) if part.shape[0]]
    parts = [jnp.matmul(rows, part.T, precision=HIGHEST) for part in parts]
    return jnp.concatenate(parts, axis=1)[:, :num]


def sums(
    rows: Rows,
    labels: Sequence[Int[Array, "n r"]],
    *,
    num_clusters: Sequence[int],
    old_labels: Sequence[Int[Array, "n r"]],
    old_sums: Sequence[Float[Array, "r k f"]],
    axis_name: str | None = None,
) -> list[Float[Array, "r k f"]]:
    """Return the sum of each cluster's rows, from the sums of an earlier labelling.

    Of several labellings into different numbers of clusters, which share the reads.

    Args:
        rows: all rows.
        labels: (n, r) int32 each, cluster of each row in each restart; -1 for none.
        num_clusters: k of each.
        old_labels: (n, r) int32 each, the earlier labelling.
        old_sums: (r, k, f) float32 each, its sums.
        axis_name: mesh axis over which the rows are split, if any.
    """
    is_moved = [new != old for new, old in zip(labels, old_labels, strict=True)]
    has_moved = jnp.any(jnp.concatenate(is_moved, axis=1), axis=1)
    moves, moved_rows, all_rows = (
        all_sum(sum(jnp.sum(part, dtype=jnp.int32) for part in some), axis_name)
        for some in (is_moved, [has_moved], [rows.weights > 0.0])
    )
    widths = [total.shape[0] * total.shape[1] for total in old_sums]
    # A move takes about as long as a row's share of the product for 40 sums.
    is_few = 40 * moves <= sum(widths) * moved_rows
    is_whole = ~is_few & (2 * moved_rows > all_rows) & ~rows.is_far
    dim = rows.features.shape[1]
    zero = varying_like(jnp.zeros((sum(widths), dim), jnp.float32), rows.features)

    def members(index: Int[Array, " s"] | None, of: Sequence[Array]) -> Float[Array, "s p"]:
        picked = of if index is None else [part.at[index].get(mode="clip") for part in of]
        found = [one_hot(part, k) for part, k in zip(picked, num_clusters, strict=True)]
        return jnp.concatenate(found, axis=1)

    def whole(_: Array) -> Array:
        member = members(None, labels)
        total = jax.lax.dot_general(
            member, rows.features, (((0,), (0,)), ((), ())), precision=HIGHEST
        )
        return total - jnp.sum(member, axis=0)[:, None] * rows.offset[None, :]

    def by_chunks(zero: Array) -> Array:
        def add(total: Array, index: Array, picked: Array, is_real: Array) -> Array:
            change = members(index, labels) - members(index, old_labels)
            member = jnp.where(is_real[:, None], change, 0.0)
            return total + jax.lax.dot_general(
                member, picked, (((0,), (0,)), ((), ())), precision=HIGHEST
            )

        return visit(rows, has_moved, add, zero)

    def by_restart(zero: Array) -> Array:
        moved = [
            _move_rows(rows, new, old, k).reshape(-1, dim)
            for new, old, k in zip(labels, old_labels, num_clusters, strict=True)
        ]
        return jnp.concatenate(moved)

    def few(zero: Array) -> Array:
        # On a GPU that would be many small kernels.
        return jax.lax.platform_dependent(zero, cpu=by_restart, default=by_chunks)

    def many(zero: Array) -> Array:
        return jax.lax.cond(is_whole, whole, by_chunks, zero)

    found = all_sum(jax.lax.cond(is_few, few, many, zero), axis_name)
    parts = jnp.split(found, np.cumsum(widths)[:-1])
    return [
        part.reshape(old.shape) + jnp.where(is_whole, 0.0, old)
        for part, old in zip(parts, old_sums, strict=True)
    ]


def _move_rows(
    rows: Rows, labels: Int[Array, "n r"], old_labels: Int[Array, "n r"], num_clusters: int
) -> Float[Array, "r k f"]:
    """Return by how much the sums change, restart by restart: O(moves f) time for few clusters.

    The rows that moved in a restart are picked out a chunk at a time and multiplied with its k
    columns only.

    Args:
        rows: all rows.
        labels: (n, r) int32, the new labels.
        old_labels: (n, r) int32, the earlier ones; -1 for none.
        num_clusters: k.
    """
    num_rows, num_init = labels.shape
    old, new = old_labels.T, labels.T
    is_moved = old != new
    counts = jnp.sum(is_moved, axis=1, dtype=jnp.int32)
    # Prefix sums compile slower than a sort (see `visit`), but so many numbers they order faster.
    rank = jnp.cumsum(is_moved.reshape(-1), dtype=jnp.int32)
    place = jnp.where(is_moved.reshape(-1), rank - 1, rank.shape[0] + _MOVES)
    ids = jnp.tile(jnp.arange(num_rows, dtype=jnp.int32), num_init)
    order = jnp.zeros((rank.shape[0] + _MOVES,), jnp.int32).at[place].set(ids, mode="drop")
    ends = jnp.cumsum(counts)
    chunks = (counts + _MOVES - 1) // _MOVES
    chunk_ends = jnp.cumsum(chunks)

    def is_left(carry: tuple[Array, Array]) -> Array:
        return carry[0] < chunk_ends[-1]

    def body(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        i, change = carry
        restart = jnp.sum(chunk_ends <= i, dtype=jnp.int32)
        number = i - (chunk_ends[restart] - chunks[restart])
        begin = ends[restart] - counts[restart] + number * _MOVES
        index = jax.lax.dynamic_slice_in_dim(order, begin, _MOVES)
        is_real = begin + jnp.arange(_MOVES, dtype=jnp.int32) < ends[restart]
        came = one_hot(new[restart, index][:, None], num_clusters)
        went = one_hot(old[restart, index][:, None], num_clusters)
        member = jnp.where(is_real[:, None], came - went, 0.0)
        found = jax.lax.dot_general(
            member, centred(rows, index), (((0,), (0,)), ((), ())), precision=HIGHEST
        )
        return i + 1, change.at[restart].add(found)

    change = jnp.zeros((num_init, num_clusters, rows.features.shape[1]), jnp.float32)
    begin = varying_like(jnp.int32(0), chunk_ends)
    return jax.lax.while_loop(is_left, body, (begin, varying_like(change, rows.features)))[1]
