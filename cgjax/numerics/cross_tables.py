"""The similarity of two partitions of the same rows, from their contingency table.

For clusters a of the first partition and b of the second, the table holds

    n_ab = rows in both,    n_a = sum_b n_ab,    n_b = sum_a n_ab

Every function takes one table (A, B) or a stack of them (..., A, B), for example of resamples: rows
drawn with replacement change only the counts.
"""

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike, NDArray

Table = Int[np.ndarray, "*batch a b"]


def cross_table(
    first: Int[np.ndarray, " n"], second: Int[np.ndarray, " n"], shape: tuple[int, int]
) -> Int[np.ndarray, "a b"]:
    """Return the counts n_ab of labels from 0 to the shape's; a cluster may be empty.

    >>> cross_table(np.array([0, 0, 1]), np.array([1, 1, 0]), (2, 2)).tolist()
    [[0, 2], [1, 0]]
    """
    flat = first.astype(np.int64) * shape[1] + second
    return np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape)


def _pairs(counts: ArrayLike) -> NDArray[np.float64]:
    # Floats: products of numbers of pairs exceed 2**63 from about 80,000 rows on.
    num = np.asarray(counts, np.float64)
    return np.asarray(num * (num - 1) / 2)


def adjusted_rand(table: Table) -> Float[np.ndarray, "*batch"]:
    """Return the Rand index adjusted for chance: 1 if equal, about 0 if unrelated."""
    together = _pairs(table).sum(axis=(-2, -1))
    first = _pairs(table.sum(axis=-1)).sum(axis=-1)
    second = _pairs(table.sum(axis=-2)).sum(axis=-1)
    expected = first * second / np.maximum(_pairs(table.sum(axis=(-2, -1))), 1)
    above, most = together - expected, (first + second) / 2 - expected
    is_equal = (first == together) & (second == together)
    return np.asarray(np.where(is_equal, 1.0, above / np.where(most == 0, 1.0, most)))


def prediction_strength(table: Table) -> Float[np.ndarray, "*batch"]:
    """Return the minimum over b of the share of b's pairs that the first partition keeps together.

    [Tibshirani & Walther 2005, eq. 2.1]; clusters b of fewer than two rows have no pairs and do
    not count.
    """
    kept = _pairs(table).sum(axis=-2)
    pairs = _pairs(table.sum(axis=-2))
    share = np.where(pairs > 0, kept / np.where(pairs > 0, pairs, 1), 1.0)
    return np.asarray(share.min(axis=-1))


def jaccard(table: Table) -> Float[np.ndarray, "*batch a"]:
    """Return for each cluster a its similarity to the closest b: max_b |a and b| / |a or b|.

    [Hennig 2007]; 0 for an empty cluster.
    """
    union = table.sum(axis=-1)[..., :, None] + table.sum(axis=-2)[..., None, :] - table
    return np.asarray((table / np.maximum(union, 1)).max(axis=-1))


def mutual_information(table: Table) -> Float[np.ndarray, "*batch"]:
    """Return sum_ab p_ab log(p_ab / (p_a p_b)), in nats: what one label says about the other.

    >>> round(float(mutual_information(np.array([[5, 0], [0, 5]]))), 4)
    0.6931
    """
    joint = _shares(table)
    independent = joint.sum(axis=-1, keepdims=True) * joint.sum(axis=-2, keepdims=True)
    ratio = np.divide(joint, independent, out=np.ones_like(joint), where=joint > 0)
    return np.asarray((joint * np.log(ratio)).sum(axis=(-2, -1)))


def normalized_mutual_information(table: Table) -> Float[np.ndarray, "*batch"]:
    """Return the mutual information over the mean of both entropies: 0 unrelated, 1 equal.

    1 if both partitions have a single cluster.
    """
    joint = _shares(table)
    mean = (entropy(joint.sum(axis=-1)) + entropy(joint.sum(axis=-2))) / 2
    shared = mutual_information(table)
    return np.asarray(np.where(mean > 0, shared / np.where(mean > 0, mean, 1.0), 1.0))


def _shares(table: Table) -> Float[np.ndarray, "*batch a b"]:
    counts = np.asarray(table, np.float64)
    return np.asarray(counts / np.maximum(counts.sum(axis=(-2, -1), keepdims=True), 1))


def entropy(shares: Float[np.ndarray, "*batch k"]) -> Float[np.ndarray, "*batch"]:
    """Return -sum_k p_k log p_k of shares, in nats.

    >>> round(float(entropy(np.array([0.5, 0.5, 0.0]))), 4)
    0.6931
    """
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    return np.asarray(-(shares * logs).sum(axis=-1))
