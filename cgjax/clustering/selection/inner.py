"""Whether a cluster holds a split of its own: stable outside and unstable within is a good number
[Mourer et al. 2023].

A cluster's rows are split in two, those of the first and those of the second set. If both splits
agree and there is a gap, the cluster holds two.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from cgjax.clustering.selection.gaps import gaps_of
from cgjax.clustering.selection.null import one_gaussian_p_value_of_two
from cgjax.clustering.selection.partitions import nearest, partition_all, products
from cgjax.numerics.partitions import adjusted_rand, cross_table

# Of a cluster in each set; with fewer nothing is said.
_LEAST_ROWS = 20


class InnerSplit(NamedTuple):
    """What splitting one cluster in two shows.

    Attributes:
        cluster: which one.
        stability: adjusted Rand index of the splits of both sets, on the third.
        gap_p_value: of the gap between both halves; no gap is the null.
        gaussian_p_value: against one Gaussian with the cluster's own covariance.
    """

    cluster: int
    stability: float
    gap_p_value: float
    gaussian_p_value: float


def split_within(
    sets: Sequence[Float[np.ndarray, "_ q"]],
    labels: Sequence[Int[np.ndarray, " _"]],
    cluster: int,
    rng: np.random.Generator,
) -> InnerSplit | None:
    """Split one cluster in two; None if it has too few rows.

    Args:
        sets: the first, the second and the third set of rows.
        labels: the cluster of each row of them, by one clustering.
        cluster: the one to split.
        rng: of the draws of one Gaussian.
    """
    first, second, third = (rows[own == cluster] for rows, own in zip(sets, labels, strict=True))
    if min(len(first), len(second), len(third)) < _LEAST_ROWS:
        return None
    part, again = partition_all(first, 2)[1], partition_all(second, 2)[1]
    held_out = np.concatenate([second, third])
    gaps, between = gaps_of(first, part.labels, held_out, part.centroids)
    table = cross_table(_assign(third, part.centroids), _assign(third, again.centroids), (2, 2))
    return InnerSplit(
        cluster,
        float(adjusted_rand(table)),
        float(gaps.p_values[0, 1]),
        one_gaussian_p_value_of_two(held_out, part.centroids, between, rng),
    )


def _assign(
    rows: Float[np.ndarray, "n q"], centroids: Float[np.ndarray, "k q"]
) -> Int[np.ndarray, " n"]:
    return nearest(products(rows, centroids), centroids)
