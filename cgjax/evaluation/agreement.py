"""Agreement between a clustering and known classes.

Argument order is always `(labels, classes)`: the clustering first, then the truth. `purity` and
`inverse_purity` are not symmetric and published tables confuse them (the "purity" of [Liu et al.
2020, table 4] is the inverse one), hence both names.

Every function takes (n,) cluster ids and (n,) true classes, n at least 1; the values may be any
integers or names. All raise what `contingency` raises.
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from cgjax.errors import UserError
from cgjax.numerics import cross_tables
from cgjax.numerics.cross_tables import adjusted_rand, cross_table


def contingency(labels: ArrayLike, classes: ArrayLike) -> NDArray[np.int64]:
    """Return the (clusters, classes) table of counts.

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

    >>> purity([0, 0, 1, 2], ["b", "b", "a", "a"])  # splitting a class costs nothing
    1.0
    """
    return _purity(contingency(labels, classes))


def inverse_purity(labels: ArrayLike, classes: ArrayLike) -> float:
    """Return (1/n) sum over classes of the largest overlap with one cluster; 1 if none is split.

    >>> inverse_purity([0, 0, 1, 2], ["b", "b", "a", "a"])
    0.75
    """
    return _purity(contingency(classes, labels))


def mutual_information(labels: ArrayLike, classes: ArrayLike) -> float:
    """Return the mutual information of the two partitions in nats, at least zero.

    >>> round(mutual_information([0, 0, 1, 1], ["b", "b", "a", "a"]), 4)  # log 2
    0.6931
    """
    return _mutual_information(contingency(labels, classes))


def nmi(
    labels: ArrayLike,
    classes: ArrayLike,
    *,
    average: Literal["arithmetic", "geometric"] = "arithmetic",
) -> float:
    """Return the mutual information over the mean of both entropies, in [0, 1].

    1 if both partitions have a single part; 0 if only one of them has.

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
    return _nmi(contingency(labels, classes), is_geometric=average == "geometric")


def adjusted_rand_index(labels: ArrayLike, classes: ArrayLike) -> float:
    """Return the Rand index adjusted for chance: 1 if identical, about 0 if unrelated.

    >>> adjusted_rand_index([0, 0, 1, 1], ["b", "b", "a", "a"])
    1.0
    """
    return float(adjusted_rand(contingency(labels, classes)))


def matched_accuracy(labels: ArrayLike, classes: ArrayLike) -> float:
    """Return the accuracy under the best one-to-one match of clusters to classes (Hungarian).

    Rows of a cluster or class without a match count as wrong.

    >>> matched_accuracy([0, 0, 1, 1], ["b", "b", "a", "a"])
    1.0
    """
    return _matched_accuracy(contingency(labels, classes))


def agreement_scores(labels: ArrayLike, classes: ArrayLike) -> dict[str, float]:
    """Return the scores that a summary reports, by name.

    >>> agreement_scores([0, 0, 1, 2], ["b", "b", "a", "a"])["accuracy"]
    0.75
    """
    table = contingency(labels, classes)
    return {
        "nmi_arithmetic": _nmi(table),
        "nmi_geometric": _nmi(table, is_geometric=True),
        "adjusted_rand": float(adjusted_rand(table)),
        "purity": _purity(table),
        "inverse_purity": _purity(table.T),
        "accuracy": _matched_accuracy(table),
    }


def _purity(table: NDArray[np.int64]) -> float:
    return float(table.max(axis=1).sum() / table.sum())


def _mutual_information(table: NDArray[np.int64]) -> float:
    return max(float(cross_tables.mutual_information(table)), 0.0)


def _nmi(table: NDArray[np.int64], *, is_geometric: bool = False) -> float:
    if table.shape == (1, 1):
        return 1.0
    shares = table / table.sum()
    h_labels, h_classes = (float(cross_tables.entropy(shares.sum(axis=axis))) for axis in (1, 0))
    mean = np.sqrt(h_labels * h_classes) if is_geometric else (h_labels + h_classes) / 2
    return float(_mutual_information(table) / mean) if mean > 0 else 0.0


def _matched_accuracy(table: NDArray[np.int64]) -> float:
    rows, columns = linear_sum_assignment(table, maximize=True)
    return float(table[rows, columns].sum() / table.sum())
