"""Weights say which rows count: 1 or 0, and nothing else."""

import jax
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cgjax.clustering import kmeans
from cgjax.clustering.kmeans.sources import ArrayRows
from cgjax.errors import UserError
from cgjax.runtime.mesh import data_mesh

POINTS = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
PLACES = {
    "memory": (POINTS, {}),
    "streamed": (ArrayRows(POINTS, 16), {}),
    "devices": (POINTS, {"mesh": data_mesh(4)}),
}


def lloyd(points, centroids, num):
    """The textbook iteration, in float64."""
    points, centroids = points.astype(np.float64), centroids.astype(np.float64)
    for _ in range(num):
        labels = ((points[:, None] - centroids[None]) ** 2).sum(-1).argmin(1)
        assume(len(np.unique(labels)) == len(centroids))
        centroids = np.stack([points[labels == c].mean(0) for c in range(len(centroids))])
    distance = ((points[:, None] - centroids[None]) ** 2).sum(-1)
    return centroids, distance.argmin(1), distance.min(1).sum()


@pytest.mark.parametrize("place", PLACES)
@settings(max_examples=15, deadline=None)
@given(hnp.arrays(bool, (40,), elements=st.booleans()).filter(lambda counts: counts.sum() >= 3))
def test_rows_of_weight_0_change_nothing(place, counts):
    features, options = PLACES[place]
    start = POINTS[counts][:3]
    result = kmeans(
        features,
        3,
        key=jax.random.key(0),
        init=start,
        weights=counts.astype(np.float32),
        max_iter=20,
        tol=0.0,
        **options,
    )
    centroids, labels, inertia = lloyd(POINTS[counts], start, 20)
    order = np.lexsort((centroids[:, 0], -np.bincount(labels, minlength=3)))
    ours = np.asarray(result.centroids)
    own = np.lexsort((ours[:, 0], -np.asarray(result.counts)))
    np.testing.assert_allclose(ours[own], centroids[order], atol=1e-4)
    np.testing.assert_allclose(result.inertia, inertia, rtol=1e-4, atol=1e-6)
    assert int(result.counts.sum()) == counts.sum()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("bad", [0.1, -1.0, 2.0, np.nan, np.inf])
def test_other_weights_are_refused_in_one_line(place, bad):
    features, options = PLACES[place]
    weights = np.ones(40)
    weights[7] = bad
    with pytest.raises(UserError, match="weights other than 0 and 1") as error:
        kmeans(features, 1, key=jax.random.key(0), weights=weights, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("place", PLACES)
def test_weights_that_are_all_0_are_refused_in_one_line(place):
    features, options = PLACES[place]
    with pytest.raises(UserError, match="only rows of weight 0"):
        kmeans(features, 1, key=jax.random.key(0), weights=np.zeros(40), **options)
