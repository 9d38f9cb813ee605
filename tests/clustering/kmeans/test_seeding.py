"""Starting centroids: the law of greedy k-means++, and passes over the data that are shared."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgjax.clustering.kmeans import seeding
from cgjax.clustering.kmeans.options import Options
from cgjax.clustering.kmeans.rows import centred, prepare, products
from tests.clustering.kmeans.helpers import blobs, init, starts, step


@pytest.mark.parametrize("method", ["k-means++", "random"])
def test_every_restart_starts_from_different_rows_of_the_data(method, key):
    points = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    data = prepare(jnp.array(points))
    state = init(data, key, num_clusters=4, num_init=6, method=method)
    chosen = starts(data, state)
    distance = np.abs(chosen[:, :, None] - points[None, None]).max(-1)
    assert distance.min(-1).max() < 1e-6, "each centre is a row"
    rows = distance.argmin(-1)
    assert all(len(set(row)) == 4 for row in rows.tolist()), "no row twice in one restart"
    assert len({tuple(row) for row in rows.tolist()}) == 6, "restarts differ"


def test_greedy_seeding_starts_closer_than_random_rows(key):
    points, _ = blobs(n=400, k=8, spread=0.1)
    data = prepare(jnp.array(points))
    mean = {}
    for method in ("k-means++", "random"):
        state = init(data, key, num_clusters=8, num_init=20, method=method)
        mean[method] = float(jnp.mean(step(data, state).inertias))
    assert mean["k-means++"] < 0.2 * mean["random"]


def test_seeding_draws_in_proportion_to_the_squared_distance():
    """With one trial and three points, the second centre's law is known exactly."""
    points = jnp.array([[0.0], [1.0], [3.0]])
    data = prepare(points)
    num = 3000
    state = init(data, jax.random.key(1), num_clusters=2, num_init=num)
    chosen = np.rint(starts(data, state)[:, :, 0]).astype(int)
    first = np.bincount(chosen[:, 0], minlength=4)[[0, 1, 3]] / num
    # Three standard deviations of a share of 1/3 among 3,000 draws are 0.026.
    np.testing.assert_allclose(first, 1 / 3, atol=0.027)
    # From 0: the others have probability 0.1 (for 1) and 0.9 (for 3). Two trials and greedy choice:
    # 3 leaves a potential of 1, and 1 leaves 4, so 1 is taken only when drawn twice: 0.01.
    from_zero = chosen[chosen[:, 0] == 0, 1]
    assert abs((from_zero == 1).mean() - 0.01) < 0.01


def _law_of_starts(columns, monkeypatch):
    """How often each set of three rows of eight is chosen, by what share of 8,000 keys."""
    monkeypatch.setattr(seeding, "_COLUMNS", columns)
    points = jnp.array([[0.0], [1.0], [1.5], [4.0], [4.5], [7.0], [9.0], [9.5]])
    data = prepare(points)

    def chosen(key):
        return seeding.seed_plus_plus(data, key, Options((3,), num_init=1))[0].centroids[0, :, 0]

    rows = jax.jit(jax.vmap(chosen))(jax.random.split(jax.random.key(columns), 8000))
    rows = np.asarray(rows) + np.asarray(data.offset)
    rows = np.abs(rows[:, :, None] - np.ravel(points)).argmin(-1)
    assert (np.diff(np.sort(rows), axis=1) > 0).all(), "no row twice"
    sets = (2 ** rows.astype(int)).sum(1)
    return np.bincount(sets, minlength=256) / len(sets)


def test_centres_that_share_a_pass_have_the_law_of_centres_with_their_own(monkeypatch):
    own = _law_of_starts(1, monkeypatch)
    shared = _law_of_starts(32, monkeypatch)
    assert np.count_nonzero(own > 0.02) > 8, "many outcomes"
    # Five standard deviations of the difference of two shares of at most 0.2 are 0.032.
    np.testing.assert_allclose(shared, own, atol=0.032)


def test_one_pass_serves_several_centres():
    points = jnp.array(blobs(k=16)[0])
    drawing, keeping = seeding.uniforms(jax.random.key(0), Options((16,), num_init=1))
    data = prepare(points)
    centres = centred(data, jnp.array([0]))
    norms = {"squares": data.squares, "weights": data.weights}
    seeds = seeding.first_seeds(centres, products(data, centres), num_clusters=16, **norms)
    (row, _), closest = seeding.draw_candidates(drawing.at(1), seeds.closest)
    candidates = seeding.Candidates(centred(data, row), closest, keeping[1])
    product = products(data, candidates.rows[0])
    after = seeding.choose(seeds, candidates, product, **norms)
    assert candidates.rows.shape[1] == 16 * seeding.num_trials(16)
    assert int(after.num_chosen) >= 3, "two or more after the first"
    centres = after.centroids[0, : int(after.num_chosen)]
    distance = jnp.sum(jnp.square(centred(data, jnp.arange(300))[:, None] - centres[None]), axis=2)
    np.testing.assert_allclose(after.closest[0], jnp.min(distance, axis=1), rtol=1e-4, atol=1e-4)
    known = after.products[0, : int(after.num_chosen)]
    np.testing.assert_allclose(known, products(data, centres).T, rtol=1e-4, atol=1e-4)
