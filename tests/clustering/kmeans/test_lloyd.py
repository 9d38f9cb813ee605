"""The iteration: sums, products and steps against numpy, alone, vmapped and padded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cgjax
from cgjax.clustering.kmeans import lloyd
from cgjax.clustering.kmeans.options import Options
from cgjax.clustering.kmeans.results import best_of
from cgjax.clustering.kmeans.rows import prepare, products
from cgjax.clustering.kmeans.sources import ArrayRows
from cgjax.clustering.kmeans.state import farthest, nearest_and_gap, start
from cgjax.clustering.kmeans.sums import Relabelling, sums
from tests.clustering.kmeans.helpers import blobs, init, starts, step, tolerance_between


@pytest.fixture(scope="module")
def layer1():
    generator = cgjax.load_generator("dcgan_faces")
    latents = generator.sample_latents(jax.random.key(0), 600)
    return jnp.reshape(generator.features(latents, "layer1"), (600, -1))


def test_empty_clusters_take_the_farthest_points():
    """Two of three centroids start far away from all points."""
    points = jnp.array([[0.0], [1.0], [2.0], [10.0], [20.0]])
    data = prepare(points)
    state = start(jnp.array([[[1.0], [1000.0], [2000.0]]]) - data.offset[0], data.squares)
    after = step(data, state)
    np.testing.assert_allclose(starts(data, after)[0, :, 0], [6.6, 20.0, 10.0], rtol=1e-6)
    assert int(lloyd.assign_best(points, best_of(after, data.offset)).counts.min()) > 0


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_objective_never_rises(seed):
    points = jnp.array(np.random.default_rng(seed).normal(size=(60, 3)).astype(np.float32))
    data = prepare(points)
    state = init(data, jax.random.key(seed), num_clusters=4, num_init=3, method="random")
    previous = np.full(3, np.inf)
    for _ in range(8):
        state = step(data, state, tol=0.0)
        # Sums of 60 float32 terms: rounding of 1e-6.
        assert (np.asarray(state.inertias) <= previous * (1 + 1e-6)).all()
        previous = np.asarray(state.inertias)


@pytest.mark.parametrize("k", [1, 2, 7, 64])
def test_nearest_and_gap_are_those_of_a_sort(k):
    values = np.random.default_rng(k).integers(0, 9, (50, 3, k)).astype(np.float32)
    nearest, gap = nearest_and_gap(jnp.array(values))
    np.testing.assert_array_equal(nearest, values.argmin(2))
    ordered = np.sort(np.pad(values, [(0, 0), (0, 0), (0, 1)], constant_values=np.inf), axis=2)
    np.testing.assert_array_equal(gap, ordered[:, :, 1] - ordered[:, :, 0])


@pytest.mark.parametrize("num_points", [1, 64, 70, 128])
def test_products_of_any_number_of_points_are_those_of_float64(num_points):
    rng = np.random.default_rng(num_points)
    data = prepare(jnp.array(rng.normal(1.0, 1.0, (300, 33)), jnp.float32))
    points = rng.normal(size=(num_points, 33)).astype(np.float32)
    rows = np.asarray(data.features, np.float64) - np.asarray(data.offset, np.float64)
    np.testing.assert_allclose(products(data, jnp.array(points)), -2.0 * rows @ points.T, atol=1e-4)


@pytest.mark.parametrize("num_init", [1, 10])
@pytest.mark.parametrize("share", [0.02, 0.3, 1.0])
def test_sums_follow_the_rows_that_moved(share, num_init):
    """One by one, by products of the rows that moved, and by a product of all."""
    rng = np.random.default_rng(0)
    data = prepare(jnp.array(rng.normal(0.5, 1.0, (600, 7)), jnp.float32))
    before = rng.integers(-1, 4, (600, num_init))
    is_moved = rng.random((600, 1)) < share
    # All restarts of a row move, or few of them.
    for is_other in (is_moved, is_moved & (rng.random((600, num_init)) < 2.0 / num_init)):
        after = np.where(is_other, rng.integers(0, 4, (600, num_init)), before)
        rows = np.asarray(data.features) - np.asarray(data.offset)
        old, new = (
            np.stack([[rows[of[:, r] == c].sum(0) for c in range(4)] for r in range(num_init)])
            for of in (before, after)
        )
        before_, after_ = (jnp.array(of, jnp.int32) for of in (before, after))
        change = Relabelling(after_, before_, jnp.array(old))
        (total,) = jax.jit(sums)(data, (change,))
        np.testing.assert_allclose(total, new, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("share", [0.02, 1.0])
def test_sums_of_many_clusters_are_those_of_their_rows(share):
    rng = np.random.default_rng(1)
    data = prepare(jnp.array(rng.normal(0.5, 1.0, (600, 7)), jnp.float32))
    rows = np.asarray(data.features) - np.asarray(data.offset)
    changes, expected = [], []
    for k, num_init in ((256, 2), (300, 1)):
        before = rng.integers(-1, k, (600, num_init))
        is_moved = rng.random((600, num_init)) < share
        after = np.where(is_moved, rng.integers(0, k, (600, num_init)), before)
        old, new = (
            np.stack([[rows[of[:, r] == c].sum(0) for c in range(k)] for r in range(num_init)])
            for of in (before, after)
        )
        before_, after_ = (jnp.array(of, jnp.int32) for of in (before, after))
        changes.append(Relabelling(after_, before_, jnp.array(old)))
        expected.append(new)
    for total, new in zip(jax.jit(sums)(data, changes), expected, strict=True):
        np.testing.assert_allclose(total, new, rtol=1e-4, atol=1e-4)


def test_every_iteration_is_that_of_a_float64_loop_on_the_embedded_generator(layer1):
    points = np.asarray(layer1, np.float64)
    data = prepare(layer1)
    centroids = points[np.random.default_rng(1).choice(600, 8, replace=False)]
    state = start(jnp.array(centroids, jnp.float32)[None] - data.offset[None, None], data.squares)
    squares = (points**2).sum(1)[:, None]
    for _ in range(12):
        state = step(data, state, tol=0.0)
        labels = (squares - 2 * points @ centroids.T + (centroids**2).sum(1)).argmin(1)
        np.testing.assert_array_equal(state.labels[:, 0], labels)
        centroids = np.stack([points[labels == c].mean(0) for c in range(8)])
        np.testing.assert_allclose(starts(data, state)[0], centroids, atol=1e-5)


def test_kmeans_agrees_with_a_numpy_loop_from_the_same_start():
    points, _ = blobs(spread=1.5)
    data = prepare(jnp.array(points))
    state = init(data, jax.random.key(3), num_clusters=4, num_init=1, method="random")
    centroids = np.asarray(starts(data, state)[0], np.float64)
    (state,) = lloyd.iterate(data, (state,), Options((4,), max_iter=100, tol=0.0))
    for _ in range(100):
        labels = ((points[:, None] - centroids[None]) ** 2).sum(-1).argmin(1)
        centroids = np.stack([points[labels == c].mean(0, dtype=np.float64) for c in range(4)])
    np.testing.assert_allclose(starts(data, state)[0], centroids, atol=1e-5)


MANY = 70  # of 6 features: too many to be tracked


def test_many_clusters_are_not_tracked_and_every_iteration_is_that_of_a_float64_loop():
    """Two restarts of rows far from the origin; the last 100 rows are padding."""
    points = blobs(n=1_000, k=200, spread=1.0, shift=100.0)[0]
    weights = (jnp.arange(1_000) < 900).astype(jnp.float32)
    data = prepare(jnp.array(points), weights)
    rng = np.random.default_rng(1)
    first = np.stack([points[rng.choice(900, MANY, replace=False)] for _ in range(2)])
    options = Options((MANY,), tol=0.0, centroids=jnp.array(first))
    (state,) = lloyd.init(data, jax.random.key(0), options)
    assert state.products.shape == (1_000, 2, 0)
    real, centroids = points[:900].astype(np.float64), first.astype(np.float64)
    for _ in range(8):
        state = step(data, state, tol=0.0)
        for r in range(2):
            labels = ((real[:, None] - centroids[r]) ** 2).sum(2).argmin(1)
            np.testing.assert_array_equal(state.labels[:900, r], labels)
            centroids[r] = [real[labels == c].mean(0) for c in range(MANY)]
        assert (np.asarray(state.labels[900:]) == -1).all()
        np.testing.assert_allclose(starts(data, state), centroids, atol=1e-4)


@pytest.mark.parametrize("method", ["k-means++", "random"])
def test_many_clusters_are_those_that_tracking_finds(method, monkeypatch, key):
    """Until all restarts have converged, the sooner ones waiting; the larger number shares them."""
    points = jnp.array(blobs(n=800, k=200, spread=1.0)[0])
    options = Options((MANY, MANY + 9), num_init=3, method=method, max_iter=50)
    free = lloyd.fit(points, key, options)
    monkeypatch.setattr(lloyd, "_MANY", 10**6)
    for found, expected in zip(free, lloyd.fit(points, key, options), strict=True):
        np.testing.assert_array_equal(found.labels, expected.labels)
        np.testing.assert_allclose(found.inertias, expected.inertias, rtol=1e-5)
        assert bool(found.converged)
        assert int(found.num_iter) == int(expected.num_iter)


def test_empty_clusters_among_many_take_the_farthest_points():
    points = jnp.arange(100.0)[:, None]
    first = jnp.concatenate([points[:MANY], jnp.full((1, 1), 1e4)])
    options = Options((MANY + 1,), centroids=first[None])
    data = prepare(points)
    (state,) = lloyd.init(data, jax.random.key(0), options)
    after = starts(data, step(data, state))[0, :, 0]
    # All rows above the last centroid are its own, and 99 is the farthest of them.
    np.testing.assert_allclose(after, [*range(MANY - 1), 84.0, 99.0], rtol=1e-5)


def test_vmapped_over_independent_problems_equals_a_loop():
    problems = jnp.stack([jnp.array(blobs(seed, n=80)[0]) for seed in range(3)])
    keys = jax.random.split(jax.random.key(0), 3)

    def solve(points, key):
        return lloyd.fit(points, key, Options((3,), num_init=4))[0]

    together = jax.jit(jax.vmap(solve))(problems, keys)
    for i in range(3):
        alone = jax.jit(solve)(problems[i], keys[i])
        np.testing.assert_array_equal(together.labels[i], alone.labels)
        np.testing.assert_allclose(together.centroids[i], alone.centroids, atol=1e-5)
        assert int(together.num_iter[i]) == int(alone.num_iter)


def test_padded_rows_count_for_nothing(key):
    points, _ = blobs(n=100)
    padded = jnp.concatenate([jnp.array(points), jnp.full((37, 6), 50.0)])
    weights = (jnp.arange(137) < 100).astype(jnp.float32)
    fit = jax.jit(lambda points, **given: lloyd.fit(points, key, Options((4,)), **given))
    (result,), (expected,) = fit(padded, weights=weights), fit(jnp.array(points))
    np.testing.assert_array_equal(result.labels[:100], expected.labels)
    np.testing.assert_allclose(result.centroids, expected.centroids, atol=1e-5)
    np.testing.assert_allclose(result.inertia, expected.inertia, rtol=1e-5)


@pytest.mark.parametrize("k", [4, 70])
@pytest.mark.parametrize(
    "given", [jnp.asarray, lambda points: ArrayRows(points, 64)], ids=["held", "streamed"]
)
def test_the_tolerance_is_a_share_of_the_mean_variance_of_a_feature(k, given):
    points = np.random.default_rng(7).normal(size=(300, 6)).astype(np.float32)
    begin = points[:k]
    tol, num_iter = tolerance_between(points, begin, 3, 4)
    found = cgjax.kmeans(given(points), k, key=jax.random.key(0), init=begin, tol=tol)
    assert (int(found.num_iter), bool(found.converged)) == (num_iter, True)


def test_a_row_at_its_centroid_is_not_far_whatever_rounding_says():
    # Far from the offset half a unit is rounding of what is subtracted.
    squares = jnp.array([1e6, 1.0, 4.0], jnp.float32)
    distances = jnp.array([[0.5], [0.2], [0.1]], jnp.float32)
    state = start(jnp.zeros((1, 2, 3), jnp.float32), squares)
    rows, is_mine = farthest(state, squares, jnp.ones(3, jnp.float32), distances)
    assert rows.tolist() == [[1, 2]]
    assert is_mine.all()
