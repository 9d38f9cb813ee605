"""Whether a cluster contains a split of its own.

A number of clusters is good if they are stable and none of them contains a stable split, which
stability alone cannot see [Mourer et al. 2023]. Each cluster's rows of the first set are cut in two
and, independently, those of the second; the rows of the third are assigned by both.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from cgjax.clustering.selection.partitions import assign, halve
from cgjax.clustering.selection.valleys import valley_p_values
from cgjax.numerics.cross_tables import adjusted_rand, cross_table

# A cluster with fewer rows than this in any of the sets is not cut.
_LEAST_ROWS = 20


class InnerSplit(NamedTuple):
    """The result of cutting one cluster in two.

    Attributes:
        stability: adjusted Rand index between both cuts on the third set.
        p_value: of "no valley" between the halves, times the number of clusters (Bonferroni).
    """

    stability: float
    p_value: float


def splits_within(
    sets: Sequence[Float[np.ndarray, "_ q"]],
    labels: Sequence[Int[np.ndarray, " _"]],
    num_clusters: int,
) -> list[InnerSplit | None]:
    """Cut every cluster in two; the result is None for one with fewer than 20 rows in a set.

    Args:
        sets: the first, the second and the third set of rows.
        labels: the cluster of each row in each set, by one clustering.
        num_clusters: k.
    """
    splits: list[InnerSplit | None] = []
    for cluster in range(num_clusters):
        members = [rows[own == cluster] for rows, own in zip(sets, labels, strict=True)]
        if min(len(rows) for rows in members) < _LEAST_ROWS:
            splits.append(None)
            continue
        first, second, third = members
        pair, again = halve(first), halve(second)
        p_value = valley_p_values(np.concatenate([second, third]), pair)[0, 1]
        table = cross_table(assign(third, pair), assign(third, again), (2, 2))
        splits.append(
            InnerSplit(float(adjusted_rand(table)), float(min(1.0, num_clusters * p_value)))
        )
    return splits
