"""Data and small wrappers that several k-means tests share."""

import jax
import numpy as np

from cgjax.clustering.kmeans import lloyd
from cgjax.clustering.kmeans.options import Options

_init = jax.jit(lloyd.init)
_step = jax.jit(lloyd.step)


def init(data, key, *, num_clusters, **options):
    """The starting state of one number of clusters."""
    (state,) = _init(data, key, Options((num_clusters,), **options))
    return state


def step(data, state, **options):
    """The state of one number of clusters after a step."""
    (after,) = _step(data, (state,), **options)
    return after


def starts(data, state):
    """The centroids of all restarts in the coordinates of the data."""
    return np.asarray(state.centroids) + np.asarray(data.offset)


def blobs(seed=0, n=300, k=4, dim=6, spread=0.3, shift=0.0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(k, dim)) * 3.0
    labels = rng.integers(0, k, n)
    points = centres[labels] + spread * rng.normal(size=(n, dim)) + shift
    return points.astype(np.float32), labels


def tolerance_between(points, centroids, first, second):
    """A tolerance by which Lloyd's iterations end at the given one of two, and that iteration.

    It lies between the squared movements of the two, as a share of the mean variance of a feature,
    as in scikit-learn.
    """
    moves = []
    while len(moves) < second:
        labels = ((points[:, None] - centroids[None]) ** 2).sum(-1).argmin(1)
        moved = np.stack(
            [points[labels == c].mean(0, dtype=np.float64) for c in range(len(centroids))]
        )
        moves.append(((moved - centroids) ** 2).sum())
        centroids = moved
    assert moves[-1] > 1e-6, "the iterations have settled before"
    least = np.sqrt(moves[first - 1] * moves[second - 1])
    ends = 1 + int(np.argmax(np.asarray(moves) <= least))
    return float(least / points.var(0, dtype=np.float64).mean()), ends
