"""k clusters compared with those of one Gaussian with the rows' own mean and covariance.

The statistic is SigClust's cluster index [Liu et al. 2008], W_k / W_1: the sum of squared distances
to the nearest of k centroids over that to the mean. Unlike in SigClust the centroids are given,
from other rows, so that no draw has to be clustered, and every draw is whitened to have exactly the
rows' mean and covariance. These are sufficient for a Gaussian, so that rows of one Gaussian are one
more such draw whatever its covariance, and W_1 is the same for all. As in SigClust, the p-value
follows from the draws' mean and spread, here by Student's t with B - 1 degrees of freedom.

A small p-value says that the rows are not Gaussian, not that they form several clusters: a flat
cloud has one too. `valleys` tests whether there is a valley between clusters.

Symbols: n rows, q coordinates, k clusters, B draws.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.linalg import cholesky
from scipy.linalg.lapack import dtrtri
from scipy.special import stdtr

from cgjax.clustering.selection.partitions import products

# B draws, and the most rows that are compared with them.
_DRAWS, _ROWS = 30, 2000


def gaussian_p_values(
    held_out: Float[np.ndarray, "n q"],
    centroids: Sequence[Float[np.ndarray, "_ q"]],
    rng: np.random.Generator,
) -> list[float]:
    """Return the probability of a cluster index as small in one Gaussian, for each clustering.

    Args:
        held_out: (n, q) float32 rows that did not choose the centroids; the first 2000 are used.
        centroids: (k, q) float32 each; one centroid gives NaN.
        rng: for the draws, which all clusterings share.
    """
    rows = held_out[:_ROWS]
    mean = rows.mean(axis=0)
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(rows, rowvar=False)))
    keep = values >= 1e-9 * values[-1]  # ascending: at least the last
    root = (vectors[:, keep] * np.sqrt(np.maximum(values[keep], 0.0))).astype(np.float32)
    observed = _closeness(rows, centroids)
    drawn = np.stack(
        [
            _closeness(products(_white(rng, len(rows), root.shape[1]), root) + mean, centroids)
            for _ in range(_DRAWS)
        ]
    )
    spread = drawn.std(axis=0, ddof=1) * np.sqrt(1 + 1 / _DRAWS)
    score = (observed - drawn.mean(axis=0)) / np.maximum(spread, np.finfo(float).tiny)
    p_values = stdtr(_DRAWS - 1, -score)
    return [
        float(p) if len(c) > 1 else float("nan") for p, c in zip(p_values, centroids, strict=True)
    ]


def _white(rng: np.random.Generator, num: int, dim: int) -> Float[np.ndarray, "n q"]:
    """Draw rows with mean exactly 0 and covariance exactly 1."""
    noise = rng.standard_normal((num, dim), np.float32)
    noise -= noise.mean(axis=0)
    columns = np.ascontiguousarray(noise.T)
    inverse = dtrtri(cholesky(products(columns, columns) / (num - 1), lower=True), lower=True)[0]
    return products(noise, inverse.astype(np.float32))


def _closeness(
    rows: Float[np.ndarray, "n q"], centroids: Sequence[Float[np.ndarray, "_ q"]]
) -> Float[np.ndarray, " c"]:
    """Return the mean of max_c (x . c - |c|^2 / 2) for each clustering; it falls as W_k rises."""
    every = np.concatenate(centroids)
    scores = products(rows, every) - 0.5 * np.square(every).sum(axis=1)
    ends = np.cumsum([len(own) for own in centroids])[:-1]
    return np.array([own.max(axis=1).mean(dtype=np.float64) for own in np.split(scores, ends, 1)])
