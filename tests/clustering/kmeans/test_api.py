"""k-means against scikit-learn, a numpy loop, and its own invariances."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cgjax
from cgjax.clustering import KMeansResult, assign, kmeans
from cgjax.clustering.kmeans import lloyd, seeding
from cgjax.clustering.kmeans.rows import centred, prepare, products, sums
from cgjax.clustering.kmeans.state import nearest_and_gap, start
from cgjax.errors import UserError

_init = jax.jit(lloyd.init, static_argnames=("num_clusters", "num_init", "method"))
_step = jax.jit(lloyd.step)


def _blobs(seed=0, n=300, k=4, dim=6, spread=0.3, shift=0.0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(k, dim)) * 3.0
    labels = rng.integers(0, k, n)
    points = centres[labels] + spread * rng.normal(size=(n, dim)) + shift
    return points.astype(np.float32), labels


def _starts(data, state):
    """The centroids of all restarts in the coordinates of the data."""
    return np.asarray(state.centroids) + np.asarray(data.offset)


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
    points, _ = _blobs(k=planted, shift=shift)
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
    points, truth = _blobs()
    labels = np.asarray(kmeans(points, 4, key=key).labels)
    pairs = {(a, b) for a, b in zip(labels, truth, strict=True)}
    assert len(pairs) == 4, "each found cluster should be exactly one planted cluster"


def test_result_has_the_shapes_types_and_sums_it_promises(key):
    points, _ = _blobs()
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
    points, _ = _blobs()
    first, second = (kmeans(points, 4, key=key) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_one_cluster_is_the_mean_with_zero_margins(key):
    points, _ = _blobs(shift=50.0)
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


def test_empty_clusters_take_the_farthest_points():
    """Two of three centroids start far away from all points."""
    points = jnp.array([[0.0], [1.0], [2.0], [10.0], [20.0]])
    data = prepare(points)
    state = start(jnp.array([[[1.0], [1000.0], [2000.0]]]) - data.offset[0], data.squares)
    after = _step(data, state)
    np.testing.assert_allclose(_starts(data, after)[0, :, 0], [6.6, 20.0, 10.0], rtol=1e-6)
    assert int(lloyd.finish(data, after).counts.min()) > 0


def test_outliers_far_away_do_not_empty_a_cluster(key):
    points, _ = _blobs(n=100)
    points[0] = 1e4
    result = kmeans(points, 5, key=key, num_init=3)
    assert int(result.counts.min()) > 0


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_objective_never_rises(seed):
    points = jnp.array(np.random.default_rng(seed).normal(size=(60, 3)).astype(np.float32))
    data = prepare(points)
    state = _init(data, jax.random.key(seed), num_clusters=4, num_init=3, method="random")
    previous = np.full(3, np.inf)
    for _ in range(8):
        state = _step(data, state, tol=0.0)
        # Sums of 60 float32 terms: rounding of 1e-6.
        assert (np.asarray(state.inertias) <= previous * (1 + 1e-6)).all()
        previous = np.asarray(state.inertias)


def test_more_clusters_never_hurt(key):
    points, _ = _blobs(spread=1.0)
    inertias = [float(kmeans(points, k, key=key, num_init=20).inertia) for k in (1, 2, 3, 5, 8)]
    assert inertias == sorted(inertias, reverse=True)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_permuting_points_permutes_labels(seed):
    points, _ = _blobs(seed, n=120)
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
    points, _ = _blobs(seed, n=120)
    first = kmeans(points, 4, key=jax.random.key(0))
    # A shift of 100 at scale 0.01 leaves 5 digits of each coordinate: enough for blobs.
    second = kmeans(points * np.float32(scale) + np.float32(shift), 4, key=jax.random.key(0))
    np.testing.assert_array_equal(first.labels, second.labels)


@pytest.mark.parametrize("method", ["k-means++", "random"])
def test_every_restart_starts_from_different_rows_of_the_data(method, key):
    points = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    data = prepare(jnp.array(points))
    state = _init(data, key, num_clusters=4, num_init=6, method=method)
    starts = _starts(data, state)
    distance = np.abs(starts[:, :, None] - points[None, None]).max(-1)
    assert distance.min(-1).max() < 1e-6, "each centre is a row"
    rows = distance.argmin(-1)
    assert all(len(set(row)) == 4 for row in rows.tolist()), "no row twice in one restart"
    assert len({tuple(row) for row in rows.tolist()}) == 6, "restarts differ"


def test_greedy_seeding_starts_closer_than_random_rows(key):
    points, _ = _blobs(n=400, k=8, spread=0.1)
    data = prepare(jnp.array(points))
    mean = {}
    for method in ("k-means++", "random"):
        state = _init(data, key, num_clusters=8, num_init=20, method=method)
        mean[method] = float(jnp.mean(_step(data, state).inertias))
    assert mean["k-means++"] < 0.2 * mean["random"]


def test_seeding_draws_in_proportion_to_the_squared_distance():
    """With one trial and three points, the second centre's law is known exactly."""
    points = jnp.array([[0.0], [1.0], [3.0]])
    data = prepare(points)
    num = 3000
    state = _init(data, jax.random.key(1), num_clusters=2, num_init=num)
    starts = np.rint(_starts(data, state)[:, :, 0]).astype(int)
    first = np.bincount(starts[:, 0], minlength=4)[[0, 1, 3]] / num
    # Three standard deviations of a share of 1/3 among 3,000 draws are 0.026.
    np.testing.assert_allclose(first, 1 / 3, atol=0.027)
    # From 0: the others have probability 0.1 (for 1) and 0.9 (for 3). Two trials and greedy choice:
    # 3 leaves a potential of 1, and 1 leaves 4, so 1 is taken only when drawn twice: 0.01.
    from_zero = starts[starts[:, 0] == 0, 1]
    assert abs((from_zero == 1).mean() - 0.01) < 0.01


def _law_of_starts(columns, monkeypatch):
    """How often each set of three rows of eight is chosen, by what share of 8,000 keys."""
    monkeypatch.setattr(seeding, "_COLUMNS", columns)
    points = jnp.array([[0.0], [1.0], [1.5], [4.0], [4.5], [7.0], [9.0], [9.5]])
    data = prepare(points)

    def chosen(key):
        return seeding.seed_plus_plus(data, key, num_clusters=3, num_init=1)[0].centroids[0, :, 0]

    starts = jax.jit(jax.vmap(chosen))(jax.random.split(jax.random.key(columns), 8000))
    starts = np.asarray(starts) + np.asarray(data.offset)
    rows = np.abs(starts[:, :, None] - np.ravel(points)).argmin(-1)
    assert (np.diff(np.sort(rows), axis=1) > 0).all(), "no row twice"
    sets = (2 ** rows.astype(int)).sum(1)
    return np.bincount(sets, minlength=256) / len(sets)


def test_centres_that_share_a_read_have_the_law_of_centres_with_their_own(monkeypatch):
    own = _law_of_starts(1, monkeypatch)
    shared = _law_of_starts(32, monkeypatch)
    assert np.count_nonzero(own > 0.02) > 8, "many outcomes"
    # Five standard deviations of the difference of two shares of at most 0.2 are 0.032.
    np.testing.assert_allclose(shared, own, atol=0.032)


def test_one_read_serves_several_centres():
    points = jnp.array(_blobs(k=16)[0])
    drawing, keeping = seeding.uniforms(jax.random.key(0), num_clusters=16, num_init=1)
    data, trials = prepare(points), seeding.num_trials(16)
    centres = centred(data, jnp.array([0]))
    same = {"squares": data.squares, "weights": data.weights}
    seeds = seeding.first_seeds(centres, products(data, centres), num_clusters=16, **same)
    row, _ = seeding.draw(drawing[1], seeds.closest.T)
    closest = jnp.take_along_axis(seeds.closest, row, axis=1)
    candidates = seeding.fresh_candidates(centred(data, row), closest, keeping[1])
    product = products(data, candidates.rows[0])
    found = seeding.choose(seeds, candidates, product, trials=trials, **same)
    assert candidates.rows.shape[1] == 16 * trials
    assert int(found.num_chosen) >= 3, "two or more after the first"
    centres = found.centroids[0, : int(found.num_chosen)]
    distance = jnp.sum(jnp.square(centred(data, jnp.arange(300))[:, None] - centres[None]), axis=2)
    np.testing.assert_allclose(found.closest[0], jnp.min(distance, axis=1), rtol=1e-4, atol=1e-4)
    known = found.products[0, : int(found.num_chosen)]
    np.testing.assert_allclose(known, products(data, centres).T, rtol=1e-4, atol=1e-4)


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
        found = jax.jit(sums, static_argnames="num_clusters")(
            data, (after_,), num_clusters=(4,), old_labels=(before_,), old_sums=(jnp.array(old),)
        )
        np.testing.assert_allclose(found[0], new, rtol=1e-4, atol=1e-4)


def test_every_iteration_is_that_of_a_float64_loop_on_the_embedded_generator(layers):
    points = np.asarray(layers["layer1"], np.float64)
    data = prepare(layers["layer1"])
    centroids = points[np.random.default_rng(1).choice(600, 8, replace=False)]
    state = start(jnp.array(centroids, jnp.float32)[None] - data.offset[None, None], data.squares)
    squares = (points**2).sum(1)[:, None]
    for _ in range(12):
        state = _step(data, state, tol=0.0)
        labels = (squares - 2 * points @ centroids.T + (centroids**2).sum(1)).argmin(1)
        np.testing.assert_array_equal(state.labels[:, 0], labels)
        centroids = np.stack([points[labels == c].mean(0) for c in range(8)])
        np.testing.assert_allclose(_starts(data, state)[0], centroids, atol=1e-5)


def test_kmeans_agrees_with_a_numpy_loop_from_the_same_start():
    points, _ = _blobs(spread=1.5)
    data = prepare(jnp.array(points))
    state = _init(data, jax.random.key(3), num_clusters=4, num_init=1, method="random")
    centroids = np.asarray(_starts(data, state)[0], np.float64)
    (state,) = lloyd.iterate(data, (state,), max_iter=100, tol=0.0)
    for _ in range(100):
        labels = ((points[:, None] - centroids[None]) ** 2).sum(-1).argmin(1)
        centroids = np.stack([points[labels == c].mean(0, dtype=np.float64) for c in range(4)])
    np.testing.assert_allclose(_starts(data, state)[0], centroids, atol=1e-5)


def test_given_centroids_are_where_it_starts(key):
    points, _ = _blobs()
    best = kmeans(points, 4, key=key)
    again = kmeans(points, 4, key=key, init=best.centroids)
    assert int(again.num_iter) == 1
    np.testing.assert_array_equal(again.labels, best.labels)
    several = kmeans(points, 4, key=key, init=jnp.stack([best.centroids, points[:4]]))
    assert several.inertias.shape == (2,)


def test_feature_maps_are_flattened(key):
    points, _ = _blobs(dim=12)
    flat = kmeans(points, 4, key=key)
    maps = kmeans(points.reshape(300, 2, 2, 3), 4, key=key)
    np.testing.assert_array_equal(flat.labels, maps.labels)
    np.testing.assert_array_equal(
        assign(points.reshape(300, 2, 2, 3), maps.centroids)[0], maps.labels
    )


def test_vmapped_over_independent_problems_equals_a_loop():
    problems = jnp.stack([jnp.array(_blobs(seed, n=80)[0]) for seed in range(3)])
    keys = jax.random.split(jax.random.key(0), 3)

    def solve(points, key):
        return lloyd.fit(points, key, num_clusters=3, num_init=4)

    together = jax.jit(jax.vmap(solve))(problems, keys)
    for i in range(3):
        alone = jax.jit(solve)(problems[i], keys[i])
        np.testing.assert_array_equal(together.labels[i], alone.labels)
        np.testing.assert_allclose(together.centroids[i], alone.centroids, atol=1e-5)
        assert int(together.num_iter[i]) == int(alone.num_iter)


def test_padded_rows_count_for_nothing(key):
    points, _ = _blobs(n=100)
    padded = jnp.concatenate([jnp.array(points), jnp.full((37, 6), 50.0)])
    weights = (jnp.arange(137) < 100).astype(jnp.float32)
    result = lloyd.fit(padded, key, num_clusters=4, weights=weights)
    expected = lloyd.fit(jnp.array(points), key, num_clusters=4)
    np.testing.assert_array_equal(result.labels[:100], expected.labels)
    np.testing.assert_allclose(result.centroids, expected.centroids, atol=1e-5)
    np.testing.assert_allclose(result.inertia, expected.inertia, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_clusters": 0}, "num_clusters=0"),
        ({"num_clusters": 301}, "only 300 features"),
        ({"num_init": 0}, "num_init=0"),
        ({"max_iter": 0}, "max_iter=0"),
        ({"tol": -1.0}, "tol=-1.0"),
        ({"init": "kmeans"}, "k-means++, random"),
        ({"init": np.zeros((3, 6))}, "(3, 6)"),
        ({"backend": "torch"}, "jax, faiss"),
    ],
)
def test_impossible_options_are_refused_in_one_line_with_what_to_type(change, message, key):
    points, _ = _blobs()
    with pytest.raises(UserError, match=re.escape(message)) as error:
        kmeans(points, **({"num_clusters": 2, "key": key} | change))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_with_nan_or_inf_are_named(bad, key):
    points, _ = _blobs()
    points[17, 2] = points[203, 0] = bad
    with pytest.raises(UserError, match="rows 17, 203"):
        kmeans(points, 2, key=key)


def test_features_whose_squares_overflow_are_refused(key):
    points, _ = _blobs()
    with pytest.raises(UserError, match="too large"):
        kmeans(points * np.float32(1e30), 2, key=key)


def test_a_vector_is_refused(key):
    with pytest.raises(UserError, match=r"\(300,\)"):
        kmeans(np.zeros(300), 2, key=key)


def test_assign_agrees_with_the_fit_to_the_last_bit(key):
    points, _ = _blobs(spread=2.0)
    result = kmeans(points, 4, key=key)
    labels, margins = assign(points, result.centroids)
    np.testing.assert_array_equal(labels, result.labels)
    np.testing.assert_array_equal(margins, result.margins)


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_assign_does_not_depend_on_the_batch(batch):
    points, _ = _blobs(n=128, spread=2.0)
    centroids = jnp.array(points[:5])
    expected = assign(points, centroids)
    for begin in range(0, 128 - 128 % batch, batch):
        labels, margins = assign(points[begin : begin + batch], centroids)
        np.testing.assert_array_equal(labels, expected[0][begin : begin + batch])
        np.testing.assert_allclose(margins, expected[1][begin : begin + batch], atol=1e-5)


def test_margins_are_differences_of_distances_also_far_from_the_origin():
    points, _ = _blobs(n=200, dim=64, spread=2.0, shift=1000.0)
    centroids = jnp.array(points[:6])
    labels, margins = assign(points, centroids)
    exact = np.sqrt(
        ((points[:, None].astype(np.float64) - np.asarray(centroids)[None]) ** 2).sum(-1)
    )
    two = np.sort(exact, 1)[:, :2]
    np.testing.assert_array_equal(labels, exact.argmin(1))
    # The coordinates are exact; distances of about 20 with float32 rounding of their squares.
    np.testing.assert_allclose(margins, two[:, 1] - two[:, 0], atol=1e-4)


def test_assign_gives_ties_to_the_lowest_id_with_margin_zero():
    labels, margins = assign(jnp.array([[0.0], [3.0]]), jnp.array([[1.0], [-1.0], [1.0]]))
    assert labels.tolist() == [0, 0]
    assert margins.tolist() == [0.0, 0.0]


def test_assign_takes_an_empty_batch():
    labels, margins = assign(jnp.zeros((0, 3)), jnp.ones((2, 3)))
    assert labels.shape == margins.shape == (0,)
