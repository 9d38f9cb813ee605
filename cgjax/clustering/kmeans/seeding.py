"""Starting centroids for k-means: greedy k-means++ or random rows, all restarts at once.

Greedy k-means++ [Arthur & Vassilvitskii 2007, with the several trials of section 7 of the paper]:
the first centre is a uniform row; every further one is the best of t = 2 + log k rows drawn with
probability proportional to D(y)^2 = min_j ||y - mu_j||^2, where best means the smallest
sum_y min(D(y)^2, ||y - candidate||^2). It is exact at every size.

All restarts share each pass over the data, and with few restarts a pass serves several centres. It
draws m > t candidates at once; those not yet tried when a centre has been chosen stay fair draws
for the next one if each is kept with probability D(now)^2 / D(when drawn)^2 (rejection sampling: D
never grows). When fewer than t are left, the next pass draws new ones.

Symbols: y rows (n, f), r restarts, k clusters, t trials, m candidates of a pass. Rows of padding
have weight 0, all others 1. `axis_name` is the mesh axis over which the rows are split, if any.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from cgjax.clustering.kmeans.drawing import DrawnRows, Uniforms, draw, draw_distinct
from cgjax.clustering.kmeans.options import Options
from cgjax.clustering.kmeans.rows import Rows, centred, products
from cgjax.clustering.kmeans.subspace import most_points
from cgjax.runtime.mesh import all_sum, from_shards, varying_like

# With up to this many points a product costs little more than the pass over the data.
_COLUMNS = 64


def num_trials(num_clusters: int) -> int:
    """Return how many candidates greedy k-means++ tries for each centre: 2 + log k."""
    return 2 + int(math.log(num_clusters))


def uniforms(key: PRNGKeyArray, options: Options) -> tuple[Uniforms, Float[Array, "k r m"]]:
    """Return all random numbers of greedy k-means++.

    The first of each pair draws a candidate, the second decides how long it is kept.
    """
    num_clusters, num_init = max(options.numbers), options.num_init
    num = num_trials(num_clusters)
    if num_clusters > 2:  # two clusters need a single further centre: there is nothing to share
        num = max(num, _COLUMNS // num_init)
    both = Uniforms.draw(key, (2, num_clusters, num_init, num))
    return both.at(0), both.coarse[1]


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
        closest: (r, m) float32, D^2 when they were drawn.
        keeping: (r, m) float32, uniform in [0, 1). A candidate is kept while
            D(now)^2 / D(when drawn)^2 is at least 1 - keeping, which is never zero: a row that
            became a centre is rejected.
    """

    rows: Float[Array, "r m f"]
    closest: Float[Array, "r m"]
    keeping: Float[Array, "r m"]


def draw_first(
    drawing: Uniforms, weights: Float[Array, " n"], *, axis_name: str | None = None
) -> DrawnRows:
    """Draw the first centre (r, 1) of each restart, uniformly among the rows with weight."""
    equally = jnp.broadcast_to(weights[:, None], (weights.shape[0], drawing.coarse.shape[1]))
    first = Uniforms(*(values[0, :, :1] for values in drawing))
    return draw(first, equally, axis_name=axis_name)


def draw_candidates(
    uniform: Uniforms, closest: Float[Array, "r n"], *, axis_name: str | None = None
) -> tuple[DrawnRows, Float[Array, "r m"]]:
    """Draw the candidates (r, m) of a pass; also return their D^2, known in every shard."""
    row, is_here = draw(uniform, closest.T, axis_name=axis_name)
    own = jnp.take_along_axis(closest, row, axis=1)
    return (row, is_here), from_shards(own, is_here, axis_name)


def first_seeds(
    centres: Float[Array, "r f"],
    product: Float[Array, "n r"],
    squares: Float[Array, " n"],
    weights: Float[Array, " n"],
    *,
    num_clusters: int,
) -> Seeds:
    """Return the state in which each restart has its first centre.

    `centres` are relative to the offset, `product` is -2 <y, centre>, `squares` are ||y||^2.
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


def choose(
    seeds: Seeds,
    candidates: Candidates,
    product: Float[Array, "n rm"],
    squares: Float[Array, " n"],
    weights: Float[Array, " n"],
    *,
    axis_name: str | None = None,
) -> Seeds:
    """Choose centres while every restart has t candidates left: at least one centre.

    Each is the best of the first t candidates that are left; all candidates up to the last of these
    are used up, tried or rejected. The candidates, m >= t, must have been drawn with `seeds`;
    `product` is -2 <y, candidate>, `squares` are ||y||^2.
    """
    rows, _, keeping = candidates
    num_init, num, _ = rows.shape
    num_clusters = seeds.centroids.shape[1]
    trials = num_trials(num_clusters)
    least = (1.0 - keeping) * candidates.closest
    product = product.T.reshape(num_init, num, squares.shape[0])
    ids = jnp.arange(num, dtype=jnp.int32)[None, :]

    def is_left(closest: Array, num_used: Array) -> Array:
        # NaN stays: the caller reports such data, and a pass must choose a centre.
        return ~(closest < least) & (ids >= num_used[:, None])

    def can_choose(carry: tuple[Seeds, Array, Array]) -> Array:
        seeds, closest, num_used = carry
        is_enough = jnp.all(jnp.sum(is_left(closest, num_used), axis=1) >= trials)
        return is_enough & (seeds.num_chosen < num_clusters)

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
    """Return the squared distances of all rows to points, given -2 <y, point> and ||y||^2."""
    norms = jnp.sum(jnp.square(points), axis=-1, keepdims=True)
    return jnp.maximum(product + norms + jnp.broadcast_to(squares, product.shape), 0.0)


def _first_of(is_left: Bool[Array, "r m"], num: int) -> Int[Array, "r t"]:
    """Return the positions of the first `num`, by counting: a sort would take longer to compile."""
    rank = jnp.cumsum(is_left, axis=1, dtype=jnp.int32)
    target = jnp.arange(1, num + 1, dtype=jnp.int32)[None, :, None]
    # The j-th is preceded by as many entries as have a rank below j.
    return jnp.sum(rank[:, None, :] < target, axis=2, dtype=jnp.int32)


def seed_plus_plus(
    rows: Rows, key: PRNGKeyArray, options: Options, *, axis_name: str | None = None
) -> tuple[Seeds, tuple[Float[Array, "q f"], Float[Array, "n q"]]]:
    """Choose starting centroids, relative to the offset, by greedy k-means++.

    O(n r m f) time for each of at most k passes over the data, O(n r (m + k)) memory. The key is
    the same in every shard; k is the largest number of clusters.

    Returns:
        The seeds, and the q candidates worth tracking (zeros where fewer were drawn) with their
        products -2 <y, candidate>.
    """
    num_clusters, dim = max(options.numbers), rows.features.shape[1]
    drawing, keeping = uniforms(key, options)
    squares, weights = rows.squares, rows.weights

    row, is_here = draw_first(drawing, weights, axis_name=axis_name)
    centres = from_shards(centred(rows, row), is_here, axis_name)[:, 0]
    product = products(rows, centres)
    seeds = first_seeds(centres, product, squares, weights, num_clusters=num_clusters)

    width = options.num_init * keeping.shape[2]
    num_kept = min(num_clusters - 1, most_points(dim) // width)
    # Pass by pass, which keeps the products of one together.
    points = jnp.zeros((num_kept, width, dim), jnp.float32)
    tried = varying_like(jnp.zeros((num_kept, len(squares), width), jnp.float32), squares)

    def is_running(carry: tuple[Array, Seeds, Array, Array]) -> Array:
        return carry[1].num_chosen < num_clusters

    def next_pass(carry: tuple[Array, Seeds, Array, Array]) -> tuple[Array, Seeds, Array, Array]:
        num_passes, seeds, points, tried = carry
        uniform = drawing.at(num_passes)
        (row, is_here), closest = draw_candidates(uniform, seeds.closest, axis_name=axis_name)
        picked = from_shards(centred(rows, row), is_here, axis_name)
        flat = picked.reshape(width, dim)
        product = products(rows, flat)
        candidates = Candidates(picked, closest, keeping[num_passes])
        seeds = choose(seeds, candidates, product, squares, weights, axis_name=axis_name)
        if num_kept:
            points = points.at[num_passes - 1].set(flat, mode="drop")
            tried = tried.at[num_passes - 1].set(product, mode="drop")
        return num_passes + 1, seeds, points, tried

    carry = (jnp.int32(1), seeds, points, tried)
    _, seeds, points, tried = jax.lax.while_loop(is_running, next_pass, carry)
    num = num_kept * width
    tried = tried.transpose(1, 0, 2).reshape(len(squares), num)
    return seeds, (points.reshape(num, dim), tried)


def seed_random(
    rows: Rows, key: PRNGKeyArray, options: Options, *, axis_name: str | None = None
) -> Float[Array, "r k f"]:
    """Choose k different rows per restart, uniformly. Arguments as for `seed_plus_plus`."""
    uniform = Uniforms.draw(key, (max(options.numbers), options.num_init, 1))
    row, is_here = draw_distinct(uniform, rows.weights, axis_name=axis_name)
    return from_shards(centred(rows, row), is_here, axis_name)
