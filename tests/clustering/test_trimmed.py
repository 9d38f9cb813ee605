"""Trimmed k-means: without trimming it is k-means; its sum never rises; bad input is named."""

import numpy as np
import pytest

from cgjax.clustering import kmeans
from cgjax.clustering.trimmed import trimmed_kmeans
from cgjax.errors import UserError
from tests.clustering.kmeans.helpers import tolerance_between


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(3)
    centres = 10 * np.repeat(np.eye(3, 5), (50, 40, 30), axis=0)
    return (centres + rng.standard_normal((120, 5))).astype(np.float32)


def test_with_no_rows_left_out_it_is_k_means(rows, key):
    plain = kmeans(rows, 3, key=key, tol=0)
    result = trimmed_kmeans(rows, 3, key=key, share=0.0, tol=0)
    np.testing.assert_array_equal(result.labels, plain.labels)
    np.testing.assert_allclose(result.centroids, plain.centroids, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(result.inertia, plain.inertia, rtol=1e-5)
    np.testing.assert_allclose(result.inertias.min(), plain.inertia, rtol=1e-5)


def test_each_centroid_is_the_mean_of_the_members_that_are_kept(rows, key):
    result = trimmed_kmeans(rows, 3, key=key, share=0.1, tol=0)
    own = np.asarray(result.centroids)[np.asarray(result.labels)]
    squared = ((rows - own) ** 2).sum(1)
    is_kept = np.argsort(np.argsort(squared, kind="stable")) < 108
    assert result.converged
    np.testing.assert_allclose(result.inertias.min(), squared[is_kept].sum(), rtol=1e-5)
    for c in range(3):
        members = rows[is_kept & (np.asarray(result.labels) == c)]
        np.testing.assert_allclose(result.centroids[c], members.mean(0), rtol=1e-4, atol=1e-5)


def test_more_iterations_never_raise_the_trimmed_sum(rows, key):
    sums = [
        trimmed_kmeans(rows, 3, key=key, share=0.1, num_init=4, max_iter=i, tol=0).inertias
        for i in range(1, 6)
    ]
    assert (np.diff(np.stack(sums), axis=0) <= 1e-3).all()


def test_rows_far_from_zero_keep_their_digits(rows, key):
    near = trimmed_kmeans(rows, 3, key=key, share=0.1)
    far = trimmed_kmeans(rows + np.float32(1000), 3, key=key, share=0.1)
    np.testing.assert_array_equal(near.labels, far.labels)


def test_rows_that_are_left_out_do_not_end_the_iterations_early(rows, key):
    far = np.random.default_rng(0).normal(0, 1e4, (4, 5)).astype(np.float32)
    result = trimmed_kmeans(np.concatenate([rows, far]), 3, key=key, share=0.04)
    exact = trimmed_kmeans(np.concatenate([rows, far]), 3, key=key, share=0.04, tol=0)
    # One in ten restarts crawls, and the tolerance ends it; all would end in their second step.
    assert np.sum(result.inertias > 1.01 * exact.inertias) <= 1


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"share": 1.0}, "share=1.0 of rows left out: expected from 0 to below 1"),
        ({"share": -0.1}, "expected from 0 to below 1"),
        ({"share": None}, "share=None of rows left out: expected from 0 to below 1"),
        ({"key": 0}, "key=0: expected a random key"),
        ({"share": 0.99}, "num_clusters=3"),
        ({"num_init": 0}, "num_init"),
    ],
)
def test_impossible_options_are_refused_in_one_line(rows, key, changes, message):
    with pytest.raises(UserError, match=message) as raised:
        trimmed_kmeans(rows, 3, **{"key": key, "share": 0.1} | changes)
    assert "\n" not in str(raised.value)


def test_rows_that_are_not_finite_are_named(rows, key):
    damaged = rows.copy()
    damaged[17, 2] = np.nan
    with pytest.raises(UserError, match="17"):
        trimmed_kmeans(damaged, 3, key=key, share=0.1)


def test_the_tolerance_is_a_share_of_the_mean_variance_of_a_feature(rows, key):
    rows = np.random.default_rng(5).normal(size=rows.shape).astype(np.float32)  # slow to settle
    centroids = np.asarray(trimmed_kmeans(rows, 3, key=key, share=0.0, tol=0, max_iter=1).centroids)
    tol, num_iter = tolerance_between(rows, centroids, 3, 4)
    result = trimmed_kmeans(rows, 3, key=key, share=0.0, tol=tol)
    assert (int(result.num_iter), bool(result.converged)) == (1 + num_iter, True)
