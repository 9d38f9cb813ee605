"""Starting centroids for k-means: greedy k-means++ or random rows, all restarts at once.

Greedy k-means++ [Arthur & Vassilvitskii 2007, with the several trials of section 7 of the paper]:
the first centre is a uniform row; every further one is the best of t = 2 + log k rows drawn with
probability proportional to D(y)^2 = min_j ||y - mu_j||^2, where best means the smallest
sum_y min(D(y)^2, ||y - candidate||^2). It is exact at every size.

All restarts share each read of the data, and where there are few of them a read serves several
centres. It draws m > t candidates at once; those not yet tried when a centre has been chosen stay
fair draws for the next one if each is kept with probability D(now)^2 / D(when drawn)^2 (rejection
sampling: D never grows). When fewer than t are left, the next read draws anew.

Draws go shard by shard through cumulative sums, so that the same key gives the same rows (up to
rounding) whatever the number of devices.

Symbols: y rows (n, f), r restarts, k clusters, t trials, m candidates of a read.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from cgjax.clustering.kmeans.rows import Rows, centred, products
from cgjax.clustering.kmeans.subspace import most_points
from cgjax.runtime.mesh import all_sum, axis_position, from_shards, varying_like

# With so many points a product costs little more than the read it needs.
_COLUMNS = 64

INITS = ("k-means++", "random")


def num_trials(num_clusters: int) -> int:
    """Return how many candidates greedy k-means++ tries for each centre: 2 + log k."""
    return 2 + int(math.log(num_clusters))


def num_candidates(num_clusters: int, num_init: int) -> int:
    """Return how many candidates m a read draws for each restart."""
    trials = num_trials(num_clusters)
    # After the first centre two clusters need one more: there is nothing to share.
    return max(trials, _COLUMNS // num_init) if num_clusters > 2 else trials


def uniforms(
    key: PRNGKeyArray, *, num_clusters: int, num_init: int
) -> tuple[Float[Array, "k r m"], Float[Array, "k r m"]]:
    """Return all random numbers of greedy k-means++, uniform in [0, 1): two for each candidate.

    The first of each pair draws it, the second says whether it is kept.
    """
    shape = (2, num_clusters, num_init, num_candidates(num_clusters, num_init))
    drawing, keeping = jax.random.uniform(key, shape)
    return drawing, keeping


def uniforms_of_rows(
    key: PRNGKeyArray, *, num_clusters: int, num_init: int
) -> Float[Array, "k r 1"]:
    """Return all random numbers of random rows, uniform in [0, 1)."""
    return jax.random.uniform(key, (num_clusters, num_init, 1))


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


class Seeds(NamedTuple):
    """The centres chosen so far.

    Attributes:
        centroids: (r, k, f) float32, relative to the offset; zeros for those to come.
        products: (r, k, n) float32, -2 <y, centre>; this shard's rows.
        closest: (r, n) float32, D(y)^2; 0 for padding.
        num_chosen: () int32.
    """

    centroids: Float[Array, "r k f"]
    products: Float[Array, "r k n"]
    closest: Float[Array, "r n"]
    num_chosen: Int[Array, ""]


class Candidates(NamedTuple):
    """Rows drawn for one read.

    Attributes:
        rows: (r, m, f) float32, relative to the offset.
        closest: (r, m) float32, their D^2 now.
        least: (r, m) float32, a candidate is rejected once its D^2 is below it.
    """

    rows: Float[Array, "r m f"]
    closest: Float[Array, "r m"]
    least: Float[Array, "r m"]


class Tried(NamedTuple):
    """The candidates of several reads; zeros where fewer were drawn.

    Attributes:
        points: (q, f) float32, relative to the offset.
        products: (n, q) float32, -2 <y, point>; this shard's rows.
    """

    points: Float[Array, "q f"]
    products: Float[Array, "n q"]


def first_seeds(
    centres: Float[Array, "r f"],
    product: Float[Array, "n r"],
    *,
    squares: Float[Array, " n"],
    weights: Float[Array, " n"],
    num_clusters: int,
) -> Seeds:
    """Return the state in which each restart has its first centre.

    Args:
        centres: (r, f), relative to the offset.
        product: (n, r), -2 <y, centre>.
        squares: (n,) squared norms of the rows.
        weights: (n,) 1 for rows that count and 0 for padding.
        num_clusters: k.
    """
    num_init, dim = centres.shape
    products = varying_like(jnp.zeros((num_init, num_clusters, squares.shape[0])), squares)
    return Seeds(
        centroids=jnp.zeros((num_init, num_clusters, dim)).at[:, 0].set(centres),
        products=products.at[:, 0].set(product.T),
        closest=_distances(product.T, centres, squares) * weights[None, :],
        num_chosen=jnp.int32(1),
    )


def fresh_candidates(
    rows: Float[Array, "r m f"], closest: Float[Array, "r m"], keeping: Float[Array, "r m"]
) -> Candidates:
    """Return candidates just drawn; the uniform numbers `keeping` say how long they stay.

    A candidate stays while D(now)^2 / D(when drawn)^2 is at least 1 - keeping, which is never zero:
    a row that became a centre is rejected.
    """
    return Candidates(rows, closest, (1.0 - keeping) * closest)


def choose(
    seeds: Seeds,
    candidates: Candidates,
    product: Float[Array, "n rm"],
    *,
    squares: Float[Array, " n"],
    weights: Float[Array, " n"],
    trials: int,
    axis_name: str | None = None,
) -> Seeds:
    """Choose centres for as long as every restart has t candidates left: at least one.

    Each is the best of the first t candidates that are left; whatever comes up to the last of them
    is used up, those tried and those rejected.

    Args:
        seeds: the centres so far.
        candidates: (r, m) fresh candidates, m >= t, drawn with those centres.
        product: (n, r * m), -2 <y, candidate> for all of them.
        squares: (n,) squared norms of the rows.
        weights: (n,) 1 for rows that count and 0 for padding.
        trials: how many candidates t are tried for each centre.
        axis_name: mesh axis over which the rows are split, if any.
    """
    rows, _, least = candidates
    num_init, num, _ = rows.shape
    product = product.T.reshape(num_init, num, squares.shape[0])
    ids = jnp.arange(num, dtype=jnp.int32)[None, :]

    def is_left(closest: Array, num_used: Array) -> Array:
        # NaN stays: such data are reported by the caller, and a read must choose a centre.
        return ~(closest < least) & (ids >= num_used[:, None])

    def can_choose(carry: tuple[Seeds, Array, Array]) -> Array:
        seeds, closest, num_used = carry
        is_enough = jnp.all(jnp.sum(is_left(closest, num_used), axis=1) >= trials)
        return is_enough & (seeds.num_chosen < seeds.centroids.shape[1])

    def choose_one(carry: tuple[Seeds, Array, Array]) -> tuple[Seeds, Array, Array]:
        seeds, closest, num_used = carry
        tried = _first_of(is_left(closest, num_used), trials)
        tried_rows = jnp.take_along_axis(rows, tried[:, :, None], axis=1)
        tried_product = jnp.take_along_axis(product, tried[:, :, None], axis=1)
        distance = _distances(tried_product, tried_rows, squares)
        updated = jnp.minimum(seeds.closest[:, None, :], distance) * weights[None, None, :]
        potential = all_sum(jnp.sum(updated, axis=2), axis_name)
        best = jnp.argmin(potential, axis=1)[:, None, None]
        centre = jnp.take_along_axis(tried_rows, best, axis=1)
        centre_product = jnp.take_along_axis(tried_product, best, axis=1)
        put = jax.lax.dynamic_update_slice_in_dim
        seeds = Seeds(
            centroids=put(seeds.centroids, centre, seeds.num_chosen, 1),
            products=put(seeds.products, centre_product, seeds.num_chosen, 1),
            closest=jnp.take_along_axis(updated, best, axis=1)[:, 0],
            num_chosen=seeds.num_chosen + 1,
        )
        closest = jnp.minimum(closest, jnp.sum(jnp.square(rows - centre), axis=2))
        return seeds, closest, tried[:, -1] + 1

    num_used = jnp.zeros((num_init,), jnp.int32)
    return jax.lax.while_loop(can_choose, choose_one, (seeds, candidates.closest, num_used))[0]


def _distances(
    product: Float[Array, "*p n"], points: Float[Array, "*p f"], squares: Float[Array, " n"]
) -> Float[Array, "*p n"]:
    """Return the squared distances of all rows to the points, of which -2 <y, point> is known."""
    norms = jnp.sum(jnp.square(points), axis=-1, keepdims=True)
    return jnp.maximum(product + norms + jnp.broadcast_to(squares, product.shape), 0.0)


def _first_of(is_left: Bool[Array, "r m"], num: int) -> Int[Array, "r t"]:
    """Return where the first `num` are: by counting, for a sort would take longer to compile."""
    rank = jnp.cumsum(is_left, axis=1, dtype=jnp.int32)
    wanted = jnp.arange(1, num + 1, dtype=jnp.int32)[None, :, None]
    # As many come before the j-th as have a smaller rank.
    return jnp.sum(rank[:, None, :] < wanted, axis=2, dtype=jnp.int32)


def seed_plus_plus(
    rows: Rows,
    key: PRNGKeyArray,
    *,
    num_clusters: int,
    num_init: int,
    axis_name: str | None = None,
) -> tuple[Seeds, Tried]:
    """Choose centred starting centroids by greedy k-means++.

    O(n r m f) time for each of at most k reads of the data, O(n r (m + k)) memory.

    Args:
        rows: the data, this shard's rows.
        key: random key, the same in every shard.
        num_clusters: k.
        num_init: number of restarts.
        axis_name: mesh axis over which the rows are split, if any.

    Returns:
        The seeds, and as many of the candidates as are worth following.
    """
    dim = rows.features.shape[1]
    drawing, keeping = uniforms(key, num_clusters=num_clusters, num_init=num_init)
    same = {"squares": rows.squares, "weights": rows.weights}

    equally = jnp.broadcast_to(rows.weights[:, None], (rows.weights.shape[0], num_init))
    row, is_here = draw(drawing[0, :, :1], equally, axis_name=axis_name)
    centres = from_shards(centred(rows, row), is_here, axis_name)[:, 0]
    seeds = first_seeds(centres, products(rows, centres), num_clusters=num_clusters, **same)

    width = num_init * drawing.shape[2]
    num_kept = min(num_clusters - 1, most_points(dim) // width)
    # Read by read, which keeps the products of one together.
    points = jnp.zeros((num_kept, width, dim))
    tried = varying_like(jnp.zeros((num_kept, rows.squares.shape[0], width)), rows.squares)

    def is_running(carry: tuple[Array, Seeds, Array, Array]) -> Array:
        return carry[1].num_chosen < num_clusters

    def read(carry: tuple[Array, Seeds, Array, Array]) -> tuple[Array, Seeds, Array, Array]:
        num_reads, seeds, points, tried = carry
        row, is_here = draw(drawing[num_reads], seeds.closest.T, axis_name=axis_name)
        closest = jnp.take_along_axis(seeds.closest, row, axis=1)
        candidates = fresh_candidates(
            from_shards(centred(rows, row), is_here, axis_name),
            from_shards(closest, is_here, axis_name),
            keeping[num_reads],
        )
        flat = candidates.rows.reshape(width, dim)
        product = products(rows, flat)
        trials = num_trials(num_clusters)
        seeds = choose(seeds, candidates, product, trials=trials, axis_name=axis_name, **same)
        if num_kept:
            points = points.at[num_reads - 1].set(flat, mode="drop")
            tried = tried.at[num_reads - 1].set(product, mode="drop")
        return num_reads + 1, seeds, points, tried

    carry = (jnp.int32(1), seeds, points, tried)
    _, seeds, points, tried = jax.lax.while_loop(is_running, read, carry)
    num = num_kept * width
    tried = tried.transpose(1, 0, 2).reshape(rows.squares.shape[0], num)
    return seeds, Tried(points.reshape(num, dim), tried)


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
    uniform = uniforms_of_rows(key, num_clusters=num_clusters, num_init=num_init)
    row, is_here = draw_distinct(uniform, rows.weights, axis_name=axis_name)
    return from_shards(centred(rows, row), is_here, axis_name)
