"""The cluster of a row, its margin, and the input that `assign` refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgjax.clustering import assign, kmeans
from cgjax.errors import UserError
from tests.clustering.kmeans.helpers import blobs


def test_assign_agrees_with_the_fit_to_the_last_bit(key):
    points, _ = blobs(spread=2.0)
    result = kmeans(points, 4, key=key)
    labels, margins = assign(points, result.centroids)
    np.testing.assert_array_equal(labels, result.labels)
    np.testing.assert_array_equal(margins, result.margins)


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_assign_does_not_depend_on_the_batch(batch):
    points, _ = blobs(n=128, spread=2.0)
    centroids = jnp.array(points[:5])
    expected = assign(points, centroids)
    for begin in range(0, 128 - 128 % batch, batch):
        labels, margins = assign(points[begin : begin + batch], centroids)
        np.testing.assert_array_equal(labels, expected[0][begin : begin + batch])
        np.testing.assert_allclose(margins, expected[1][begin : begin + batch], atol=1e-5)


def test_margins_are_differences_of_distances_also_far_from_the_origin():
    points, _ = blobs(n=200, dim=64, spread=2.0, shift=1000.0)
    centroids = jnp.array(points[:6])
    labels, margins = assign(points, centroids)
    exact = np.sqrt(
        ((points[:, None].astype(np.float64) - np.asarray(centroids)[None]) ** 2).sum(-1)
    )
    two = np.sort(exact, 1)[:, :2]
    np.testing.assert_array_equal(labels, exact.argmin(1))
    # The coordinates are exact; distances of about 20 with float32 rounding of their squares.
    np.testing.assert_allclose(margins, two[:, 1] - two[:, 0], atol=1e-4)


@pytest.mark.parametrize("distance", [1e4, 1e6])
def test_a_centroid_far_away_takes_no_digits_from_the_others(distance):
    rng = np.random.default_rng(0)
    centroids = np.concatenate([6 * rng.normal(size=(3, 8)), np.full((1, 8), distance)])
    points = np.repeat(centroids, 100, axis=0) + rng.normal(size=(400, 8))
    labels, _ = assign(points.astype(np.float32), centroids.astype(np.float32))
    exact = np.square(points[:, None] - centroids[None]).sum(-1).argmin(1)
    np.testing.assert_array_equal(labels, exact)


def test_assign_gives_ties_to_the_lowest_id_with_margin_zero():
    labels, margins = assign(jnp.array([[0.0], [3.0]]), jnp.array([[1.0], [-1.0], [1.0]]))
    assert labels.tolist() == [0, 0]
    assert margins.tolist() == [0.0, 0.0]


def test_assign_takes_an_empty_batch():
    labels, margins = assign(jnp.zeros((0, 3)), jnp.ones((2, 3)))
    assert labels.shape == margins.shape == (0,)


@pytest.mark.parametrize(
    ("features", "centroids", "message"),
    [
        ((7, 5), (2, 6), "features have shape (7, 5) and centroids (2, 6): expected 6 numbers"),
        ((7, 2, 2), (2, 6), "expected 6 numbers"),
        ((6,), (2, 6), "expected 6 numbers"),
        ((7, 6), (6,), "centroids have shape (6,)"),
        ((7, 6), (0, 6), "centroids have shape (0, 6)"),
    ],
)
def test_assign_names_shapes_that_do_not_fit_together(features, centroids, message):
    for function in (assign, jax.jit(assign)):
        with pytest.raises(UserError) as error:
            function(np.zeros(features, np.float32), np.zeros(centroids, np.float32))
        assert message in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_assign_names_centroids_that_are_not_finite(bad):
    centroids = np.zeros((4, 3), np.float32)
    centroids[2, 1] = bad
    with pytest.raises(UserError, match="centroids of clusters 2 hold NaN or Inf"):
        assign(np.zeros((5, 3), np.float32), centroids)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("features", "centroids", "message"),
    [
        ([[1.0], [2.0, 3.0]], np.zeros((2, 3)), "features are not an array"),
        (np.zeros((5, 3)), None, r"centroids are None: expected \(clusters, features\)"),
        (np.zeros((5, 3)) * 1j, np.zeros((2, 3)), "features are complex128 numbers"),
        (np.zeros((5, 3)), np.full((2, 3), 1e300), "centroids hold numbers too large for float32"),
        (np.zeros((5, 3)), 1e25 * np.eye(2, 3), "centroids are too large: their squares overflow"),
        (np.zeros((5, 3)), 1e-20 * np.eye(2, 3), "centroids differ by 1e-20 at most"),
    ],
)
def test_assign_refuses_anything_but_arrays_of_numbers(features, centroids, message):
    with pytest.raises(UserError, match=message):
        assign(features, centroids)
