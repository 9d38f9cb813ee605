"""Starting centroids for k-means: greedy k-means++ or random rows, all restarts at once.

Greedy k-means++ [Arthur & Vassilvitskii 2007, with the several trials of section 7 of the paper]:
the first centre is a uniform row; every further one is the best of t = 2 + log k rows drawn with
probability proportional to D(y)^2 = min_j ||y - mu_j||^2, where best means the smallest
sum_y min(D(y)^2, ||y - candidate||^2). It is exact at every size: one read of the data per centre,
shared by all restarts and trials. Draws go shard by shard through cumulative sums, so that the same
key gives the same rows (up to rounding) whatever the number of devices.

Symbols: y rows (n, f), r restarts, k clusters, t trials, m points, s block.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from cgjax.clustering.assignment import block_rows
from cgjax.kernels.distance import HIGHEST, block_starts, join_blocks
from cgjax.parallel import all_sum, axis_position

INITS = ("k-means++", "random")


def squared_distances_to(
    features: Float[Array, "n f"],
    points: Float[Array, "m f"],
    *,
    offset: Float[Array, " f"],
    squares: Float[Array, " n"],
    block: int,
) -> Float[Array, "n m"]:
    """Return the squared distances of all rows to centred points, in one read of the data."""
    norms = jnp.sum(points * points, axis=1)

    def body(_: None, start: Array) -> tuple[None, Array]:
        rows = jax.lax.dynamic_slice_in_dim(features, start, block) - offset[None, :]
        return None, jnp.matmul(-2.0 * rows, points.T, precision=HIGHEST)

    _, product = jax.lax.scan(body, None, block_starts(features.shape[0], block))
    relative = join_blocks(product, features.shape[0]) + norms[None, :]
    return jnp.maximum(relative + squares[:, None], 0.0)


def _draw(
    uniform: Float[Array, " t"], weights: Float[Array, " n"], axis_name: str | None
) -> tuple[Int[Array, " t"], Bool[Array, " t"]]:
    """Draw rows with probability proportional to their weights.

    Returns:
        The row within this shard, and whether the draw belongs to this shard.
    """
    heap = jnp.cumsum(weights)
    # Rounding may push a target past the end: then the last row with any weight is meant.
    last = jnp.max(jnp.where(weights > 0.0, jnp.arange(weights.shape[0], dtype=jnp.int32), 0))
    if axis_name is None:
        row = jnp.searchsorted(heap, uniform * heap[-1], side="right").astype(jnp.int32)
        return jnp.minimum(row, last), jnp.ones(uniform.shape, bool)
    totals = jax.lax.all_gather(heap[-1], axis_name)
    ends = jnp.cumsum(totals)
    target = uniform * ends[-1]
    last_shard = jnp.max(jnp.where(totals > 0.0, jnp.arange(totals.shape[0], dtype=jnp.int32), 0))
    shard = jnp.searchsorted(ends, target, side="right").astype(jnp.int32)
    shard = jnp.minimum(shard, last_shard)
    local = target - (ends[shard] - totals[shard])
    row = jnp.searchsorted(heap, local, side="right").astype(jnp.int32)
    return jnp.minimum(row, last), shard == axis_position(axis_name)


def _fetch(
    features: Array, row: Array, is_here: Array, offset: Array, axis_name: str | None
) -> Array:
    """Return the centred rows of the given draws, from whichever shard holds them."""
    rows = features[row] - offset
    if axis_name is None:
        return rows
    return all_sum(jnp.where(is_here[..., None], rows, 0.0), axis_name)


def num_trials(num_clusters: int) -> int:
    """Return how many candidates greedy k-means++ tries for each centre: 2 + log k."""
    return 2 + int(math.log(num_clusters))


def seed_plus_plus(
    features: Float[Array, "n f"],
    key: PRNGKeyArray,
    *,
    num_clusters: int,
    num_init: int,
    offset: Float[Array, " f"],
    squares: Float[Array, " n"],
    weights: Float[Array, " n"],
    block: int | None = None,
    axis_name: str | None = None,
) -> Float[Array, "r k f"]:
    """Choose centred starting centroids by greedy k-means++.

    O(n r t k f) time in k reads of the data, O(n r t) memory.

    Args:
        features: (n, f) float32, this shard's rows.
        key: random key, the same in every shard.
        num_clusters: k.
        num_init: number of restarts.
        offset: (f,) what to subtract from every row.
        squares: (n,) squared norms of the centred rows.
        weights: (n,) 1 for rows that count and 0 for padding.
        block: rows per block.
        axis_name: mesh axis over which the rows are split, if any.

    Returns:
        (r, k, f) float32, relative to the offset.
    """
    num_rows, dim = features.shape
    trials = num_trials(num_clusters)
    block = min(block or block_rows(dim, num_rows), num_rows)
    keys = jax.vmap(lambda r: jax.random.fold_in(key, r))(jnp.arange(num_init))

    def uniforms(step: Array, num: int) -> Array:
        return jax.vmap(lambda k: jax.random.uniform(jax.random.fold_in(k, step), (num,)))(keys)

    def distances(points: Array) -> Array:
        flat = points.reshape(-1, dim)
        found = squared_distances_to(features, flat, offset=offset, squares=squares, block=block)
        return found.reshape(num_rows, *points.shape[:-1]) * weights.reshape(
            num_rows, *([1] * (points.ndim - 1))
        )

    row, is_here = jax.vmap(lambda u: _draw(u, weights, axis_name))(uniforms(jnp.int32(0), 1))
    first = _fetch(features, row[:, 0], is_here[:, 0], offset[None, :], axis_name)
    closest = distances(first)
    centroids = jnp.zeros((num_init, num_clusters, dim), jnp.float32).at[:, 0].set(first)

    def body(step: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        centroids, closest = carry
        draw = jax.vmap(lambda u, w: _draw(u, w, axis_name), in_axes=(0, 1))
        row, is_here = draw(uniforms(step, trials), closest)
        candidates = _fetch(features, row, is_here, offset[None, None, :], axis_name)
        updated = jnp.minimum(closest[:, :, None], distances(candidates))
        potential = all_sum(jnp.sum(updated, axis=0), axis_name)
        best = jnp.argmin(potential, axis=1)
        closest = jnp.take_along_axis(updated, best[None, :, None], axis=2)[:, :, 0]
        chosen = jnp.take_along_axis(candidates, best[:, None, None], axis=1)
        return jax.lax.dynamic_update_slice_in_dim(centroids, chosen, step, 1), closest

    centroids, _ = jax.lax.fori_loop(1, num_clusters, body, (centroids, closest))
    return centroids


def seed_random(
    features: Float[Array, "n f"],
    key: PRNGKeyArray,
    *,
    num_clusters: int,
    num_init: int,
    offset: Float[Array, " f"],
    weights: Float[Array, " n"],
    axis_name: str | None = None,
) -> Float[Array, "r k f"]:
    """Choose k different rows per restart, uniformly. Arguments as for `seed_plus_plus`."""
    keys = jax.vmap(lambda r: jax.random.fold_in(key, r))(jnp.arange(num_init))

    def body(step: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        centroids, remaining = carry
        uniform = jax.vmap(lambda k: jax.random.uniform(jax.random.fold_in(k, step), (1,)))(keys)
        draw = jax.vmap(lambda u, w: _draw(u, w, axis_name), in_axes=(0, 1))
        row, is_here = draw(uniform, remaining)
        chosen = _fetch(features, row, is_here, offset[None, None, :], axis_name)
        hit = jnp.arange(remaining.shape[0], dtype=jnp.int32)[:, None] == row[:, 0][None, :]
        remaining = jnp.where(hit & is_here[:, 0][None, :], 0.0, remaining)
        return jax.lax.dynamic_update_slice_in_dim(centroids, chosen, step, 1), remaining

    centroids = jnp.zeros((num_init, num_clusters, features.shape[1]), jnp.float32)
    remaining = jnp.broadcast_to(weights[:, None], (weights.shape[0], num_init))
    centroids, _ = jax.lax.fori_loop(0, num_clusters, body, (centroids, remaining))
    return centroids
