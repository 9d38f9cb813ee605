"""Which images the page shows of each cluster: random, deepest and border members."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8, UInt16

from cgjax.generators.batching import in_batches
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.kernels.distance import k_nearest
from cgjax.regions.clustering import Clustering

TYPICAL, EDGE = 24, 8
"""Number of images in the row of random members, and in the rows "deepest" and "at the border"."""


class ShownMembers(NamedTuple):
    """Indices of the latents shown for each cluster; -1 pads the rows of small clusters.

    Attributes:
        typical: (k, TYPICAL) the first members.
        deepest: (k, EDGE) the members with the largest margins, largest first.
        border: (k, EDGE) the members with the smallest margins, smallest first.
    """

    typical: Int[np.ndarray, "k t"]
    deepest: Int[np.ndarray, "k e"]
    border: Int[np.ndarray, "k e"]


def choose_rows(clustering: Clustering, candidates: Int[np.ndarray, " m"]) -> ShownMembers:
    """Choose the latents to show. They are in random order, so the first members are random ones.

    Args:
        clustering: has the labels and margins of all latents.
        candidates: (m,) ascending indices of the latents that may be shown.
    """
    rows = ShownMembers(
        *(np.full((clustering.num, width), -1, np.int32) for width in (TYPICAL, EDGE, EDGE))
    )
    for c in range(clustering.num):
        own = candidates[clustering.labels[candidates] == c]
        order = own[np.argsort(clustering.margins[own], kind="stable")]
        for row, members in zip(rows, (own, order[::-1], order), strict=True):
            first = members[: row.shape[1]]
            row[c, : len(first)] = first
    return rows


def quantiles(
    clustering: Clustering, candidates: Int[np.ndarray, " m"], shown: Int[np.ndarray, " p"]
) -> tuple[UInt16[np.ndarray, " p"], UInt8[np.ndarray, " p"]]:
    """Return the shown latents' labels and the quantiles of their margins in their own clusters.

    Args:
        clustering: has the labels and margins of all latents.
        candidates: (m,) indices of the latents that the quantiles are taken over.
        shown: (p,) indices of the latents that are shown, a subset of the candidates.

    Returns:
        (p,) uint16 labels, and (p,) uint8 shares of the cluster's candidates that have a smaller
        margin, in 250ths.
    """
    labels = clustering.labels[shown].astype(np.uint16)
    quantile = np.zeros(len(shown), np.uint8)
    for c in range(clustering.num):
        margins = np.sort(clustering.margins[candidates[clustering.labels[candidates] == c]])
        own = labels == c
        below = np.searchsorted(margins, clustering.margins[shown[own]])
        quantile[own] = 250 * below // max(len(margins), 1)
    return labels, quantile


def runners_up(
    generator: ConditionedGenerator,
    clustering: Clustering,
    latents: Float[np.ndarray, "m d"],
    labels: Int[np.ndarray, " m"],
) -> Int[np.ndarray, " m"]:
    """Return each latent's second cluster: the nearest one other than its own.

    Args:
        generator: at the clustered layer.
        clustering: any; with a single cluster the result is -1.
        latents: (m, d) members.
        labels: (m,) their own clusters.
    """
    if clustering.num < 3 or not len(latents):
        return 1 - labels if clustering.num == 2 else np.full_like(labels, -1)
    centroids = jnp.asarray(clustering.centroids)

    def nearest_two(z: Array) -> Int[Array, "n 2"]:
        return k_nearest(clustering.space(generator.features(z)), centroids, 2)[0]

    first, second = in_batches(nearest_two, latents, generator.batch).T
    return np.where(first == labels, second, first)


def pairs_of(clustering: Clustering, most: int = 8) -> list[tuple[int, int]]:
    """Pair each cluster with the one whose mean is nearest; every pair is listed once.

    Args:
        clustering: any.
        most: largest number of pairs.
    """
    if clustering.num < 2:
        return []
    means = clustering.centroids - clustering.centroids.mean(axis=0)
    squares = (means**2).sum(axis=1)
    distances = squares[:, None] + squares[None] - 2 * means @ means.T
    np.fill_diagonal(distances, np.inf)
    nearest = distances.argmin(axis=1)
    pairs = {(min(c, int(o)), max(c, int(o))) for c, o in enumerate(nearest)}
    return sorted(pairs)[:most]
