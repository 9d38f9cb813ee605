"""Agreement between a clustering and known classes.

Argument order is always `(labels, classes)`: the clustering first, then the truth. `purity` and
`inverse_purity` are not symmetric and published tables confuse them (the "purity" of [Liu et al.
2020, table 4] is the inverse one), hence both names.
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from cgjax.errors import UserError
from cgjax.numerics import cross_tables
from cgjax.numerics.cross_tables import adjusted_rand, cross_table


def contingency(labels: ArrayLike, classes: ArrayLike) -> NDArray[np.int64]:
    """Return the (clusters, classes) table of counts; the values may be any integers or names.

    Args:
      labels: (n,) cluster ids, n at least 1.
      classes: (n,) true classes.

    Returns:
      (clusters, classes) int64 counts, for the clusters and classes that occur, sorted.

    Raises:
      UserError: not two non-empty (n,) arrays of the same length.

    >>> contingency([0, 0, 1], ["b", "a", "b"]).tolist()
    [[1, 1], [0, 1]]
    """
    labels, classes = np.asarray(labels), np.asarray(classes)
    if labels.ndim != 1 or labels.shape != classes.shape or len(labels) == 0:
        raise UserError(
            f"labels {labels.shape} and classes {classes.shape}; expected two non-empty (n,) "
            "arrays of the same length"
        )
    label_values, rows = np.unique(labels, return_inverse=True)
    class_values, columns = np.unique(classes, return_inverse=True)
    return cross_table(rows, columns, (len(label_values), len(class_values)))


def purity(labels: ArrayLike, classes: ArrayLike) -> float:
    """Return (1/n) sum over clusters of the largest overlap with one class; 1 for pure clusters.

    Args:
      labels: (n,) cluster ids.
      classes: (n,) true classes.

    Raises:
      UserError: as `contingency`.

    >>> purity([0, 0, 1, 2], ["b", "b", "a", "a"])  # splitting a class costs nothing
    1.0
    """
    table = contingency(labels, classes)
    return float(table.max(axis=1).sum() / table.sum())


def inverse_purity(labels: ArrayLike, classes: ArrayLike) -> float:
    """Return (1/n) sum over classes of the largest overlap with one cluster; 1 if none is split.

    Args:
      labels: (n,) cluster ids.
      classes: (n,) true classes.

    Raises:
      UserError: as `contingency`.

    >>> inverse_purity([0, 0, 1, 2], ["b", "b", "a", "a"])
    0.75
    """
    table = contingency(labels, classes)
    return float(table.max(axis=0).sum() / table.sum())


def mutual_information(labels: ArrayLike, classes: ArrayLike) -> float:
    """Return the mutual information of the two contingency in nats, at least zero.

    Args:
      labels: (n,) cluster ids.
      classes: (n,) true classes.

    Raises:
      UserError: as `contingency`.

    >>> round(mutual_information([0, 0, 1, 1], ["b", "b", "a", "a"]), 4)  # log 2
    0.6931
    """
    return max(float(cross_tables.mutual_information(contingency(labels, classes))), 0.0)


def nmi(
    labels: ArrayLike,
    classes: ArrayLike,
    *,
    average: Literal["arithmetic", "geometric"] = "arithmetic",
) -> float:
    """Return the mutual information over the mean of both entropies, in [0, 1].

    1 if both contingency have a single part; 0 if only one of them has.

    Args:
      labels: (n,) cluster ids.
      classes: (n,) true classes.
      average: which mean of the entropies; older tables use "geometric".

    Raises:
      UserError: an unknown `average`, or as `contingency`.

    >>> nmi([0, 0, 1, 1], ["b", "b", "a", "a"]), nmi([0, 1, 0, 1], ["b", "b", "a", "a"])
    (1.0, 0.0)
    """
    if average not in ("arithmetic", "geometric"):
        raise UserError(f"average={average!r}; expected 'arithmetic' or 'geometric'")
    table = contingency(labels, classes)
    if table.shape == (1, 1):
        return 1.0
    shares = table / table.sum()
    h_labels, h_classes = (float(cross_tables.entropy(shares.sum(axis=axis))) for axis in (1, 0))
    mean = (h_labels + h_classes) / 2 if average == "arithmetic" else np.sqrt(h_labels * h_classes)
    return float(mutual_information(labels, classes) / mean) if mean > 0 else 0.0


def adjusted_rand_index(labels: ArrayLike, classes: ArrayLike) -> float:
    """Return the Rand index adjusted for chance: 1 if identical, about 0 if unrelated.

    Args:
      labels: (n,) cluster ids.
      classes: (n,) true classes.

    Raises:
      UserError: as `contingency`.

    >>> adjusted_rand_index([0, 0, 1, 1], ["b", "b", "a", "a"])
    1.0
    """
    return float(adjusted_rand(contingency(labels, classes)))


def matched_accuracy(labels: ArrayLike, classes: ArrayLike) -> float:
    """Return the accuracy under the best one-to-one match of clusters to classes (Hungarian).

    Rows of a cluster or class without a match count as wrong.

    Args:
      labels: (n,) cluster ids.
      classes: (n,) true classes.

    Raises:
      UserError: as `contingency`.

    >>> matched_accuracy([0, 0, 1, 1], ["b", "b", "a", "a"])
    1.0
    """
    table = contingency(labels, classes)
    rows, columns = linear_sum_assignment(table, maximize=True)
    return float(table[rows, columns].sum() / table.sum())
