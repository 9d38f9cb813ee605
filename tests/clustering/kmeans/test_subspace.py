"""Tracking products between two reads: the bound holds, and no row that matters is left out."""

import jax.numpy as jnp
import numpy as np
import pytest

from cgjax.clustering.kmeans import subspace
from cgjax.clustering.kmeans.rows import prepare
from cgjax.clustering.kmeans.state import may_change, nearest_labels
from tests.clustering.kmeans.helpers import init, step

NUM, DIM = 200, 640


def low_rank(seed: int = 0, rank: int = 8, noise: float = 0.3) -> np.ndarray:
    """Rows that mostly lie in a few directions, in overlapping groups."""
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(NUM, rank)) + 2.0 * rng.integers(0, 2, (NUM, rank))
    rows = factors @ rng.normal(size=(rank, DIM)) + noise * rng.normal(size=(NUM, DIM))
    return (rows - rows.mean(0)).astype(np.float32)


def exact_products(rows: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return <y, x> of all rows and points (r, k, f), in float64."""
    return np.einsum("nf,rkf->nrk", rows.astype(np.float64), points.astype(np.float64))


POINTS = {
    "rows": lambda rows: rows[:20],
    "one row many times": lambda rows: np.repeat(rows[:1], 20, axis=0),
    "rows and zeros": lambda rows: np.concatenate([rows[:10], np.zeros((10, DIM), np.float32)]),
    "zeros": lambda rows: np.zeros((20, DIM), np.float32),
    "a long one": lambda rows: np.concatenate([1e3 * rows[:1], rows[1:20]]),
    "none": lambda rows: rows[:0],
}


@pytest.mark.parametrize("name", POINTS)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_residual_of_a_product_is_within_the_bound(name, scale):
    rows = scale * low_rank()
    points = POINTS[name](rows)
    span = subspace.span(jnp.asarray(points), jnp.asarray(-2.0 * rows @ points.T))
    movement = (rows[:12] - rows[12:24]).reshape(3, 4, DIM)
    along = subspace.along(span, jnp.asarray(movement))
    change = np.asarray(subspace.change(span, along), np.float64)
    path = jnp.sqrt(subspace.pairs(jnp.asarray(movement)))
    left = subspace.residuals_of_pairs(jnp.asarray(movement), along, path)
    residual = np.asarray(
        subspace.residuals_of_rows(span, jnp.asarray(np.sum(np.square(rows), axis=1))), np.float64
    )

    error = -2.0 * exact_products(rows, movement) - change
    pairs = np.abs(error[:, :, :, None] - error[:, :, None, :])
    assert (pairs <= 2.0 * residual[:, None, None, None] * np.asarray(left)[None]).all()


def test_rows_in_the_span_have_small_residuals():
    rows = low_rank(noise=0.0)
    span = subspace.span(jnp.asarray(rows[:20]), jnp.asarray(-2.0 * rows @ rows[:20].T))
    squares = np.sum(rows**2, axis=1)
    residual = np.asarray(subspace.residuals_of_rows(span, jnp.asarray(squares)))
    assert (residual <= 0.1 * np.sqrt(squares)).all()


@pytest.mark.parametrize("method", ["k-means++", "random"])
@pytest.mark.parametrize("num_clusters", [2, 5])
@pytest.mark.parametrize("shift", [0.0, 50.0])
def test_rows_that_are_not_read_have_the_label_they_would_get(method, num_clusters, shift, key):
    rows = low_rank(seed=num_clusters) + shift
    data = prepare(jnp.asarray(rows))
    options = {"num_clusters": num_clusters, "num_init": 4, "method": method}
    state = init(data, key, **options)
    assert (state.subspace.coordinates.shape[1] > 0) == (method == "random" or num_clusters == 2)
    shares = []
    for number in range(12):
        is_open = np.asarray(may_change(state, data.squares, data.weights))
        is_running = ~np.asarray(state.is_done)
        # At first the products are those of the seeding, and nothing is open.
        if number and is_running.any():
            shares.append(is_open[:, is_running].mean())
        relative = rows.astype(np.float64) - np.asarray(data.offset, np.float64)
        centroids = np.asarray(state.centroids, np.float64)
        exact = np.sum(centroids**2, axis=2) - 2.0 * exact_products(relative, centroids)
        expected = np.argmin(exact, axis=2)
        known = np.asarray(nearest_labels(state, data.weights))
        is_kept = ~is_open & ~np.asarray(state.is_done)[None, :]
        np.testing.assert_array_equal(known[is_kept], expected[is_kept])
        state = step(data, state, tol=0.0)
    assert 0.0 < min(shares) < 0.5, "otherwise the bound is never put to use"
