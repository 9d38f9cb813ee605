"""One set of rows clustered into every number of clusters, from one tree.

Random restarts would cost more than everything else, and miss small clusters among many. Each
number starts instead from the means of Ward's tree [Ward 1963], which joins the two groups whose
union raises the k-means objective least, cut at that number. Small numbers also start from the
clustering with one cluster fewer, its widest cluster halved across the main axis, which is the best
cut of a cloud without groups. After Lloyd's iteration the smaller objective is kept.

Symbols: n rows, q coordinates, k clusters.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.sparse import csc_array

_MAX_ITER, _POWER_ITER, _HALVED_MOST = 100, 12, 8
_BLOCK = 200_000  # multiplications; OpenBLAS starts threads from 2^18


class Partition(NamedTuple):
    """A clustering, clusters by descending share.

    Attributes:
        centroids: (k, q) float32.
        labels: (n,) int, of the rows that were clustered.
    """

    centroids: Float[np.ndarray, "k q"]
    labels: Int[np.ndarray, " n"]


def partition_all(
    rows: Float[np.ndarray, "n q"], max_number: int, *, seed_rows: int = 3000
) -> tuple[Partition, ...]:
    """Cluster rows into 1, 2, ... `max_number` clusters.

    O(s^2 q) time for the tree of s rows, then O(n q k) an iteration.

    Args:
        rows: (n, q) float32, n at least `max_number`.
        max_number: most clusters.
        seed_rows: s; the tree is that of at most the first s rows, or `max_number` if that is more.

    Returns:
        One partition for each number, from 1.

    Example:
        >>> rows = np.array([[0.0], [1.0], [10.0], [11.0], [12.0]], np.float32)
        >>> partition_all(rows, 2)[1].labels.tolist()
        [1, 1, 0, 0, 0]
    """
    parts: list[Partition] = []
    for start in _ward_means(rows[: max(seed_rows, max_number)], max_number):
        part = _lloyd(rows, start)
        if 1 < len(start) <= _HALVED_MOST:
            other = _lloyd(rows, _halve_widest(rows, parts[-1]))
            part = min(part, other, key=lambda one: inertia(rows, one))
        parts.append(part)
    return tuple(parts)


def halve(rows: Float[np.ndarray, "n q"]) -> Float[np.ndarray, "2 q"]:
    """Return the centroids of two clusters that start as halves across the main axis."""
    whole = Partition(rows.mean(axis=0, keepdims=True), np.zeros(len(rows), np.int64))
    return _lloyd(rows, _halve_widest(rows, whole)).centroids


def inertia(rows: Float[np.ndarray, "n q"], part: Partition) -> float:
    """Return the k-means objective, W_k, in float64."""
    difference = rows - part.centroids[part.labels]
    return float(np.einsum("nq,nq->", difference, difference, dtype=np.float64))


def products(
    rows: Float[np.ndarray, "n q"], centroids: Float[np.ndarray, "k q"]
) -> Float[np.ndarray, "n k"]:
    """Return the inner products of rows and centroids, all that assignment needs of the rows.

    In blocks small enough for BLAS to use one thread: thousands of small products would otherwise
    wait for threads wherever the cores are shared.
    """
    num, dim = rows.shape
    block = max(_BLOCK // (dim * len(centroids)), 1)
    whole = num // block * block
    out = np.empty((num, len(centroids)), np.float32)
    blocks = rows[:whole].reshape(-1, block, dim)
    out[:whole] = np.matmul(blocks, centroids.T).reshape(whole, len(centroids))
    out[whole:] = rows[whole:] @ centroids.T
    return out


def nearest(
    product: Float[np.ndarray, "n k"], centroids: Float[np.ndarray, "k q"]
) -> Int[np.ndarray, " n"]:
    """Return the nearest centroid of each row, lowest id on ties, given the inner products."""
    squares = np.einsum("kq,kq->k", centroids, centroids)
    return np.argmax(product - 0.5 * squares[None, :], axis=1)


def assign(
    rows: Float[np.ndarray, "n q"], centroids: Float[np.ndarray, "k q"]
) -> Int[np.ndarray, " n"]:
    """Return the nearest centroid of each row."""
    return nearest(products(rows, centroids), centroids)


def _ward_means(rows: Float[np.ndarray, "n q"], most: int) -> list[Float[np.ndarray, "k q"]]:
    """Return the group means of Ward's tree cut at 1, 2, ... groups."""
    num = len(rows)
    if num < 2:
        return [rows.copy()]
    tree = linkage(rows, "ward")
    # In the order of the leaves every node is a range of rows.
    sums = np.zeros((num + 1, rows.shape[1]))
    np.cumsum(rows[leaves_list(tree)], axis=0, dtype=np.float64, out=sums[1:])
    groups = {2 * num - 2: (0, num)}
    means = []
    for k in range(1, min(most, num) + 1):
        ranges = np.array(list(groups.values()))
        sizes = (ranges[:, 1] - ranges[:, 0])[:, None]
        means.append(((sums[ranges[:, 1]] - sums[ranges[:, 0]]) / sizes).astype(np.float32))
        if k < num:
            last = max(groups)  # the node that was joined last
            begin, end = groups.pop(last)
            left, right = (int(node) for node in tree[last - num, :2])
            middle = begin + (1 if left < num else int(tree[left - num, 3]))
            groups |= {left: (begin, middle), right: (middle, end)}
    return means


def _halve_widest(rows: Float[np.ndarray, "n q"], part: Partition) -> Float[np.ndarray, "k1 q"]:
    """Return the centroids with that of the largest inertia replaced by two along its main axis."""
    squares = np.square(rows - part.centroids[part.labels]).sum(axis=1)
    widest = int(np.argmax(np.bincount(part.labels, squares, len(part.centroids))))
    own = rows[part.labels == widest] - part.centroids[widest]
    axis = own[np.argmax(squares[part.labels == widest])]
    for _ in range(_POWER_ITER):  # einsum, for the reason given in `products`
        axis = np.einsum("n,nq->q", np.einsum("nq,q->n", own, _unit(axis)), own) / len(own)
    # The axis is as long as the variance along it. These are the means of a Gaussian's two halves.
    step = _unit(axis) * np.sqrt(2 / np.pi * np.linalg.norm(axis))
    both = part.centroids[widest][None, :] + np.stack([step, -step])
    return np.concatenate([np.delete(part.centroids, widest, axis=0), both])


def _unit(axis: Float[np.ndarray, " q"]) -> Float[np.ndarray, " q"]:
    return axis / max(float(np.linalg.norm(axis)), 1e-30)


def _lloyd(rows: Float[np.ndarray, "n q"], centroids: Float[np.ndarray, "k q"]) -> Partition:
    """Repeat assignment and means; a cluster that loses its rows stays where it is."""
    num, k = len(rows), len(centroids)
    ones, ends = np.ones(num, np.float32), np.arange(num + 1)
    labels = assign(rows, centroids)
    for _ in range(_MAX_ITER):
        members = csc_array((ones, labels, ends), (k, num))
        counts = np.bincount(labels, minlength=k)[:, None].astype(np.float32)
        means = (members @ rows) / np.maximum(counts, 1.0)
        centroids = np.where(counts > 0, means, centroids)
        moved = assign(rows, centroids)
        if np.array_equal(moved, labels):
            break
        labels = moved
    order = np.argsort(-np.bincount(labels, minlength=k), kind="stable")
    return Partition(centroids[order], np.argsort(order)[labels])
