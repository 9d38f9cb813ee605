"""The usual criteria, for comparison: silhouette and gap statistic.

Symbols: n rows, q coordinates, k clusters, W_k sum of squared distances to the own centroid.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.distance import cdist

from cgjax.clustering.selection.partitions import inertia, partition_all

_REFERENCES = 10  # B of the gap statistic


def silhouettes(
    rows: Float[np.ndarray, "n q"], labelings: Sequence[Int[np.ndarray, " n"]]
) -> list[float]:
    """Return the mean silhouette (b - a) / max(a, b) of several clusterings of the same rows.

    a is a row's mean distance to the others of its cluster, b that to the nearest other cluster;
    0 for a row alone in its cluster [Rousseeuw 1987]. O(n^2 q) time once, O(n^2) memory.

    Args:
        rows: (n, q) float.
        labelings: (n,) labels from 0; the result is NaN for fewer than 2 or more than n - 1
            clusters.
    """
    distances = cdist(rows.astype(np.float64), rows.astype(np.float64))
    return [_silhouette(distances, labels) for labels in labelings]


def _silhouette(distances: Float[np.ndarray, "n n"], labels: Int[np.ndarray, " n"]) -> float:
    _, own = np.unique(labels, return_inverse=True)
    num, sizes = len(labels), np.bincount(own)
    if not 2 <= len(sizes) < num:
        return float("nan")
    members = np.eye(len(sizes))[own]
    sums = distances @ members
    index = np.arange(num)
    inside = sums[index, own] / np.maximum(sizes[own] - 1, 1)
    means = sums / sizes[None, :]
    means[index, own] = np.inf
    outside = means.min(axis=1)
    widths = (outside - inside) / np.maximum(np.maximum(inside, outside), np.finfo(float).tiny)
    return float(np.where(sizes[own] == 1, 0.0, widths).mean())


def gap_statistic(
    rows: Float[np.ndarray, "n q"], max_number: int, rng: np.random.Generator
) -> list[tuple[float, float]]:
    """Return Gap(k) and s_k for k = 1, 2, ... [Tibshirani et al. 2001].

    Gap(k) = mean_b log W_b(k) - log W(k) over B references b that are uniform in the box along the
    rows' principal axes, s_k = sd_b sqrt(1 + 1/B).

    Args:
        rows: (n, q) float32.
        max_number: largest k.
        rng: for the references.
    """
    centred = rows - rows.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    rotated = centred @ axes
    low, high = rotated.min(axis=0), rotated.max(axis=0)
    logs = np.stack(
        [
            _log_inertias(rng.uniform(low, high, rotated.shape).astype(np.float32), max_number)
            for _ in range(_REFERENCES)
        ]
    )
    gaps = logs.mean(axis=0) - _log_inertias(rotated, max_number)
    spread = logs.std(axis=0) * np.sqrt(1 + 1 / _REFERENCES)
    return list(zip(gaps.tolist(), spread.tolist(), strict=True))


def _log_inertias(rows: Float[np.ndarray, "n q"], most: int) -> Float[np.ndarray, " k"]:
    tiny = np.finfo(float).tiny
    parts = partition_all(rows, most)
    return np.log([max(inertia(rows, part), tiny) for part in parts])
