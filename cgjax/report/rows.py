"""Which images the page shows of a clustering: random members, the deepest, those at the border."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8, UInt16

from cgjax.generators.batching import in_batches
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.regions.clustering import Clustering

TYPICAL, EDGE = 24, 8
"""Images in the row of random members, and in each of the rows deepest and at the border."""


class Rows(NamedTuple):
    """The latents shown of every cluster, as indices; -1 fills up a row of a smaller cluster.

    Attributes:
        typical: (k, TYPICAL), the first members.
        deepest: (k, EDGE), those with the largest margins, largest first.
        border: (k, EDGE), those with the smallest, smallest first.
    """

    typical: Int[np.ndarray, "k t"]
    deepest: Int[np.ndarray, "k e"]
    border: Int[np.ndarray, "k e"]


def choose_rows(clustering: Clustering, candidates: Int[np.ndarray, " m"]) -> Rows:
    """Return which latents to show; latents come in random order, so the first are as good as any.

    Args:
        clustering: with labels and margins of all latents.
        candidates: ascending indices of the latents that may be shown.
    """
    shape = (clustering.num, EDGE)
    rows = Rows(
        np.full((clustering.num, TYPICAL), -1, np.int32),
        np.full(shape, -1, np.int32),
        np.full(shape, -1, np.int32),
    )
    for c in range(clustering.num):
        own = candidates[clustering.labels[candidates] == c]
        order = own[np.argsort(clustering.margins[own], kind="stable")]
        for row, found in (
            (rows.typical, own[:TYPICAL]),
            (rows.deepest, order[::-1][:EDGE]),
            (rows.border, order[:EDGE]),
        ):
            row[c, : len(found)] = found
    return rows


def quantiles(
    clustering: Clustering, candidates: Int[np.ndarray, " m"], shown: Int[np.ndarray, " p"]
) -> tuple[UInt16[np.ndarray, " p"], UInt8[np.ndarray, " p"]]:
    """Return the shown latents' labels, and their margins' quantiles in their clusters, 0 to 250.

    Args:
        clustering: with labels and margins of all latents.
        candidates: indices of the latents that are clustered.
        shown: indices of those that are shown, among them.
    """
    labels = clustering.labels[shown].astype(np.uint16)
    found = np.zeros(len(shown), np.uint8)
    for c in range(clustering.num):
        margins = np.sort(clustering.margins[candidates[clustering.labels[candidates] == c]])
        own = labels == c
        below = np.searchsorted(margins, clustering.margins[shown[own]])
        found[own] = 250 * below // max(len(margins), 1)
    return labels, found


def runners_up(
    generator: ConditionedGenerator,
    clustering: Clustering,
    latents: Float[np.ndarray, "m d"],
    labels: Int[np.ndarray, " m"],
) -> Int[np.ndarray, " m"]:
    """Return the cluster that each latent nearly fell into: the nearest one that is not its own.

    Args:
        generator: at the clustered layer.
        clustering: any; of one cluster the answer is -1.
        latents: members.
        labels: their own clusters.
    """
    if clustering.num < 3 or not len(latents):
        return 1 - labels if clustering.num == 2 else np.full_like(labels, -1)
    middle = clustering.centroids.mean(axis=0)
    centroids = jnp.asarray(clustering.centroids - middle)
    squares = (centroids**2).sum(axis=1)

    def scores(z: Array) -> Float[Array, "n k"]:
        rows = clustering.space(generator.features(z)) - jnp.asarray(middle)[None]
        return squares[None] - 2 * jnp.matmul(rows, centroids.T, precision="highest")

    found = in_batches(scores, latents, generator.batch)
    found[np.arange(len(found)), labels] = np.inf
    return found.argmin(axis=1).astype(np.int32)


def pairs_of(clustering: Clustering, most: int = 8) -> list[tuple[int, int]]:
    """Return each cluster with the one whose mean is nearest, every pair once.

    Args:
        clustering: any.
        most: pairs.
    """
    if clustering.num < 2:
        return []
    means = clustering.centroids - clustering.centroids.mean(axis=0)
    squares = (means**2).sum(axis=1)
    distances = squares[:, None] + squares[None] - 2 * means @ means.T
    np.fill_diagonal(distances, np.inf)
    nearest = distances.argmin(axis=1)
    found = {(min(c, int(o)), max(c, int(o))) for c, o in enumerate(nearest)}
    return sorted(found)[:most]
