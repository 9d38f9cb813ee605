"""Whether there is a gap between two clusters, or only a cut through one cloud.

On the line through two centroids, with t = -1/2 at the one and 1/2 at the other, a cloud with a
single peak has at least as many rows in a window between two others as in the emptier one of those
two. So the rows v in a window between the centroids and e in the emptier of the two windows around
them have, without a gap,

    P(at most v of v + e) <= P(Binomial(v + e, 1/2) <= v)

which is the p-value. Centroids and windows come from one set of rows and the counts from another.

Of all rows of both clusters, those near the middle are fewer only because other clusters took them:
k-means cuts a round cloud into cells that look well apart. Hence only the rows count whose nearest
point at t = 0 still belongs to one of both. They lie in a cylinder over a convex set, and what a
log-concave cloud, such as a Gaussian of any covariance, has along a convex cylinder has one peak
[Prekopa 1973]. For those the p-value is exact, whatever their length.

Clusters without a gap between them are one group, if they are neighbours: no third centroid lies in
the ball between both [Gabriel & Sokal 1969]. This graph is connected, so that one cloud stays one
group in however many parts it is cut.

Symbols: n rows, k clusters, b bins.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse.csgraph import connected_components
from scipy.stats import binom

from cgjax.clustering.selection.partitions import nearest, products

# Bins of 1/20 of the distance between the centroids; windows of six of them, 0.3.
_BIN, _NUM_BINS, _WINDOW = 0.05, 26, 6
# First bins of the windows that may be the emptiest: those that touch neither end's.
_BETWEEN = np.arange(_WINDOW, _NUM_BINS - 2 * _WINDOW + 1)


class Gaps(NamedTuple):
    """The gap of every pair of clusters.

    Attributes:
        p_values: (k, k), 1 on the diagonal.
        ratios: (k, k), rows between over rows around the emptier end; about 0 in a clear gap, above
            1 in a cut, 0 on the diagonal.
        is_next: (k, k), the neighbours; of others nothing is asked.
    """

    p_values: Float[np.ndarray, "k k"]
    ratios: Float[np.ndarray, "k k"]
    is_next: Bool[np.ndarray, "k k"]


def line_counts(
    product: Float[np.ndarray, "n k"],
    labels: Int[np.ndarray, " n"],
    centroids: Float[np.ndarray, "k q"],
) -> Int[np.ndarray, "k k b"]:
    """Count the rows of each pair of clusters in bins along the line from the one to the other.

    Args:
        product: (n, k) inner products of rows and centroids.
        labels: (n,) nearest centroid.
        centroids: (k, q).
    """
    k = len(centroids)
    squares = np.einsum("kq,kq->k", centroids, centroids)
    counts = np.zeros((k, k, _NUM_BINS), np.int64)
    for i in range(k):
        # Of each cluster over the own one: 0, and nobody has more.
        score = product[labels == i] - 0.5 * squares[None, :]
        score -= score[:, i, None]
        inner = _inner_from(centroids, i)
        place = score / np.maximum(np.diagonal(inner), np.float32(1e-30))[None, :]
        # The scores of all clusters l where the row would be at t = 0 between i and j.
        moved = score[:, None, :] - place[:, :, None] * inner[None, :, :]
        moved[:, np.arange(k), np.arange(k)] = 0.0
        bins = np.floor((place + _NUM_BINS * _BIN / 2) / _BIN)
        is_counted = (moved.max(axis=2) <= 0.0) & (bins >= 0) & (bins < _NUM_BINS)
        is_counted[:, i] = False
        flat = (np.arange(k)[None, :] * _NUM_BINS + bins.astype(np.int64))[is_counted]
        counts[i] = np.bincount(flat, minlength=k * _NUM_BINS).reshape(k, _NUM_BINS)
    return counts + counts.transpose(1, 0, 2)[:, :, ::-1]


def neighbours(centroids: Float[np.ndarray, "k q"]) -> Bool[np.ndarray, "k k"]:
    """Return which clusters have no third centroid in the ball between both."""
    k = len(centroids)
    is_next = np.zeros((k, k), bool)
    for i in range(k):
        inner = _inner_from(centroids, i)
        ahead = inner - np.diagonal(inner)[None, :]
        ahead[np.arange(k), np.arange(k)] = 0.0
        is_next[i] = ahead.max(axis=1) <= 0.0
        is_next[i, i] = False
    return is_next | is_next.T


def _inner_from(centroids: Float[np.ndarray, "k q"], i: int) -> Float[np.ndarray, "k k"]:
    """Return the inner products of the centroids as seen from one of them."""
    seen = centroids - centroids[i][None, :]
    return seen @ seen.T


def emptiest(counts: Int[np.ndarray, "k k b"]) -> Int[np.ndarray, "k k"]:
    """Return for each pair the first bin of the emptiest window between the centroids."""
    return _BETWEEN[np.argmin(_windows(counts)[..., _BETWEEN], axis=-1)]


def find_gaps(
    counts: Int[np.ndarray, "k k b"],
    between: Int[np.ndarray, "k k"],
    is_next: Bool[np.ndarray, "k k"],
) -> Gaps:
    """Test all pairs.

    Args:
        counts: of rows that chose neither the centroids nor the windows.
        between: of `emptiest`.
        is_next: of `neighbours`.
    """
    ratios, inside, ends = _compare(counts, between)
    p_values = binom.cdf(inside, inside + ends, 0.5)
    np.fill_diagonal(p_values, 1.0)
    return Gaps(p_values, ratios, is_next)


def ratios_of(
    counts: Int[np.ndarray, "k k b"], between: Int[np.ndarray, "k k"]
) -> Float[np.ndarray, "k k"]:
    """Return the ratios of `find_gaps` alone."""
    return _compare(counts, between)[0]


def gaps_of(
    train: Float[np.ndarray, "m q"],
    train_labels: Int[np.ndarray, " m"],
    held_out: Float[np.ndarray, "n q"],
    centroids: Float[np.ndarray, "k q"],
) -> tuple[Gaps, Int[np.ndarray, "k k"]]:
    """Return the gaps between clusters and the windows: those of one set, counted in another."""
    between = emptiest(line_counts(products(train, centroids), train_labels, centroids))
    product = products(held_out, centroids)
    counts = line_counts(product, nearest(product, centroids), centroids)
    return find_gaps(counts, between, neighbours(centroids)), between


def groups_of(gaps: Gaps, alpha: float) -> Int[np.ndarray, " k"]:
    """Return each cluster's group: neighbours are joined where no gap has p at most alpha."""
    is_joined = gaps.is_next & (gaps.p_values > alpha)
    return connected_components(is_joined, directed=False)[1]


def window_ends(between: int) -> Float[np.ndarray, "3 2"]:
    """Return where on the line a pair's windows begin and end: at the one centroid, between, at
    the other. They do not overlap.

    Args:
        between: first bin of the one between.
    """
    begin = np.array([0, between, _NUM_BINS - _WINDOW])
    return (np.stack([begin, begin + _WINDOW], axis=1) - _NUM_BINS / 2) * _BIN


def _windows(counts: Int[np.ndarray, "k k b"]) -> Int[np.ndarray, "k k w"]:
    sums = np.concatenate([np.zeros_like(counts[..., :1]), np.cumsum(counts, axis=-1)], axis=-1)
    return sums[..., _WINDOW:] - sums[..., :-_WINDOW]


def _compare(
    counts: Int[np.ndarray, "k k b"], between: Int[np.ndarray, "k k"]
) -> tuple[Float[np.ndarray, "k k"], Int[np.ndarray, "k k"], Int[np.ndarray, "k k"]]:
    windows = _windows(counts)
    inside = np.take_along_axis(windows, between[..., None], axis=-1)[..., 0]
    ends = np.minimum(windows[..., 0], windows[..., -1])
    return inside / np.maximum(ends, 1), inside, ends
