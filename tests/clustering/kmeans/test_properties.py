"""Properties of k-means that hold for any data, on points that Hypothesis draws."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cgjax.clustering import assign, kmeans
from cgjax.clustering.kmeans import rows
from cgjax.clustering.kmeans.lloyd import fit
from cgjax.clustering.kmeans.options import Options
from cgjax.clustering.kmeans.sources import ArrayRows
from tests.clustering.kmeans.device_cases import points

# Of one shape, so that one compiled program serves all: 40 points, many of them equal.
POINTS = hnp.arrays(np.float32, (40, 3), elements=st.integers(-8, 8).map(float))
quickly = settings(max_examples=25, deadline=None)


@quickly
@given(POINTS)
def test_one_cluster_is_the_mean(data):
    result = kmeans(data, 1, key=jax.random.key(0), num_init=2)
    np.testing.assert_allclose(result.centroids[0], data.mean(0), atol=1e-5)
    np.testing.assert_allclose(result.inertia, ((data - data.mean(0)) ** 2).sum(), rtol=1e-4)


@quickly
@given(POINTS)
def test_every_point_is_with_its_nearest_centroid_and_every_centroid_is_a_mean(data):
    result = kmeans(data, 4, key=jax.random.key(0), num_init=2, tol=0.0)
    labels, centroids = np.asarray(result.labels), np.asarray(result.centroids)
    distance = ((data[:, None] - centroids[None]) ** 2).sum(-1)
    own = distance[np.arange(40), labels]
    # Ties and rounding: no other centroid is nearer by more than float32 can tell.
    assert (own <= distance.min(1) + 1e-3).all()
    if bool(result.converged):
        for c in set(labels.tolist()):
            # Tied points may be counted here and labelled there.
            if (np.sort(distance[labels == c], axis=1)[:, :2] @ [-1, 1] > 1e-3).all():
                mean = data[labels == c].mean(0)
                others = distance[labels != c]
                if (others[:, c] - others.min(1) > 1e-3).all():
                    np.testing.assert_allclose(centroids[c], mean, atol=1e-4)
    np.testing.assert_array_equal(result.counts, np.bincount(labels, minlength=4))


@quickly
@given(POINTS)
def test_duplicate_points_share_their_cluster_and_nothing_is_lost(data):
    result = kmeans(np.concatenate([data, data]), 4, key=jax.random.key(0), num_init=2)
    np.testing.assert_array_equal(result.labels[:40], result.labels[40:])
    assert int(result.counts.sum()) == 80
    assert np.isfinite(np.asarray(result.centroids)).all()
    assert float(result.inertia) >= 0.0


@quickly
@given(POINTS)
def test_streamed_and_held_reach_the_same_objective_from_the_same_start(data):
    given_starts = data[:3] + np.array([[0.1], [0.2], [0.3]], np.float32)
    options = {"key": jax.random.key(0), "init": given_starts, "max_iter": 1}
    held = kmeans(data, 3, **options)
    streamed = kmeans(ArrayRows(data, 16), 3, **options)
    # One iteration: ties by rounding may fall either way, which the objective does not show.
    np.testing.assert_allclose(streamed.inertias, held.inertias, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("chunk", [1, 7, 300])
def test_the_chunk_of_rows_does_not_change_the_labels(chunk, monkeypatch, key):
    data = points(203)
    expected = kmeans(data, 3, key=key, num_init=4)
    monkeypatch.setattr(rows, "CHUNK", chunk)
    (result,) = jax.jit(fit)(data, key, Options((3,), num_init=4))
    np.testing.assert_array_equal(result.labels, expected.labels)
    np.testing.assert_array_equal(assign(data, result.centroids)[0], expected.labels)
    np.testing.assert_allclose(result.inertia, expected.inertia, rtol=1e-5)
