"""One Gaussian with the rows' own mean and covariance, cut by the same centroids.

The statistic is the worst ratio of `gaps` over the pairs that are said to be apart. The centroids
and windows are given, so the rows of the null need not be clustered: only their inner products with
the k centroids matter, which are Gaussian in k dimensions themselves, whatever the covariance of
the rows. The p-value is (1 + b) / (1 + n), b of n draws being cut at least as clearly.

Symbols: n rows, q coordinates, k clusters, b bins.
"""

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import norm

from cgjax.clustering.selection.gaps import line_counts, ratios_of, window_ends
from cgjax.clustering.selection.partitions import nearest, products


def one_gaussian_p_value(
    held_out: Float[np.ndarray, "n q"],
    centroids: Float[np.ndarray, "k q"],
    between: Int[np.ndarray, "k k"],
    is_apart: Bool[np.ndarray, "k k"],
    rng: np.random.Generator,
    *,
    num_draws: int = 199,
    num_rows: int = 2000,
) -> float:
    """Return how likely one Gaussian is cut as clearly as the rows are.

    O(num_draws num_rows k^2) time.

    Args:
        held_out: (n, q) float32, rows that chose neither the centroids nor the windows.
        centroids: (k, q) float32.
        between: (k, k), the windows, of `gaps.emptiest`.
        is_apart: (k, k), the pairs whose worst ratio is the statistic.
        rng: of the draws.
        num_draws: of the Gaussian.
        num_rows: of each draw and of the rows compared with it, at most.
    """
    rows = held_out[:num_rows]
    observed = _worst(products(rows, centroids), centroids, between, is_apart)
    mean = held_out.mean(axis=0, dtype=np.float64) @ centroids.T
    covariance = np.atleast_2d(np.cov(held_out, rowvar=False))
    values, vectors = np.linalg.eigh(centroids @ covariance @ centroids.T)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))[None, :]).astype(np.float32)
    as_clear = 0
    for _ in range(num_draws):
        noise = rng.standard_normal((len(rows), len(centroids)), np.float32)
        product = products(noise, root) + mean.astype(np.float32)[None, :]
        as_clear += _worst(product, centroids, between, is_apart) <= observed
    return (1 + as_clear) / (1 + num_draws)


def one_gaussian_p_value_of_two(
    held_out: Float[np.ndarray, "n q"],
    centroids: Float[np.ndarray, "2 q"],
    between: Int[np.ndarray, "2 2"],
    rng: np.random.Generator,
    *,
    num_draws: int = 9999,
) -> float:
    """Return the same for two clusters, of all rows and many draws, at next to no cost.

    Two clusters hold all rows, so that only the place t along the line through the centroids
    matters: the counts in the windows are multinomial, with probabilities of a normal distribution.

    Args:
        held_out: (n, q) float32, rows that chose neither the centroids nor the windows.
        centroids: (2, q) float32.
        between: (2, 2), the windows, of `gaps.emptiest`.
        rng: of the draws.
        num_draws: of the Gaussian.
    """
    line = (centroids[1] - centroids[0]).astype(np.float64)
    place = (held_out - centroids.mean(axis=0)[None, :]) @ line / max(float(line @ line), 1e-30)
    spread = max(float(place.std(ddof=1)), 1e-30)
    ends = window_ends(int(between[0, 1]))
    shares = np.diff(norm.cdf(ends, place.mean(), spread), axis=1)[:, 0]
    every = np.append(shares, max(1 - shares.sum(), 0.0))
    drawn = rng.multinomial(len(held_out), every, size=num_draws)
    inside = (place[:, None] >= ends[None, :, 0]) & (place[:, None] < ends[None, :, 1])
    seen = inside.sum(axis=0)
    as_clear = int((_ratio(drawn) <= _ratio(seen)).sum())
    return (1 + as_clear) / (1 + num_draws)


def _ratio(counts: Int[np.ndarray, "*i _"]) -> Float[np.ndarray, "*i"]:
    """Return rows between over those around the emptier end, of counts in the three windows."""
    return np.asarray(counts[..., 1] / np.maximum(np.minimum(counts[..., 0], counts[..., 2]), 1))


def _worst(
    product: Float[np.ndarray, "n k"],
    centroids: Float[np.ndarray, "k q"],
    between: Int[np.ndarray, "k k"],
    is_apart: Bool[np.ndarray, "k k"],
) -> float:
    counts = line_counts(product, nearest(product, centroids), centroids)
    return float(ratios_of(counts, between)[is_apart].max())
