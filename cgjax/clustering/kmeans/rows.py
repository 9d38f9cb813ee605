"""The rows to cluster, and two ways to read them: all at once, or only those that matter.

Rows are used relative to an offset, their mean. When all of them are read, the offset is taken out
of the product (<y - o, m> = <y, m> - <o, m>), which costs nothing and loses digits only in
proportion to ||o|| / ||y - o||; where that ratio is large, and when only some rows are read, it is
subtracted from the rows themselves, chunk by chunk. No centred copy of the data is ever made.

Symbols: y rows (n, f), o offset, m points, s rows of a chunk.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from cgjax.kernels.products import HIGHEST, float32_product
from cgjax.runtime.mesh import all_sum, varying_like

Carry = TypeVar("Carry")

# Rows gathered at a time. On a CPU 8 MB of 8,192 features, which stays in the cache; on a GPU,
# where a chunk is a few kernels, enough that launching them takes no time beside running them.
CHUNK = 256
_GPU_CHUNK_NUMBERS = 2**26

# How many points are multiplied at a time by XLA's products on a CPU.
_TILE = 64

# Up to this ratio of ||o|| to ||y - o|| the offset may be taken out of a product.
_FAR = 4.0


class Rows(NamedTuple):
    """The rows to cluster, and the values computed from them once.

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
    axis_name: str | None = None,
) -> Rows:
    """Describe rows relative to their mean: two reads of the data.

    The result holds the features themselves: returned from jit they would be copied.

    Args:
        features: (n, f) float32, this shard's rows.
        weights: (n,) 1 for rows that count and 0 for padding; default: all count.
        axis_name: mesh axis over which the rows are split, if any.
    """
    if weights is None:
        weights = varying_like(jnp.ones((features.shape[0],), jnp.float32), features)
        # XLA would replace a product with constant ones by a sum over columns, which is slower.
        weights = jax.lax.optimization_barrier(weights)
    count = all_sum(jnp.sum(weights), axis_name)
    offset = all_sum(jnp.matmul(weights, features, precision=HIGHEST), axis_name) / count
    squares = jnp.sum(jnp.square(features - offset[None, :]), axis=1)
    # As a factor the weights would be fused into the sum on a CPU and make it several times slower.
    squares = jnp.where(weights > 0.0, squares, 0.0)
    spread = all_sum(jnp.sum(squares), axis_name) / jnp.maximum(count, 1.0)
    return Rows(features, weights, offset, squares, spread)


def chunk_size(dim: int) -> int:
    """Return how many rows of `dim` numbers are read at a time."""
    return max(CHUNK, _GPU_CHUNK_NUMBERS // dim) if jax.default_backend() == "gpu" else CHUNK


def centred(rows: Rows, index: Int[Array, "*i"]) -> Float[Array, "*i f"]:
    """Return rows, relative to the offset, by their index."""
    picked = rows.features.at[index].get(mode="clip")
    return picked - jnp.broadcast_to(rows.offset, picked.shape)


def visit(
    rows: Rows,
    is_selected: Bool[Array, " n"],
    function: Callable[[Carry, Int[Array, " s"], Float[Array, "s f"], Bool[Array, " s"]], Carry],
    carry: Carry,
) -> Carry:
    """Fold a function over the selected rows only, a chunk at a time: O(selected f) time.

    Args:
        rows: all rows.
        is_selected: (n,) bool.
        function: (carry, index (s,), centred rows (s, f), is real (s,)) -> carry. The last chunk is
            padded with entries that are not real and have the index n, which a scatter drops.
        carry: initial value.
    """
    num_rows, dim = rows.features.shape
    chunk = min(chunk_size(dim), num_rows)
    count = jnp.sum(is_selected, dtype=jnp.int32)
    # A sort compiles ten times faster than the prefix sums of `flatnonzero`, and runs as fast.
    order = jnp.sort(jnp.where(is_selected, jnp.arange(num_rows, dtype=jnp.int32), num_rows))
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
    """Return -2 <y, m> for all rows and points, both relative to the offset."""

    def by_chunks(zero: Array) -> Array:
        every = varying_like(jnp.ones((zero.shape[0],), bool), rows.features)
        return some_products(rows, points, is_selected=every, known=zero)

    zero = jnp.zeros((rows.features.shape[0], points.shape[0]), jnp.float32)
    zero = varying_like(zero, rows.features)
    return jax.lax.cond(rows.is_far, by_chunks, lambda _: whole_products(rows, points), zero)


def whole_products(rows: Rows, points: Float[Array, "m f"]) -> Float[Array, "n m"]:
    """Return the `products` by a single one; only for rows that are not far (`Rows.is_far`)."""
    doubled = -2.0 * points
    product = _times(rows.features, doubled)
    return product - jnp.matmul(doubled, rows.offset, precision=HIGHEST)[None, :]


def some_products(
    rows: Rows,
    points: Float[Array, "m f"],
    *,
    is_selected: Bool[Array, " n"],
    known: Float[Array, "n m"],
) -> Float[Array, "n m"]:
    """Return -2 <y, m> for the selected rows, the known values for the others; see `products`."""
    doubled = -2.0 * points

    def add(known: Array, index: Array, picked: Array, _: Array) -> Array:
        product = float32_product(picked, doubled.T)
        return known.at[index].set(product, mode="drop")

    return visit(rows, is_selected, add, known)


def _times(rows: Float[Array, "n f"], points: Float[Array, "m f"]) -> Float[Array, "n m"]:
    """Return <y, m>, whole tiles of points first: on a CPU XLA is slow for partial tiles.

    Of 10,000 x 8,192, 80 points at once take 42 ms, 64 take 23 and then 16 more 12; 48 take 28.
    """
    num = points.shape[0]
    if num % _TILE > _TILE // 2:
        points = jnp.pad(points, ((0, -num % _TILE), (0, 0)))
    num_tiled = points.shape[0] // _TILE * _TILE
    parts = [part for part in (points[:num_tiled], points[num_tiled:]) if part.shape[0]]
    parts = [float32_product(rows, part.T) for part in parts]
    return jnp.concatenate(parts, axis=1)[:, :num]
