"""Agreement between a clustering and known classes.

Argument order is always `(labels, classes)`: what was found, then what is true. `purity` and
`inverse_purity` are not symmetric, and published tables mix them up (the "purity" of [Liu et al.
2020, table 4] is the inverse one), hence both names.
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from cgjax.errors import UserError
from cgjax.numerics import partitions
from cgjax.numerics.partitions import adjusted_rand, cross_table


def contingency(labels: ArrayLike, classes: ArrayLike) -> NDArray[np.int64]:
    """Return the (clusters, classes) table of counts; the values may be any integers or names.

    Args:
      labels: (n,) cluster ids, n at least 1.
      classes: (n,) true classes.

    Returns:
      (clusters, classes) int64 counts; clusters and classes are those that occur, sorted.

    Raises:
      UserError: not two (n,) arrays of one length, or empty ones.

    >>> contingency([0, 0, 1], ["b", "a", "b"]).tolist()
    [[1, 1], [0, 1]]
    """
    found, true = np.asarray(labels), np.asarray(classes)
    if found.ndim != 1 or found.shape != true.shape or len(found) == 0:
        raise UserError(
            f"labels {found.shape} and classes {true.shape}; expected two equal, non-empty (n,)"
        )
    names_found, rows = np.unique(found, return_inverse=True)
    names_true, columns = np.unique(true, return_inverse=True)
    return cross_table(rows, columns, (len(names_found), len(names_true)))


def purity(labels: ArrayLike, classes: ArrayLike) -> float:
    """Return (1/n) sum over clusters of the largest overlap with one class; 1 for pure clusters.

    Args:
      labels: (n,) cluster ids.
      classes: (n,) true classes.

    Raises:
      UserError: as `contingency`.

    >>> purity([0, 0, 1, 2], ["b", "b", "a", "a"])  # a class that is split costs nothing
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
    """Return the mutual information of the two partitions, in nats, at least zero.

    Args:
      labels: (n,) cluster ids.
      classes: (n,) true classes.

    Raises:
      UserError: as `contingency`.

    >>> round(mutual_information([0, 0, 1, 1], ["b", "b", "a", "a"]), 4)  # log 2
    0.6931
    """
    return max(float(partitions.mutual_information(contingency(labels, classes))), 0.0)


def nmi(
    labels: ArrayLike,
    classes: ArrayLike,
    *,
    average: Literal["arithmetic", "geometric"] = "arithmetic",
) -> float:
    """Return the mutual information over the mean of both entropies, in [0, 1].

    Two partitions of one part each agree: 1. One such part against several: 0.

    Args:
      labels: (n,) cluster ids.
      classes: (n,) true classes.
      average: mean of the entropies; "geometric" is what older tables used.

    Raises:
      UserError: another `average`, or as `contingency`.

    >>> nmi([0, 0, 1, 1], ["b", "b", "a", "a"]), nmi([0, 1, 0, 1], ["b", "b", "a", "a"])
    (1.0, 0.0)
    """
    if average not in ("arithmetic", "geometric"):
        raise UserError(f"average={average!r}; expected 'arithmetic' or 'geometric'")
    table = contingency(labels, classes)
    if table.shape == (1, 1):
        return 1.0
    shares = table / table.sum()
    first, second = (float(partitions.entropy(shares.sum(axis=axis))) for axis in (1, 0))
    mean = (first + second) / 2 if average == "arithmetic" else np.sqrt(first * second)
    return float(mutual_information(labels, classes) / mean) if mean > 0 else 0.0


def adjusted_rand_index(labels: ArrayLike, classes: ArrayLike) -> float:
    """Return the Rand index adjusted for chance: 1 if equal, about 0 if unrelated.

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

    The rows of a cluster or class without a match count as wrong.

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
