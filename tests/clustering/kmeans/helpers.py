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
