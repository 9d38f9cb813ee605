"""Starting centroids for k-means: greedy k-means++ or random rows, all restarts at once.

Greedy k-means++ [Arthur & Vassilvitskii 2007, with the several trials of section 7 of the paper]:
the first centre is a uniform row; every further one is the best of t = 2 + log k rows drawn with
probability proportional to D(y)^2 = min_j ||y - mu_j||^2, where best means the smallest
sum_y min(D(y)^2, ||y - candidate||^2). It is exact at every size: one read of the data per centre,
shared by all restarts and trials. Draws go shard by shard through cumulative sums, so that the same
key gives the same rows (up to rounding) whatever the number of devices.

Symbols: y rows (n, f), r restarts, k clusters, t trials.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from cgjax.clustering.rows import Rows, centred, products
from cgjax.parallel import all_sum, axis_position

INITS = ("k-means++", "random")


def num_trials(num_clusters: int) -> int:
    """Return how many candidates greedy k-means++ tries for each centre: 2 + log k."""
    return 2 + int(math.log(num_clusters))


def uniforms(
    key: PRNGKeyArray, *, num_clusters: int, num_init: int, method: str = "k-means++"
) -> Float[Array, "k r t"]:
    """Return all random numbers that seeding uses, uniform in [0, 1)."""
    trials = num_trials(num_clusters) if method == "k-means++" else 1
    return jax.random.uniform(key, (num_clusters, num_init, trials))


def draw(
    uniform: Float[Array, "r t"], weights: Float[Array, "n r"], *, axis_name: str | None = None
) -> tuple[Int[Array, "r t"], Bool[Array, "r t"]]:
    """Draw rows with probability proportional to their weights, for each restart.

    Args:
        uniform: (r, t) in [0, 1).
        weights: (n, r), at least 0, this shard's rows.
        axis_name: mesh axis over which the rows are split, if any.

    Returns:
        The rows within this shard, and whether each draw belongs to this shard.
    """
    return jax.vmap(lambda u, w: _draw(u, w, axis_name), in_axes=(0, 1))(uniform, weights)


def _draw(
    uniform: Float[Array, " t"], weights: Float[Array, " n"], axis_name: str | None
) -> tuple[Int[Array, " t"], Bool[Array, " t"]]:
    heap = jnp.cumsum(weights)
    # Rounding may push a target past the end: then the last row with any weight is meant.
    last = jnp.max(jnp.where(weights > 0.0, jnp.arange(weights.shape[0], dtype=jnp.int32), 0))
    if axis_name is None:
        row = _count_up_to(heap, uniform * heap[-1])
        return jnp.minimum(row, last), jnp.ones(uniform.shape, bool)
    totals = jax.lax.all_gather(heap[-1], axis_name)
    ends = jnp.cumsum(totals)
    target = uniform * ends[-1]
    last_shard = jnp.max(jnp.where(totals > 0.0, jnp.arange(totals.shape[0], dtype=jnp.int32), 0))
    shard = jnp.minimum(_count_up_to(ends, target), last_shard)
    row = _count_up_to(heap, target - (ends[shard] - totals[shard]))
    return jnp.minimum(row, last), shard == axis_position(axis_name)


def _count_up_to(heap: Float[Array, " n"], target: Float[Array, " t"]) -> Int[Array, " t"]:
    """Return how many entries of the ascending heap are at most the target: a plain comparison.

    The targets are few, and a binary search would be one more loop to compile.
    """
    return jnp.sum(heap[:, None] <= target[None, :], axis=0, dtype=jnp.int32)


def choose(
    closest: Float[Array, "n r"],
    candidates: Float[Array, "r t f"],
    product: Float[Array, "n rt"],
    *,
    squares: Float[Array, " n"],
    weights: Float[Array, " n"],
    is_first: bool | Bool[Array, ""],
    axis_name: str | None = None,
) -> tuple[Float[Array, "r f"], Float[Array, "n r"]]:
    """Choose the best candidate of each restart as its next centre.

    Args:
        closest: (n, r) squared distance of each row to the nearest centre so far.
        candidates: (r, t, f) rows relative to the offset.
        product: (n, r * t), -2 <y, candidate> for all of them.
        squares: (n,) squared norms of the rows.
        weights: (n,) 1 for rows that count and 0 for padding.
        is_first: there is no centre yet; then the first candidate is taken, a uniform row.
        axis_name: mesh axis over which the rows are split, if any.

    Returns:
        The chosen centres (r, f) and the new `closest`.
    """
    norms = jnp.sum(jnp.square(candidates), axis=2)
    distance = product.reshape(squares.shape[0], *norms.shape) + norms[None, :, :]
    distance = jnp.maximum(distance + squares[:, None, None], 0.0)
    updated = jnp.where(is_first, distance, jnp.minimum(closest[:, :, None], distance))
    updated = updated * weights[:, None, None]
    potential = all_sum(jnp.sum(updated, axis=0), axis_name)
    best = jnp.where(is_first, 0, jnp.argmin(potential, axis=1))
    closest = jnp.take_along_axis(updated, best[None, :, None], axis=2)[:, :, 0]
    return jnp.take_along_axis(candidates, best[:, None, None], axis=1)[:, 0], closest


def _fetch(rows: Rows, row: Array, is_here: Array, axis_name: str | None) -> Array:
    """Return the centred rows of the given draws, from whichever shard holds them."""
    picked = centred(rows, row)
    if axis_name is None:
        return picked
    return all_sum(jnp.where(is_here[..., None], picked, 0.0), axis_name)


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
    uniform = uniforms(key, num_clusters=num_clusters, num_init=num_init)

    def body(step: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        centroids, closest = carry
        row, is_here = draw(uniform[step], closest, axis_name=axis_name)
        candidates = _fetch(rows, row, is_here, axis_name)
        chosen, closest = choose(
            closest,
            candidates,
            products(rows, candidates.reshape(-1, dim)),
            squares=rows.squares,
            weights=rows.weights,
            is_first=step == 0,
            axis_name=axis_name,
        )
        return jax.lax.dynamic_update_slice_in_dim(centroids, chosen[:, None], step, 1), closest

    centroids = jnp.zeros((num_init, num_clusters, dim), jnp.float32)
    equal = jnp.broadcast_to(rows.weights[:, None], (num_rows, num_init))
    centroids, _ = jax.lax.fori_loop(0, num_clusters, body, (centroids, equal))
    return centroids


def draw_distinct(
    uniform: Float[Array, "k r 1"], weights: Float[Array, " n"], *, axis_name: str | None = None
) -> tuple[Int[Array, "r k"], Bool[Array, "r k"]]:
    """Draw k different rows per restart, uniformly among those with weight; returns as `draw`."""
    num_init = uniform.shape[1]
    index = jnp.arange(weights.shape[0], dtype=jnp.int32)

    def body(remaining: Array, uniform: Array) -> tuple[Array, tuple[Array, Array]]:
        row, is_here = draw(uniform, remaining, axis_name=axis_name)
        is_hit = (index[:, None] == row[:, 0][None, :]) & is_here[:, 0][None, :]
        return jnp.where(is_hit, 0.0, remaining), (row[:, 0], is_here[:, 0])

    remaining = jnp.broadcast_to(weights[:, None], (weights.shape[0], num_init))
    _, (row, is_here) = jax.lax.scan(body, remaining, uniform)
    return row.T, is_here.T


def seed_random(
    rows: Rows,
    key: PRNGKeyArray,
    *,
    num_clusters: int,
    num_init: int,
    axis_name: str | None = None,
) -> Float[Array, "r k f"]:
    """Choose k different rows per restart, uniformly. Arguments as for `seed_plus_plus`."""
    uniform = uniforms(key, num_clusters=num_clusters, num_init=num_init, method="random")
    row, is_here = draw_distinct(uniform, rows.weights, axis_name=axis_name)
    return _fetch(rows, row, is_here, axis_name)
