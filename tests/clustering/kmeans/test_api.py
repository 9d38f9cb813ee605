"""k-means against scikit-learn, its own invariances, and the mistakes it names."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cgjax
from cgjax.clustering import KMeansResult, assign, kmeans
from cgjax.clustering.kmeans.sources import ArrayRows
from cgjax.errors import UserError
from tests.clustering.kmeans.helpers import blobs


def _inertia(points, centroids):
    points, centroids = np.asarray(points, np.float64), np.asarray(centroids, np.float64)
    return ((points[:, None] - centroids[None]) ** 2).sum(-1).min(1).sum()


def _sklearn(points, k, **options):
    from sklearn.cluster import KMeans

    options = {"n_init": 10, "max_iter": 100, "tol": 1e-4, "random_state": 0} | options
    return KMeans(k, **options).fit(np.asarray(points))


@pytest.fixture(scope="module")
def layers():
    generator = cgjax.load_generator("dcgan_faces")
    latents = generator.sample_latents(jax.random.key(0), 600)
    return {
        name: jnp.reshape(generator.features(latents, name), (600, -1))
        for name in ("layer1", "layer2")
    }


@pytest.mark.parametrize(("k", "planted"), [(1, 4), (2, 4), (4, 4), (9, 9)])
@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_inertia_equals_scikit_learns_on_blobs(k, planted, shift, key):
    points, _ = blobs(k=planted, shift=shift)
    result = kmeans(points, k, key=key)
    expected = _sklearn(points, k).inertia_
    assert abs(float(result.inertia) / expected - 1) <= 1e-4


@pytest.mark.parametrize("k", [2, 5])
def test_inertia_equals_scikit_learns_on_uniform_noise(k, key):
    points = np.random.default_rng(0).random((400, 3)).astype(np.float32)
    # No clusters: many local minima. With 60 restarts both find the best one.
    result = kmeans(points, k, key=key, num_init=60, tol=0.0)
    expected = _sklearn(points, k, n_init=60, tol=0.0).inertia_
    assert abs(float(result.inertia) / expected - 1) <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["layer1", "layer2"])
def test_inertia_equals_scikit_learns_on_the_embedded_generator(layers, layer, key):
    points = layers[layer]
    result = kmeans(points, 2, key=key, num_init=20)
    expected = _sklearn(points, 2, n_init=20).inertia_
    assert abs(float(result.inertia) / expected - 1) <= 1e-4


def test_planted_clusters_are_found(key):
    points, truth = blobs()
    labels = np.asarray(kmeans(points, 4, key=key).labels)
    pairs = {(a, b) for a, b in zip(labels, truth, strict=True)}
    assert len(pairs) == 4, "each cluster should be exactly one planted cluster"


def test_result_has_the_shapes_types_and_sums_it_promises(key):
    points, _ = blobs()
    result = kmeans(points, 4, key=key)
    assert isinstance(result, KMeansResult)
    assert result.centroids.shape == (4, 6)
    assert result.centroids.dtype == jnp.float32
    assert result.labels.dtype == jnp.int32
    assert result.margins.shape == result.labels.shape == (300,)
    assert bool(result.converged)
    assert 1 <= int(result.num_iter) <= 100
    assert result.inertias.shape == (10,)
    np.testing.assert_array_equal(result.counts, np.bincount(result.labels, minlength=4))
    np.testing.assert_allclose(result.inertia, _inertia(points, result.centroids), rtol=1e-5)


def test_clusters_are_ordered_by_descending_share_then_first_member(key):
    points = np.repeat([[0.0], [5.0], [9.0], [14.0]], [2, 5, 2, 3], axis=0).astype(np.float32)
    result = kmeans(points, 4, key=key)
    assert np.asarray(result.centroids).ravel().tolist() == [5.0, 14.0, 0.0, 9.0]
    assert result.counts.tolist() == [5, 3, 2, 2]


def test_same_key_gives_the_same_bytes(key):
    points, _ = blobs()
    first, second = (kmeans(points, 4, key=key) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_one_cluster_is_the_mean_with_zero_margins(key):
    points, _ = blobs(shift=50.0)
    result = kmeans(points, 1, key=key)
    np.testing.assert_allclose(result.centroids[0], points.mean(0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_array_equal(result.margins, np.zeros(300))


def test_as_many_clusters_as_points_gives_every_point_its_own(key):
    points = np.arange(6, dtype=np.float32)[:, None] ** 2
    result = kmeans(points, 6, key=key)
    assert float(result.inertia) == 0.0
    assert sorted(result.labels.tolist()) == list(range(6))


def test_constant_data_gives_one_occupied_cluster_and_zero_inertia(key):
    result = kmeans(np.full((20, 3), 7.25, np.float32), 3, key=key)
    assert float(result.inertia) == 0.0
    assert result.counts.tolist() == [20, 0, 0]
    assert np.isfinite(result.centroids).all()


def test_more_clusters_than_distinct_points_keeps_everything_finite(key):
    points = np.tile([[0.0, 0.1], [1.3, 0.0], [0.0, 1.7]], (10, 1)).astype(np.float32)
    result = kmeans(points, 5, key=key)
    assert float(result.inertia) < 1e-9
    assert sum(count > 0 for count in result.counts.tolist()) == 3
    assert np.isfinite(result.centroids).all()


def test_outliers_far_away_do_not_empty_a_cluster(key):
    points, _ = blobs(n=100)
    points[0] = 1e4
    result = kmeans(points, 5, key=key, num_init=3)
    assert int(result.counts.min()) > 0


def test_more_clusters_never_hurt(key):
    points, _ = blobs(spread=1.0)
    # Numbers that other tests compile too.
    inertias = [float(kmeans(points, k, key=key).inertia) for k in (1, 2, 4, 9)]
    assert inertias == sorted(inertias, reverse=True)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_permuting_points_permutes_labels(seed):
    points, _ = blobs(seed, n=120)
    order = np.random.default_rng(seed).permutation(120)
    first = kmeans(points, 4, key=jax.random.key(seed))
    second = kmeans(points[order], 4, key=jax.random.key(seed))
    # The same partition; ids may differ where two shares are equal.
    pairs = {
        (a, b)
        for a, b in zip(
            first.labels.tolist(), second.labels[np.argsort(order)].tolist(), strict=True
        )
    }
    assert len(pairs) == 4


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 100.0), st.floats(-100.0, 100.0))
def test_scaling_and_shifting_keep_labels(seed, scale, shift):
    points, _ = blobs(seed, n=120)
    first = kmeans(points, 4, key=jax.random.key(0))
    # A shift of 100 at scale 0.01 leaves 5 digits of each coordinate: enough for blobs.
    second = kmeans(points * np.float32(scale) + np.float32(shift), 4, key=jax.random.key(0))
    np.testing.assert_array_equal(first.labels, second.labels)


def test_given_centroids_are_where_it_starts(key):
    points, _ = blobs()
    best = kmeans(points, 4, key=key)
    again = kmeans(points, 4, key=key, init=best.centroids)
    assert int(again.num_iter) == 1
    np.testing.assert_array_equal(again.labels, best.labels)
    several = kmeans(points, 4, key=key, init=jnp.stack([best.centroids, points[:4]]))
    assert several.inertias.shape == (2,)


def test_feature_maps_are_flattened(key):
    points, _ = blobs(dim=12)
    flat = kmeans(points, 4, key=key)
    maps = kmeans(points.reshape(300, 2, 2, 3), 4, key=key)
    np.testing.assert_array_equal(flat.labels, maps.labels)
    np.testing.assert_array_equal(
        assign(points.reshape(300, 2, 2, 3), maps.centroids)[0], maps.labels
    )


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_clusters": 0}, "num_clusters=0"),
        ({"num_clusters": 301}, "only 300 features"),
        ({"num_clusters": 2.0}, "num_clusters=2.0"),
        ({"num_clusters": "2"}, "num_clusters='2'"),
        ({"num_clusters": (2, 2.5)}, "num_clusters=2.5"),
        ({"num_init": 0}, "num_init=0"),
        ({"num_init": 1.5}, "num_init=1.5"),
        ({"tol": "small"}, "tol='small'"),
        ({"tol": np.nan}, "tol=nan"),
        ({"init": np.full((2, 6), np.nan)}, "init holds NaN or Inf"),
        ({"max_iter": 0}, "max_iter=0"),
        ({"tol": -1.0}, "tol=-1.0"),
        ({"init": "kmeans"}, "k-means++, random"),
        ({"init": np.zeros((3, 6))}, "(3, 6)"),
        ({"backend": "torch"}, "jax, faiss"),
        ({"max_iter": 10**12}, "max_iter=1000000000000: expected a whole number of at least 1 and"),
        ({"tol": 10**400}, "tol=1"),
        ({"init": [[1.0], [2.0, 3.0]]}, "init's centroids are not an array"),
        ({"init": np.zeros((2, 6)) * 1j}, "init's centroids are complex128 numbers"),
        ({"init": None}, "init's centroids are None"),
        ({"weights": [None] * 300}, "weights are of type object: expected (300,)"),
        ({"weights": [[1.0], [1.0, 2.0]]}, "weights are not an array"),
        ({"weights": "abc"}, "weights are 'abc'"),
        ({"mesh": 2}, "mesh=2: expected a mesh of devices"),
    ],
)
def test_impossible_options_are_refused_in_one_line_with_what_to_type(change, message, key):
    points, _ = blobs()
    with pytest.raises(UserError, match=re.escape(message)) as error:
        kmeans(points, **({"num_clusters": 2, "key": key} | change))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("num_clusters", [2, 70])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_with_nan_or_inf_are_named(bad, num_clusters, key):
    points, _ = blobs()
    points[17, 2] = points[203, 0] = bad
    with pytest.raises(UserError, match="rows 17, 203"):
        kmeans(points, num_clusters, key=key)


def test_features_whose_squares_overflow_are_refused(key):
    points, _ = blobs()
    with pytest.raises(UserError, match="too large"):
        kmeans(points * np.float32(1e30), 2, key=key)


@pytest.mark.parametrize("num_clusters", [2, 70])
@pytest.mark.parametrize("scale", [1e-18, 1e-30])
def test_features_whose_squared_distances_underflow_are_refused(scale, num_clusters, key):
    points = blobs()[0] * np.float32(scale)
    for features in (points, ArrayRows(points, 64)):
        with pytest.raises(UserError, match="underflow float32; multiply the features by a const"):
            kmeans(features, num_clusters, key=key)


def test_features_that_are_all_equal_are_clustered(key):
    assert kmeans(np.full((5, 2), 1e-30, np.float32), 2, key=key).counts.tolist() == [5, 0]


def test_a_vector_is_refused(key):
    with pytest.raises(UserError, match=r"\(300,\)"):
        kmeans(np.zeros(300), 2, key=key)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("features", "message"),
    [
        ("words", "features are 'words': expected float32"),
        (None, "features are None: expected float32"),
        ([[1.0], [2.0, 3.0]], "features are not an array (lists of unequal lengths?): expected"),
        ([[None, 1.0]] * 4, "features are of type object: expected float32"),
        (np.full((4, 2), 1e300), "features hold numbers too large for float32 (3.4e38): divide"),
        (np.zeros((4, 0)), "features have shape (4, 0)"),
        (np.zeros((4, 2), complex), "complex128 numbers"),
        (np.full((4, 2), "a"), "features are of type <U1: expected float32"),
        (np.zeros((0, 2)), "no features to cluster"),
    ],
)
@pytest.mark.parametrize("backend", ["jax", "faiss"])
def test_features_that_are_not_numbers_are_refused_in_one_line(features, message, backend, key):
    if backend == "faiss":
        pytest.importorskip("faiss")
    with pytest.raises(UserError) as error:
        kmeans(features, 2, key=key, backend=backend)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.torch
@pytest.mark.usefixtures("untyped")
def test_tensors_of_torch_are_clustered_in_any_real_type(key):
    torch = pytest.importorskip("torch")
    points, _ = blobs()
    halved = torch.tensor(points, requires_grad=True).bfloat16()
    found = kmeans(halved, 4, key=key)
    own = kmeans(halved.detach().float().numpy(), 4, key=key)
    np.testing.assert_array_equal(found.labels, own.labels)
