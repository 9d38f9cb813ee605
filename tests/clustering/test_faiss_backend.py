"""The optional FAISS path: the same contract, or one line saying what to install."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgjax.clustering import assign, kmeans
from cgjax.clustering.faiss_backend import nearest_faiss
from cgjax.errors import UserError
from cgjax.kernels.distance import nearest


def _points(shift=0.0):
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 8)) * 4.0
    return (centres[rng.integers(0, 3, 2000)] + rng.normal(size=(2000, 8)) + shift).astype("f4")


@pytest.mark.faiss
@pytest.mark.parametrize("shift", [0.0, 300.0])
def test_faiss_and_jax_find_the_same_clusters(shift, key):
    pytest.importorskip("faiss")
    ours, theirs = (kmeans(_points(shift), 3, key=key, backend=b) for b in ("jax", "faiss"))
    # Both are fixed points of the same iteration; ours stops at a tolerance of 1e-4.
    assert abs(float(theirs.inertia) / float(ours.inertia) - 1) < 1e-3
    assert (np.asarray(ours.labels) == np.asarray(theirs.labels)).mean() > 0.99
    assert bool(theirs.converged)
    labels, margins = assign(_points(shift), theirs.centroids)
    np.testing.assert_array_equal(labels, theirs.labels)
    np.testing.assert_array_equal(margins, theirs.margins)


@pytest.mark.faiss
def test_faiss_uses_every_point(key):
    """By default it would train two clusters on 512 points: the outliers would be missed."""
    pytest.importorskip("faiss")
    points = np.concatenate([_points()[:, :2] * 0.01, np.full((3, 2), 50.0, np.float32)])
    result = kmeans(points, 2, key=key, backend="faiss", num_init=20)
    assert result.counts.tolist() == [2000, 3]


@pytest.mark.faiss
def test_nearest_by_faiss_equals_ours(key):
    pytest.importorskip("faiss")
    queries = 100.0 + jax.random.normal(key, (50, 16))
    base = 100.0 + jax.random.normal(jax.random.key(1), (200, 16))
    ours, theirs = nearest(queries, base), nearest_faiss(queries, base)
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-4)


def test_without_faiss_the_error_names_the_extra(monkeypatch, key):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UserError, match=r"cgjax\[faiss\]") as error:
        kmeans(jnp.ones((5, 2)), 2, key=key, backend="faiss")
    assert "\n" not in str(error.value)
