"""How clusters split from one number to the next: a small tree from the labels of the same rows."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from cgjax.numerics.partitions import cross_table


class Branch(NamedTuple):
    """Where a cluster comes from.

    Attributes:
        number: of clusters of its clustering, at least 2.
        cluster: its id there.
        share: of all rows.
        parent: the cluster of the clustering with one cluster less that holds most of its rows.
        from_parent: the share of its rows that come from there.
    """

    number: int
    cluster: int
    share: float
    parent: int
    from_parent: float


def split_tree(labelings: Sequence[Int[np.ndarray, " n"]]) -> tuple[Branch, ...]:
    """Return the branches of clusterings into 1, 2, 3, ... clusters of the same rows.

    Example:
        >>> split_tree([np.array([0, 0, 0, 0]), np.array([0, 0, 0, 1])])[1]
        Branch(number=2, cluster=1, share=0.25, parent=0, from_parent=1.0)
    """
    branches = []
    for number, (before, after) in enumerate(itertools.pairwise(labelings), start=2):
        table = cross_table(before, after, (number - 1, number))
        sizes = table.sum(axis=0)
        for cluster, parent in enumerate(np.argmax(table, axis=0).tolist()):
            size = int(sizes[cluster])
            kept = float(table[parent, cluster] / size) if size else 0.0
            branches.append(Branch(number, cluster, size / len(after), parent, kept))
    return tuple(branches)
