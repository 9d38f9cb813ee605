"""The error of a row's products since its visit is bounded, whichever reference it uses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgjax.clustering.kmeans import bounds, subspace
from tests.clustering.kmeans.test_subspace import exact_products, low_rank

RESTARTS, CLUSTERS = 2, 3


def walk(name: str, rows: np.ndarray, num: int) -> np.ndarray:
    """Return the steps of the centroids, (num, r, k, f)."""
    rng = np.random.default_rng(1)
    steps = rng.normal(size=(num, RESTARTS, CLUSTERS, rows.shape[1]))
    if name == "shrinking, among the rows":
        picked = rows[rng.integers(0, len(rows), steps.shape[:3])]
        steps = picked * 0.8 ** np.arange(num)[:, None, None, None]
    if name == "there and back":
        steps[1::2] = -steps[::2]
    return steps.astype(np.float32)


@pytest.mark.parametrize("name", ["anywhere", "shrinking, among the rows", "there and back"])
@pytest.mark.parametrize("num_points", [0, 20])
def test_the_bound_holds_after_any_number_of_steps_and_visits(name, num_points):
    rows = low_rank()
    squares = jnp.asarray(np.sum(rows**2, axis=1))
    points = rows[:num_points]
    span = subspace.span(jnp.asarray(points), jnp.asarray(-2.0 * rows @ points.T))
    centroids = np.zeros((RESTARTS, CLUSTERS, rows.shape[1]), np.float32)
    state = bounds.start(jnp.asarray(centroids), squares, span, 0.0)
    assert state.path.shape[0] == 3
    residual = np.asarray(subspace.residuals_of_rows(span, squares), np.float64)

    rng = np.random.default_rng(2)
    labels = jnp.asarray(rng.integers(0, CLUSTERS, (len(rows), RESTARTS)), jnp.int32)
    own = np.asarray(labels)[:, :, None]
    missed = np.zeros((len(rows), RESTARTS, CLUSTERS))
    advance, used = jax.jit(bounds.advance), set()
    for step in walk(name, rows, 12):
        references = bounds.count_references(state)
        assert float(references.sum()) == labels.size
        state, change = advance(state, span, jnp.asarray(step), labels, references)
        missed += -2.0 * exact_products(rows, step) - np.asarray(change, np.float64)
        error = np.abs(missed - np.take_along_axis(missed, own, axis=2))
        bound = np.asarray(bounds.of_rows(state, labels), np.float64)
        assert (error <= 2.0 * residual[:, None, None] * bound).all()
        used.add(int(state.newest))
        is_visited = rng.random(labels.shape) < 0.2
        state = bounds.visit(state, jnp.asarray(is_visited))
        missed[is_visited] = 0.0
        assert (np.asarray(bounds.of_rows(state, labels))[is_visited] == 0.0).all()
    assert used == {0, 1, 2}, "otherwise no reference is ever moved"


def test_steps_in_many_directions_move_less_than_the_sum_of_them():
    rows = low_rank()
    steps = walk("anywhere", rows, 12)
    squares = jnp.asarray(np.sum(rows**2, axis=1))
    none = subspace.nothing(*rows.shape, like=squares)
    labels = jnp.zeros((len(rows), RESTARTS), jnp.int32)
    state = bounds.start(jnp.zeros(steps.shape[1:]), squares, none, 0.0)
    references = jnp.array([2.0, 1.0, 0.0])  # the rows use the first: the others move
    for step in steps:
        state, _ = bounds.advance(state, none, jnp.asarray(step), labels, references)
    total = np.linalg.norm(steps - steps[:, :, :1], axis=3).sum(0)
    share = np.asarray(bounds.of_rows(state, labels))[0, :, 1:] / total[:, 1:]
    np.testing.assert_allclose(share, 12**-0.5, rtol=0.1)


def test_the_bound_is_infinite_before_the_first_visit():
    centroids = jnp.zeros((RESTARTS, CLUSTERS, 8))
    none = subspace.nothing(10, 8, like=centroids)
    state = bounds.start(centroids, jnp.ones(10), none, jnp.inf)
    assert jnp.isposinf(bounds.of_rows(state, jnp.full((10, RESTARTS), -1))).all()
    assert state.path.shape[0] == 1, "three references would be more than the rows themselves"
