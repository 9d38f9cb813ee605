"""Whether there is a gap between two clusters, or only a cut through one cloud.

On the line through two centroids, with t = -1/2 at the one and 1/2 at the other, a cloud with a
single peak has at least as many rows in a window between two others as in the emptier one of those
two. So the rows v in a window between the centroids and e in the emptier of the two windows around
them have, without a gap,

    P(at most v of v + e) <= P(Binomial(v + e, 1/2) <= v)

which is the p-value. It is exact, whatever the shape and the length of the cloud, because centroids
and windows come from one set of rows and the counts from another. Each pair of clusters has its
own line and its own rows: those that either cluster holds.

Clusters without a gap between them are one group: the groups of a partition are what is left when
all such clusters are joined.

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
    """

    p_values: Float[np.ndarray, "k k"]
    ratios: Float[np.ndarray, "k k"]


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
    k, num = len(centroids), len(labels)
    inner = centroids @ centroids.T
    squares = np.diagonal(inner)
    distance = np.maximum(squares[:, None] + squares[None, :] - 2 * inner, np.float32(1e-30))
    own = product[np.arange(num), labels]
    place = product - own[:, None] - 0.5 * (squares[None, :] - squares[labels][:, None])
    place /= distance[labels]
    # From the own cluster at -1/2; bins of rows beyond the windows are left out.
    bins = np.floor((place + _NUM_BINS * _BIN / 2) / _BIN)
    pair = labels[:, None] * k + np.arange(k)[None, :]
    is_inside = (bins >= 0) & (bins < _NUM_BINS) & (labels[:, None] != np.arange(k)[None, :])
    flat = (pair * _NUM_BINS + bins.astype(np.int64))[is_inside]
    counts = np.bincount(flat, minlength=k * k * _NUM_BINS).reshape(k, k, _NUM_BINS)
    return counts + counts.transpose(1, 0, 2)[:, :, ::-1]


def emptiest(counts: Int[np.ndarray, "k k b"]) -> Int[np.ndarray, "k k"]:
    """Return for each pair the first bin of the emptiest window between the centroids."""
    return _BETWEEN[np.argmin(_windows(counts)[..., _BETWEEN], axis=-1)]


def find_gaps(counts: Int[np.ndarray, "k k b"], between: Int[np.ndarray, "k k"]) -> Gaps:
    """Test all pairs.

    Args:
        counts: of rows that chose neither the centroids nor the windows.
        between: of `emptiest`.
    """
    ratios, inside, ends = _compare(counts, between)
    p_values = binom.cdf(inside, inside + ends, 0.5)
    np.fill_diagonal(p_values, 1.0)
    return Gaps(p_values, ratios)


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
    return find_gaps(counts, between), between


def groups_of(gaps: Gaps, alpha: float) -> Int[np.ndarray, " k"]:
    """Return each cluster's group: clusters are joined where no gap has p at most alpha."""
    is_joined: Bool[np.ndarray, "k k"] = gaps.p_values > alpha
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
