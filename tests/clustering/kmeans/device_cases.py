"""Clustering over several devices compared with one, also for processes with more devices."""

import jax
import numpy as np

from cgjax.clustering import kmeans
from cgjax.runtime.mesh import data_mesh


def points(n, dim=5):
    """Three overlapping groups on a diagonal."""
    rng = np.random.default_rng(n)
    return (rng.normal(size=(n, dim)) + 3.0 * rng.integers(0, 3, (n, 1))).astype(np.float32)


def compare(num_devices, n, k, *, dim=5, **options):
    """Assert that several devices find what one does.

    In eighths: their sums are exact in any order, and if n is a power of two so are those of
    centred rows. Then no near tie of two centroids depends on how many devices added up the rows.
    """
    options = {"num_init": 4, "key": jax.random.key(0)} | options
    rows = np.round(8 * points(n, dim)) / 8
    one = kmeans(rows, k, **options)
    many = kmeans(rows, k, mesh=data_mesh(num_devices), **options)
    pairs = [(many, one)] if isinstance(k, int) else list(zip(many, one, strict=True))
    for many, one in pairs:
        _assert_same(many, one, n)


def _assert_same(many, one, n):
    np.testing.assert_array_equal(many.labels, one.labels)
    np.testing.assert_array_equal(many.counts, one.counts)
    # Sums of up to a hundred float32 numbers in another order.
    np.testing.assert_allclose(many.centroids, one.centroids, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(many.margins, one.margins, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(many.inertias, one.inertias, rtol=1e-5, atol=1e-6)
    assert many.margins.shape == (n,)
