"""Starting centroids for k-means: greedy k-means++ or random rows, all restarts at once.

Greedy k-means++ [Arthur & Vassilvitskii 2007, with the several trials of section 7 of the paper]:
the first centre is a uniform row; every further one is the best of t = 2 + log k rows drawn with
probability proportional to D(y)^2 = min_j ||y - mu_j||^2, where best means the smallest
sum_y min(D(y)^2, ||y - candidate||^2). It is exact at every size.

All restarts share each pass over the data, and with few restarts a pass serves several centres. It
draws m > t candidates at once; those not yet tried when a centre has been chosen stay fair draws
for the next one if each is kept with probability D(now)^2 / D(when drawn)^2 (rejection sampling: D
never grows). When fewer than t are left, the next pass draws new ones.

Symbols: y rows (n, f), r restarts, k clusters, t trials, m candidates of a pass.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from cgjax.clustering.kmeans.drawing import Uniforms, draw, draw_distinct
from cgjax.clustering.kmeans.options import Options
from cgjax.clustering.kmeans.rows import Rows, centred, products
from cgjax.clustering.kmeans.subspace import most_points
from cgjax.runtime.mesh import all_sum, from_shards, varying_like

# With up to this many points a product costs little more than the pass over the data.
_COLUMNS = 64


def num_trials(num_clusters: int) -> int:
    """Return how many candidates greedy k-means++ tries for each centre: 2 + log k."""
    return 2 + int(math.log(num_clusters))


def num_candidates(num_clusters: int, num_init: int) -> int:
    """Return how many candidates m a pass draws for each restart."""
    trials = num_trials(num_clusters)
    # Two clusters need a single further centre: there is nothing to share.
    return max(trials, _COLUMNS // num_init) if num_clusters > 2 else trials


def uniforms(
    key: PRNGKeyArray, *, num_clusters: int, num_init: int
) -> tuple[Uniforms, Float[Array, "k r m"]]:
    """Return all random numbers of greedy k-means++.

    The first of each pair draws a candidate, the second says whether it is kept.
    """
    shape = (2, num_clusters, num_init, num_candidates(num_clusters, num_init))
    both = Uniforms.draw(key, shape)
    return both.at(0), both.coarse[1]


def uniforms_of_rows(key: PRNGKeyArray, *, num_clusters: int, num_init: int) -> Uniforms:
    """Return all random numbers of random rows, (k, r, 1)."""
    return Uniforms.draw(key, (num_clusters, num_init, 1))


class Seeds(NamedTuple):
    """The centres chosen so far.

    Attributes:
        centroids: (r, k, f) float32, relative to the offset; zeros for those not chosen yet.
        products: (r, k, n) float32, -2 <y, centre>; this shard's rows.
        closest: (r, n) float32, D(y)^2; 0 for padding.
        num_chosen: () int32.
    """

    centroids: Float[Array, "r k f"]
    products: Float[Array, "r k n"]
    closest: Float[Array, "r n"]
    num_chosen: Int[Array, ""]


class Candidates(NamedTuple):
    """Rows drawn for one pass over the data.

    Attributes:
        rows: (r, m, f) float32, relative to the offset.
        closest: (r, m) float32, their D^2 now.
        least: (r, m) float32, a candidate is rejected once its D^2 is below it.
    """

    rows: Float[Array, "r m f"]
    closest: Float[Array, "r m"]
    least: Float[Array, "r m"]


class Tried(NamedTuple):
    """The candidates of several passes; zeros where fewer were drawn.

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
    products = varying_like(
        jnp.zeros((num_init, num_clusters, squares.shape[0]), jnp.float32), squares
    )
    return Seeds(
        centroids=jnp.zeros((num_init, num_clusters, dim), jnp.float32).at[:, 0].set(centres),
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
    """Choose centres while every restart has t candidates left: at least one centre.

    Each is the best of the first t candidates that are left; all candidates up to the last of these
    are used up, tried or rejected.

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
        # NaN stays: such data are reported by the caller, and a pass must choose a centre.
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
    """Return where the first `num` are, by counting: a sort would take longer to compile."""
    rank = jnp.cumsum(is_left, axis=1, dtype=jnp.int32)
    wanted = jnp.arange(1, num + 1, dtype=jnp.int32)[None, :, None]
    # As many come before the j-th as have a smaller rank.
    return jnp.sum(rank[:, None, :] < wanted, axis=2, dtype=jnp.int32)


def seed_plus_plus(
    rows: Rows, key: PRNGKeyArray, options: Options, *, axis_name: str | None = None
) -> tuple[Seeds, Tried]:
    """Choose starting centroids, relative to the offset, by greedy k-means++.

    O(n r m f) time for each of at most k passes over the data, O(n r (m + k)) memory.

    Args:
        rows: the data, this shard's rows.
        key: random key, the same in every shard.
        options: how to search; k is the largest number of clusters.
        axis_name: mesh axis over which the rows are split, if any.

    Returns:
        The seeds, and as many of the candidates as are worth following.
    """
    num_clusters, num_init = max(options.numbers), options.num_init
    dim = rows.features.shape[1]
    drawing, keeping = uniforms(key, num_clusters=num_clusters, num_init=num_init)
    first = Uniforms(*(values[0, :, :1] for values in drawing))
    same = {"squares": rows.squares, "weights": rows.weights}

    equally = jnp.broadcast_to(rows.weights[:, None], (rows.weights.shape[0], num_init))
    row, is_here = draw(first, equally, axis_name=axis_name)
    centres = from_shards(centred(rows, row), is_here, axis_name)[:, 0]
    seeds = first_seeds(centres, products(rows, centres), num_clusters=num_clusters, **same)

    width = num_init * keeping.shape[2]
    num_kept = min(num_clusters - 1, most_points(dim) // width)
    # Pass by pass, which keeps the products of one together.
    points = jnp.zeros((num_kept, width, dim), jnp.float32)
    tried = varying_like(
        jnp.zeros((num_kept, rows.squares.shape[0], width), jnp.float32), rows.squares
    )

    def is_running(carry: tuple[Array, Seeds, Array, Array]) -> Array:
        return carry[1].num_chosen < num_clusters

    def next_pass(carry: tuple[Array, Seeds, Array, Array]) -> tuple[Array, Seeds, Array, Array]:
        num_passes, seeds, points, tried = carry
        row, is_here = draw(drawing.at(num_passes), seeds.closest.T, axis_name=axis_name)
        closest = jnp.take_along_axis(seeds.closest, row, axis=1)
        candidates = fresh_candidates(
            from_shards(centred(rows, row), is_here, axis_name),
            from_shards(closest, is_here, axis_name),
            keeping[num_passes],
        )
        flat = candidates.rows.reshape(width, dim)
        product = products(rows, flat)
        trials = num_trials(num_clusters)
        seeds = choose(seeds, candidates, product, trials=trials, axis_name=axis_name, **same)
        if num_kept:
            points = points.at[num_passes - 1].set(flat, mode="drop")
            tried = tried.at[num_passes - 1].set(product, mode="drop")
        return num_passes + 1, seeds, points, tried

    carry = (jnp.int32(1), seeds, points, tried)
    _, seeds, points, tried = jax.lax.while_loop(is_running, next_pass, carry)
    num = num_kept * width
    tried = tried.transpose(1, 0, 2).reshape(rows.squares.shape[0], num)
    return seeds, Tried(points.reshape(num, dim), tried)


def seed_random(
    rows: Rows, key: PRNGKeyArray, options: Options, *, axis_name: str | None = None
) -> Float[Array, "r k f"]:
    """Choose k different rows per restart, uniformly. Arguments as for `seed_plus_plus`."""
    num_clusters = max(options.numbers)
    uniform = uniforms_of_rows(key, num_clusters=num_clusters, num_init=options.num_init)
    row, is_here = draw_distinct(uniform, rows.weights, axis_name=axis_name)
    return from_shards(centred(rows, row), is_here, axis_name)
