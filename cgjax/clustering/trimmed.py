"""Trimmed k-means: the farthest rows do not influence the centroids.

A share a of the n rows y is left out, chosen so that the rest fits best [Cuesta et al. 1997]:

    min over mu and over T, |T| = n - floor(a n), of  sum_{y in T} min_c ||y - mu_c||^2

Each iteration assigns the rows, keeps the n - floor(a n) that are nearest to their own centroid and
takes the means of those, which never raises the sum. At the end every row is assigned, including
those that were left out.

Symbols: n rows, f features, k clusters, r restarts.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray

from cgjax.clustering.assignment import assign_rows
from cgjax.clustering.kmeans.checks import (
    check_counts,
    check_features,
    check_numbers,
    check_options,
)
from cgjax.clustering.kmeans.results import BestRestart, KMeansResult, describe
from cgjax.clustering.kmeans.sources import not_finite
from cgjax.errors import UserError
from cgjax.numerics.arguments import check_differences, shown
from cgjax.runtime.keys import check_key


class _State(NamedTuple):
    """One restart: centroids (k, f), trimmed sum before they moved, iterations, whether done."""

    centroids: Float[Array, "k f"]
    inertia: Float[Array, ""]
    num_iter: Int[Array, ""]
    is_done: Bool[Array, ""]


def trimmed_kmeans(
    features: ArrayLike,
    num_clusters: int,
    *,
    key: PRNGKeyArray,
    share: float,
    num_init: int = 10,
    max_iter: int = 100,
    tol: float = 1e-4,
) -> KMeansResult:
    """Cluster features in memory by trimmed k-means, the best of `num_init` restarts.

    Restarts start from rows drawn at random: k-means++ would prefer those that are far away. They
    run one after the other, O(n k f) time an iteration, O(n k) memory beside the input.

    Args:
        features: (n, f) or (n, h, w, c), finite; all axes after the first are flattened.
        num_clusters: k, from 1 to the number of rows that are kept.
        key: random key.
        share: share of the rows to leave out, from 0 to below 1.
        num_init: restarts, at least 1.
        max_iter: most iterations of a restart, at least 1.
        tol: as for `kmeans`, of the variance of the rows that are kept. A cluster that loses all
            its members keeps its centroid.

    Returns:
        A `KMeansResult` whose labels, margins and inertia are of all rows; `inertias` are the
        restarts' trimmed sums.

    Raises:
        UserError: for impossible shapes, numbers or options, rows that hold NaN or Inf, or rows
            whose squared distances overflow or underflow float32.

    Example:
        >>> points = jnp.array([[0.0], [1.0], [2.0], [10.0], [11.0], [12.0], [500.0], [600.0]])
        >>> result = trimmed_kmeans(points, 2, key=jax.random.key(0), share=0.25)
        >>> result.centroids.ravel().tolist(), result.labels.tolist()
        ([11.0, 1.0], [1, 1, 1, 0, 0, 0, 0, 0])
    """
    flat = check_features(features)
    num_rows, dim = flat.shape
    check_key(key)
    numbers = check_numbers((num_clusters,))
    if not isinstance(share, int | float | np.floating) or not 0 <= share < 1:
        raise UserError(f"share={shown(share)} of rows left out: expected from 0 to below 1")
    num_kept = num_rows - int(share * num_rows)
    check_counts(num_kept, numbers)
    check_options(numbers, dim, init="random", num_init=num_init, max_iter=max_iter, tol=tol)
    result = _fit(
        jnp.asarray(flat),
        jax.random.split(key, num_init),
        jnp.float32(tol),
        jnp.int32(max_iter),
        num_clusters=num_clusters,
        num_kept=num_kept,
    )
    if not np.isfinite(result.inertia):
        raise not_finite(np.flatnonzero(~np.isfinite(np.asarray(flat)).all(axis=1)))
    check_differences("the centroids", np.asarray(result.centroids))
    return result


def fit_(
    y: Float[Array, "n f"],
    keys: Key[Array, " r"],
    tol: Float[Array, ""],
    max_iter: Int[Array, ""],
    *,
    num_clusters: int,
    num_kept: int,
) -> KMeansResult:
    """Run every restart and assign all rows to the best one's centroids."""
    clusters = jnp.arange(num_clusters, dtype=jnp.int32)

    def move(state: _State) -> _State:
        labels, _, distances = assign_rows(y, state.centroids)
        order = jnp.argsort(distances)  # stable: ties go to the first rows
        is_kept = jnp.zeros(len(y), bool).at[order[:num_kept]].set(True)
        inertia = jnp.sum(jnp.where(is_kept, distances, 0.0))
        is_member = (labels[None, :] == clusters[:, None]) & is_kept[None, :]
        weights = is_member.astype(jnp.float32)
        counts = jnp.sum(weights, axis=1, keepdims=True)
        # Relative to the old centroids' mean, so that features far from 0 keep their digits.
        origin = jnp.mean(state.centroids, axis=0, keepdims=True)
        rows = y - origin
        sums = jnp.matmul(weights, rows, precision="highest")
        means = origin + sums / jnp.maximum(counts, 1.0)
        means = jnp.where(counts > 0.0, means, state.centroids)
        # Of the kept rows only: beside the variance of rows far away any movement would be small.
        from_mean = rows - jnp.sum(sums, axis=0)[None, :] / num_kept
        variance = jnp.sum(jnp.where(is_kept[:, None], jnp.square(from_mean), 0.0)) / num_kept
        least = tol * variance / y.shape[1]
        is_done = jnp.sum(jnp.square(means - state.centroids)) <= least
        return _State(means, inertia, state.num_iter + 1, is_done)

    def restart(key: PRNGKeyArray) -> _State:
        seeds = y[jax.random.choice(key, len(y), (num_clusters,), replace=False)]
        begin = _State(seeds, jnp.float32(jnp.inf), jnp.int32(0), jnp.bool_(False))
        return jax.lax.while_loop(
            lambda state: ~state.is_done & (state.num_iter < max_iter), move, begin
        )

    ends = jax.lax.map(restart, keys)
    best = jnp.argmin(ends.inertia)
    centroids = ends.centroids[best]
    assigned = assign_rows(y, centroids)
    restart_kept = BestRestart(
        centroids, assigned.labels, ends.num_iter[best], ends.is_done[best], ends.inertia
    )
    return describe(restart_kept, assigned, jnp.ones(len(y), jnp.float32))


_fit = jax.jit(fit_, static_argnames=("num_clusters", "num_kept"))
