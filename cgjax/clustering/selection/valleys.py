"""Whether a valley lies between two clusters, or they only cut one cloud.

Centroids come from one set of rows, the counts below from another. On the line through two
centroids let t = -1/2 at the first, 1/2 at the second and 0 where the clusters meet. A row of
either cluster counts if its nearest point with t = 0 still belongs to one of the two: these are the
rows in a convex set, the part of both clusters in the cylinder over their common face. (If all rows
of both counted, the middle would have fewer only because other clusters took them.)

A log-concave cloud, such as a Gaussian of any covariance or a uniform one over a convex body, is
also log-concave along a line of a convex set [Prekopa 1973] and therefore has one peak there. Of
three windows of equal width the middle one is then not the emptiest: with v rows in it and e in the
emptier of the windows around the two centroids,

    p = P(Binomial(v + e, 1/2) <= v)

is a valid p-value of "no valley", exactly and for any number of rows. So is the smallest over five
places of the middle window, times five (Bonferroni).

Clusters are neighbours if no third centroid lies in the ball over the line between theirs [Gabriel
& Sokal 1969]; neighbours without a valley are one group. The neighbours connect all clusters, so a
cloud that is cut into k clusters is called several only if one of k - 1 fixed tests, those along a
tree of neighbours, errs; and g clouds, each cut into clusters of its own, are called more than g
only if one of k - g does. Over all clusterings up to k = K these are

    T(g) = (K - g) (K - g + 1) / 2

tests. The number of groups is therefore the smallest g that no clustering exceeds when a valley
must have p <= alpha / T(g): it exceeds the true number of log-concave clouds with probability at
most alpha, over all numbers of clusters together. For a single cloud that is exact; clusters that
mix several clouds are not covered.

Symbols: n rows, q coordinates, k clusters, b bins.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse.csgraph import connected_components

from cgjax.clustering.selection.partitions import nearest, products

# Bins of 1/20 of the distance between the centroids, from t = -0.65 to 0.65; windows of six.
_BIN, _NUM_BINS, _WINDOW = 0.05, 26, 6
# First bins of the middle windows: every other one that overlaps with neither centroid's window.
_BETWEEN = np.arange(_WINDOW, _NUM_BINS - 2 * _WINDOW + 1, 2)


def valley_p_values(
    rows: Float[np.ndarray, "n q"], centroids: Float[np.ndarray, "k q"]
) -> Float[np.ndarray, "k k"]:
    """Return the p-value of "no valley" for each pair of neighbours, and NaN for other pairs.

    O(n k^2) time beside the assignment.

    Args:
        rows: (n, q) float32, independent of those that gave the centroids.
        centroids: (k, q) float32.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(1000, 1)).astype(np.float32)
        >>> centroids = np.array([[-1.0], [1.0]], np.float32)
        >>> bool(valley_p_values(rows, centroids)[0, 1] > 0.5)
        True
        >>> bool(valley_p_values(rows + 4 * np.sign(rows), 5 * centroids)[0, 1] < 1e-6)
        True
    """
    from scipy.stats import binom  # half a second, and few commands test valleys

    windows = _windows(_line_counts(rows, centroids))
    between = windows[..., _BETWEEN].min(axis=-1)
    ends = np.minimum(windows[..., 0], windows[..., -1])
    p_values = np.minimum(1.0, len(_BETWEEN) * binom.cdf(between, between + ends, 0.5))
    return np.where(_are_neighbours(centroids), p_values, np.nan)


def num_tests(num_groups: int, most: int) -> float:
    """Return T(g) for g groups and clusterings up to K = `most` clusters."""
    return (most - num_groups) * (most - num_groups + 1) / 2


def join(p_values: Float[np.ndarray, "k k"], level: float) -> Int[np.ndarray, " k"]:
    """Return each cluster's group: neighbours whose p-value exceeds the level are joined."""
    return connected_components(p_values > level, directed=False)[1]


def find_groups(
    p_values: Sequence[Float[np.ndarray, "_ _"]], alpha: float
) -> list[Int[np.ndarray, " _"]]:
    """Return the groups in every clustering; the most in any is the number of groups.

    Args:
        p_values: from `valley_p_values`, for 1, 2, ... K clusters.
        alpha: probability that more groups are found than there are log-concave clouds.

    Example:
        >>> apart = np.array([[np.nan, 1e-9], [1e-9, np.nan]])
        >>> [groups.tolist() for groups in find_groups([np.array([[np.nan]]), apart], 0.05)]
        [[0], [0, 1]]
    """
    most = len(p_values)
    groups = [np.zeros(len(own), int) for own in p_values]
    for num_groups in range(1, most):
        level = alpha / num_tests(num_groups, most)
        joined = [join(own, level) for own in p_values]
        if max(int(ids.max()) for ids in joined) < num_groups:
            break
        groups = joined
    return groups


def _line_counts(
    rows: Float[np.ndarray, "n q"], centroids: Float[np.ndarray, "k q"]
) -> Int[np.ndarray, "k k b"]:
    """Count the rows of each pair's convex set in bins along the line through both centroids."""
    k = len(centroids)
    product = products(rows, centroids)
    labels = nearest(product, centroids)
    squares = np.einsum("kq,kq->k", centroids, centroids)
    counts = np.zeros((k, k, _NUM_BINS), np.int64)
    for i in range(k):
        # How much nearer each centroid is than the row's own, in half squares: at most 0.
        score = product[labels == i] - 0.5 * squares[None, :]
        score -= score[:, i, None]
        inner = _inner_from(centroids, i)
        place = score / np.maximum(np.diagonal(inner), np.float32(1e-30))[None, :]
        # The same for every l, of the row moved to t = 0 between i and j: (n, j, l).
        moved = score[:, None, :] - place[:, :, None] * inner[None, :, :]
        moved[:, np.arange(k), np.arange(k)] = 0.0
        bins = np.floor((place + _NUM_BINS * _BIN / 2) / _BIN)
        is_counted = (moved.max(axis=2) <= 0.0) & (bins >= 0) & (bins < _NUM_BINS)
        is_counted[:, i] = False
        flat = (np.arange(k)[None, :] * _NUM_BINS + bins.astype(np.int64))[is_counted]
        counts[i] = np.bincount(flat, minlength=k * _NUM_BINS).reshape(k, _NUM_BINS)
    return counts + counts.transpose(1, 0, 2)[:, :, ::-1]


def _windows(counts: Int[np.ndarray, "k k b"]) -> Int[np.ndarray, "k k w"]:
    """Return the rows in every window of neighbouring bins."""
    sums = np.concatenate([np.zeros_like(counts[..., :1]), np.cumsum(counts, axis=-1)], axis=-1)
    return sums[..., _WINDOW:] - sums[..., :-_WINDOW]


def _are_neighbours(centroids: Float[np.ndarray, "k q"]) -> Bool[np.ndarray, "k k"]:
    """Return which clusters have no third centroid in the ball over the line between theirs."""
    k = len(centroids)
    is_neighbour = np.zeros((k, k), bool)
    for i in range(k):
        inner = _inner_from(centroids, i)
        # l is in the ball if (c_l - c_i) . (c_j - c_i) > |c_l - c_i|^2; a tie does not count.
        beyond = inner - np.diagonal(inner)[None, :]
        beyond[np.arange(k), np.arange(k)] = 0.0
        is_neighbour[i] = beyond.max(axis=1) <= 0.0
        is_neighbour[i, i] = False
    return is_neighbour | is_neighbour.T


def _inner_from(centroids: Float[np.ndarray, "k q"], i: int) -> Float[np.ndarray, "k k"]:
    """Return the inner products of the centroids relative to one of them."""
    relative = centroids - centroids[i][None, :]
    return relative @ relative.T
