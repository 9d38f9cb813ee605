"""Drawing rows with probability proportional to their weights, of any number of rows.

A draw is the row at which the cumulative weights pass u times their sum, u uniform in [0, 1). In
float32 neither u nor the sums can tell more than 2^24 rows apart, so there are two steps, each over
few entries: which block of rows, by the blocks' sums, and which row in the block. u has 23 bits for
the first step and 23 more, which are used where there are several blocks.

The blocks of all shards follow each other, so that the same key gives the same rows (up to
rounding) whatever the number of devices.

Symbols: n rows, r restarts, t draws, b blocks of s rows. Weights are those of this shard's rows;
`axis_name` is the mesh axis over which the rows are split, if any.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

# float32 tells this many rows apart with room to spare.
_BLOCK = 2**16
# How many values the first step's uniform numbers have.
_STEPS = 2**23

DrawnRows = tuple[Int[Array, "r t"], Bool[Array, "r t"]]
"""The rows drawn, as indices into this shard, and whether each belongs to this shard."""


class Uniforms(NamedTuple):
    """Uniform numbers u = coarse + fine / 2^23.

    Attributes:
        coarse: float32, multiples of 2^-23 in [0, 1).
        fine: float32 in [0, 1), of the same shape.
    """

    coarse: Float[Array, "*i"]
    fine: Float[Array, "*i"]

    @classmethod
    def draw(cls, key: PRNGKeyArray, shape: tuple[int, ...]) -> "Uniforms":
        """Draw numbers; the coarse ones are those of `jax.random.uniform(key, shape)`."""
        fine = jax.random.uniform(jax.random.fold_in(key, 1), shape, jnp.float32)
        return cls(jax.random.uniform(key, shape, jnp.float32), fine)

    def at(self, index: Array | int) -> "Uniforms":
        """Return the numbers at a position of the first axis."""
        return Uniforms(self.coarse[index], self.fine[index])


def draw(
    uniform: Uniforms, weights: Float[Array, "n r"], *, axis_name: str | None = None
) -> DrawnRows:
    """Draw rows with probability proportional to their weights, which are at least 0.

    O(n r + r t s) time and memory; `uniform` is (r, t). A row of weight 0 is never drawn, unless
    all weights are 0.
    """
    return jax.vmap(lambda u, w: _draw(u, w, axis_name), in_axes=(0, 1))(uniform, weights)


def _draw(
    uniform: Uniforms, weights: Float[Array, " n"], axis_name: str | None
) -> tuple[Int[Array, " t"], Bool[Array, " t"]]:
    num_rows = weights.shape[0]
    size = min(num_rows, _BLOCK)
    blocks = jnp.pad(weights, (0, -num_rows % size)).reshape(-1, size)
    cumulative = jnp.cumsum(blocks, axis=1)
    totals = cumulative[:, -1]
    if axis_name is not None:
        totals = jax.lax.all_gather(totals, axis_name, tiled=True)
    if len(totals) == 1:
        # As if there were no blocks, and the fine numbers zero.
        row = _first_above(uniform.coarse * totals, cumulative[0][None], blocks[0][None])
        return row, jnp.ones(row.shape, bool)
    block, remainder = _draw_block(uniform, totals)
    shard, block = block // len(blocks), block % len(blocks)
    is_here = (
        jnp.ones(block.shape, bool) if axis_name is None else shard == jax.lax.axis_index(axis_name)
    )
    sums = cumulative[block]
    row = _first_above(remainder * sums[:, -1], sums, blocks[block])
    return block * size + row, is_here


def _draw_block(
    uniform: Uniforms, totals: Float[Array, " b"]
) -> tuple[Int[Array, " t"], Float[Array, " t"]]:
    """Return the block of each draw, and the position of u within the block's share, in [0, 1).

    In integer multiples of 2^-23, so that the blocks' shares of u neither overlap nor leave gaps.
    """
    sums = jnp.cumsum(totals)
    ends = jnp.round(sums / jnp.where(sums[-1] > 0.0, sums[-1], 1.0) * _STEPS).astype(jnp.int32)
    target = (uniform.coarse * _STEPS).astype(jnp.int32)
    block = _first_above(target, ends[None], totals[None])
    end = ends[block]
    start = jnp.where(block > 0, ends[block - 1], 0)
    remainder = (target - start).astype(jnp.float32) + uniform.fine
    return block, remainder / jnp.maximum(end - start, 1).astype(jnp.float32)


def _first_above(
    target: Shaped[Array, " t"], cumulative: Shaped[Array, "*t s"], weights: Float[Array, "*t s"]
) -> Int[Array, " t"]:
    """Return the first entry with weight whose cumulative weight is above the target.

    Where rounding pushes a target past the end, the last entry with weight is returned. There are
    few targets, and a binary search would be one more loop to compile.
    """
    ids = jnp.arange(weights.shape[1], dtype=jnp.int32)[None]
    has_weight = weights > 0.0
    last = jnp.max(jnp.where(has_weight, ids, 0), axis=1)
    is_above = has_weight & (cumulative > target[:, None])
    return jnp.min(jnp.where(is_above, ids, last[:, None]), axis=1)


def draw_distinct(
    uniform: Uniforms, weights: Float[Array, " n"], *, axis_name: str | None = None
) -> DrawnRows:
    """Draw k different rows per restart, uniformly among those of weight 1 (the others have 0).

    `uniform` is (k, r, 1), the result (r, k).
    """
    num_init = uniform.coarse.shape[1]
    index = jnp.arange(weights.shape[0], dtype=jnp.int32)

    def body(remaining: Array, uniform: Uniforms) -> tuple[Array, tuple[Array, Array]]:
        row, is_here = draw(uniform, remaining, axis_name=axis_name)
        is_hit = (index[:, None] == row[:, 0][None, :]) & is_here[:, 0][None, :]
        return jnp.where(is_hit, 0.0, remaining), (row[:, 0], is_here[:, 0])

    remaining = jnp.broadcast_to(weights[:, None], (weights.shape[0], num_init))
    _, (row, is_here) = jax.lax.scan(body, remaining, uniform)
    return row.T, is_here.T
