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

from cgjax.clustering.rows import Rows, centred, products
from cgjax.parallel import all_sum, axis_position

INITS = ("k-means++", "random")


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


def _fetch(rows: Rows, row: Array, is_here: Array, axis_name: str | None) -> Array:
    """Return the centred rows of the given draws, from whichever shard holds them."""
    picked = centred(rows, row)
    if axis_name is None:
        return picked
    return all_sum(jnp.where(is_here[..., None], picked, 0.0), axis_name)


def num_trials(num_clusters: int) -> int:
    """Return how many candidates greedy k-means++ tries for each centre: 2 + log k."""
    return 2 + int(math.log(num_clusters))


def seed_plus_plus(
    rows: Rows,
    key: PRNGKeyArray,
    *,
    num_clusters: int,
    num_init: int,
    axis_name: str | None = None,
) -> Float[Array, "r k f"]:
    """Choose centred starting centroids by greedy k-means++.

    O(n r t k f) time in k reads of the data, O(n r t) memory.

    Args:
        rows: the data, this shard's rows.
        key: random key, the same in every shard.
        num_clusters: k.
        num_init: number of restarts.
        axis_name: mesh axis over which the rows are split, if any.

    Returns:
        (r, k, f) float32, relative to the offset.
    """
    num_rows, dim = rows.features.shape
    trials = num_trials(num_clusters)
    keys = jax.vmap(lambda r: jax.random.fold_in(key, r))(jnp.arange(num_init))
    draw = jax.vmap(lambda u, w: _draw(u, w, axis_name), in_axes=(0, 1))

    def uniforms(step: Array) -> Array:
        return jax.vmap(lambda k: jax.random.uniform(jax.random.fold_in(k, step), (trials,)))(keys)

    def body(step: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        centroids, closest = carry
        row, is_here = draw(uniforms(step), closest)
        candidates = _fetch(rows, row, is_here, axis_name)
        product = products(rows, candidates.reshape(-1, dim), axis_name=axis_name)
        norms = jnp.sum(jnp.square(candidates), axis=2)
        distance = product.reshape(num_rows, num_init, trials) + norms[None, :, :]
        distance = jnp.maximum(distance + rows.squares[:, None, None], 0.0)
        # Before the first centre every row is infinitely far, and every candidate equally good.
        is_first = step == 0
        updated = jnp.where(is_first, distance, jnp.minimum(closest[:, :, None], distance))
        updated = updated * rows.weights[:, None, None]
        potential = all_sum(jnp.sum(updated, axis=0), axis_name)
        best = jnp.where(is_first, 0, jnp.argmin(potential, axis=1))
        closest = jnp.take_along_axis(updated, best[None, :, None], axis=2)[:, :, 0]
        chosen = jnp.take_along_axis(candidates, best[:, None, None], axis=1)
        return jax.lax.dynamic_update_slice_in_dim(centroids, chosen, step, 1), closest

    centroids = jnp.zeros((num_init, num_clusters, dim), jnp.float32)
    uniform = jnp.broadcast_to(rows.weights[:, None], (num_rows, num_init))
    centroids, _ = jax.lax.fori_loop(0, num_clusters, body, (centroids, uniform))
    return centroids


def seed_random(
    rows: Rows,
    key: PRNGKeyArray,
    *,
    num_clusters: int,
    num_init: int,
    axis_name: str | None = None,
) -> Float[Array, "r k f"]:
    """Choose k different rows per restart, uniformly. Arguments as for `seed_plus_plus`."""
    num_rows, dim = rows.features.shape
    keys = jax.vmap(lambda r: jax.random.fold_in(key, r))(jnp.arange(num_init))
    draw = jax.vmap(lambda u, w: _draw(u, w, axis_name), in_axes=(0, 1))
    index = jnp.arange(num_rows, dtype=jnp.int32)

    def body(step: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        centroids, remaining = carry
        uniform = jax.vmap(lambda k: jax.random.uniform(jax.random.fold_in(k, step), (1,)))(keys)
        row, is_here = draw(uniform, remaining)
        chosen = _fetch(rows, row, is_here, axis_name)
        is_hit = (index[:, None] == row[:, 0][None, :]) & is_here[:, 0][None, :]
        remaining = jnp.where(is_hit, 0.0, remaining)
        return jax.lax.dynamic_update_slice_in_dim(centroids, chosen, step, 1), remaining

    centroids = jnp.zeros((num_init, num_clusters, dim), jnp.float32)
    remaining = jnp.broadcast_to(rows.weights[:, None], (num_rows, num_init))
    centroids, _ = jax.lax.fori_loop(0, num_clusters, body, (centroids, remaining))
    return centroids
