"""Agreement between a clustering and known classes.

Argument order is always `(labels, classes)`: what was found, then what is true. `purity` and
`inverse_purity` are not symmetric, and published tables mix them up (the "purity" of [Liu et al.
2020, table 4] is the inverse one), hence both names.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from cgjax.errors import UserError
from cgjax.numerics.partitions import adjusted_rand, cross_table


def contingency(labels: ArrayLike, classes: ArrayLike) -> NDArray[np.int64]:
    """Return the (clusters, classes) table of counts; the values may be any integers or names."""
    found, true = np.asarray(labels), np.asarray(classes)
    if found.ndim != 1 or found.shape != true.shape or len(found) == 0:
        raise UserError(
            f"labels {found.shape} and classes {true.shape}; expected two equal, non-empty (n,)"
        )
    names_found, rows = np.unique(found, return_inverse=True)
    names_true, columns = np.unique(true, return_inverse=True)
    return cross_table(rows, columns, (len(names_found), len(names_true)))


def purity(labels: ArrayLike, classes: ArrayLike) -> float:
    """Return (1/n) sum over clusters of the largest overlap with one class; 1 for pure clusters."""
    table = contingency(labels, classes)
    return float(table.max(axis=1).sum() / table.sum())


def inverse_purity(labels: ArrayLike, classes: ArrayLike) -> float:
    """Return (1/n) sum over classes of the largest overlap with one cluster; 1 if none is split."""
    table = contingency(labels, classes)
    return float(table.max(axis=0).sum() / table.sum())


def _entropy(counts: NDArray[Any]) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def mutual_information(labels: ArrayLike, classes: ArrayLike) -> float:
    """Return the mutual information of the two partitions, in nats."""
    table = contingency(labels, classes)
    both = _entropy(table.sum(axis=1)) + _entropy(table.sum(axis=0)) - _entropy(table.ravel())
    return max(both, 0.0)


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
    """
    if average not in ("arithmetic", "geometric"):
        raise UserError(f"average={average!r}; expected 'arithmetic' or 'geometric'")
    table = contingency(labels, classes)
    if table.shape == (1, 1):
        return 1.0
    first, second = _entropy(table.sum(axis=1)), _entropy(table.sum(axis=0))
    mean = (first + second) / 2 if average == "arithmetic" else np.sqrt(first * second)
    return float(mutual_information(labels, classes) / mean) if mean > 0 else 0.0


def adjusted_rand_index(labels: ArrayLike, classes: ArrayLike) -> float:
    """Return the Rand index adjusted for chance: 1 if equal, about 0 if unrelated."""
    return float(adjusted_rand(contingency(labels, classes)))


def matched_accuracy(labels: ArrayLike, classes: ArrayLike) -> float:
    """Return the accuracy under the best one-to-one match of clusters to classes (Hungarian).

    >>> matched_accuracy([0, 0, 1, 1], ["b", "b", "a", "a"])
    1.0
    """
    table = contingency(labels, classes)
    rows, columns = linear_sum_assignment(table, maximize=True)
    return float(table[rows, columns].sum() / table.sum())
