"""Rows are drawn in proportion to their weights, however many rows there are."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from cgjax.clustering.kmeans import drawing
from cgjax.clustering.kmeans.drawing import Uniforms, draw, draw_distinct
from cgjax.runtime.mesh import DATA_AXIS, data_mesh

NUM = 2**25


@pytest.fixture(scope="module")
def many():
    """Draws from so many rows of one weight that float32 cannot tell them apart."""
    uniform = Uniforms.draw(jax.random.key(0), (1, 400))
    row, is_here = jax.jit(draw)(uniform, jnp.ones((NUM, 1)))
    assert bool(is_here.all())
    return np.asarray(row[0])


def test_of_two_to_the_25_rows_each_can_be_drawn(many):
    """One float32 number in [0, 1) has 2^23 values: only every fourth row would be drawn."""
    # Five standard deviations of a count of 100 among 400 draws are 43.
    np.testing.assert_allclose(np.bincount(many % 4, minlength=4), 100, atol=43)


def test_of_two_to_the_25_rows_each_part_is_drawn_equally_often(many):
    # Five standard deviations of a count of 50 among 400 draws are 33.
    np.testing.assert_allclose(np.bincount(many * 8 // NUM, minlength=8), 50, atol=33)


def test_rows_after_two_to_the_24_others_are_drawn():
    """A float32 sum of ones ends at 2^24."""
    weights = jnp.ones((2**24 + 2**16, 1)).at[: 2**24].set(2.0**-8)
    row, _ = jax.jit(draw)(Uniforms.draw(jax.random.key(1), (1, 400)), weights)
    # The last 2^16 rows weigh as much as all before them.
    assert 150 < int((row >= 2**24).sum()) < 250


def quantile(uniform, weights):
    """The row at which float64 cumulative weights pass u."""
    u = np.asarray(uniform.coarse, np.float64) + np.asarray(uniform.fine, np.float64) / 2**23
    cumulative = np.cumsum(np.asarray(weights, np.float64), axis=0)
    return np.stack(
        [
            np.searchsorted(cumulative[:, r] / cumulative[-1, r], u[r], side="right")
            for r in range(len(u))
        ]
    )


@pytest.mark.parametrize("size", [7, 64, 2**16])
@pytest.mark.parametrize("zeros", [0.0, 0.5, 0.95])
def test_blocks_do_not_change_which_row_is_drawn(size, zeros, monkeypatch):
    monkeypatch.setattr(drawing, "_BLOCK", size)
    rng = np.random.default_rng(0)
    weights = rng.random((500, 3)) ** 4 * (rng.random((500, 3)) >= zeros)
    uniform = Uniforms.draw(jax.random.key(2), (3, 200))
    row, _ = draw(uniform, jnp.asarray(weights, jnp.float32))
    assert (np.take_along_axis(weights, np.asarray(row).T, axis=0) > 0.0).all()
    # Rounding may move a draw that lies on the border of two rows.
    assert (np.asarray(row) == quantile(uniform, weights)).mean() > 0.99


@pytest.mark.parametrize("size", [7, 2**16])
@pytest.mark.parametrize("num_devices", [1, 2, 4])
def test_devices_do_not_change_which_row_is_drawn(num_devices, size, monkeypatch):
    monkeypatch.setattr(drawing, "_BLOCK", size)
    weights = np.random.default_rng(0).random((120, 2)).astype(np.float32)
    weights[90:] = 0.0
    uniform = Uniforms.draw(jax.random.key(3), (2, 200))

    @partial(
        jax.shard_map,
        mesh=data_mesh(num_devices),
        in_specs=(P(), P(DATA_AXIS)),
        out_specs=P(),
    )
    def drawn(uniform, weights):
        row, is_here = draw(uniform, weights, axis_name=DATA_AXIS)
        begin = jax.lax.axis_index(DATA_AXIS) * len(weights)
        return jax.lax.psum(jnp.where(is_here, begin + row, 0), DATA_AXIS)

    row = np.asarray(drawn(uniform, weights))
    assert row.max() < 90
    assert (row == quantile(uniform, weights)).mean() > 0.99


def test_few_rows_are_drawn_by_the_coarse_numbers_alone():
    """The seeds of a key are what they were before there were blocks."""
    weights = jnp.asarray(np.random.default_rng(0).random((1000, 4)), jnp.float32)
    uniform = Uniforms.draw(jax.random.key(4), (4, 50))
    np.testing.assert_array_equal(uniform.coarse, jax.random.uniform(jax.random.key(4), (4, 50)))
    cumulative = jnp.cumsum(weights, axis=0)
    target = uniform.coarse * cumulative[-1][:, None]
    expected = jnp.sum(cumulative.T[:, None] <= target[:, :, None], axis=2)
    np.testing.assert_array_equal(draw(uniform, weights)[0], expected)


@pytest.mark.parametrize("size", [3, 2**16])
def test_distinct_rows_are_distinct_and_all_with_weight(size, monkeypatch):
    monkeypatch.setattr(drawing, "_BLOCK", size)
    weights = jnp.asarray([0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0])
    row, _ = draw_distinct(Uniforms.draw(jax.random.key(5), (5, 6, 1)), weights)
    np.testing.assert_array_equal(np.sort(row, axis=1), np.tile([1, 2, 6, 7, 9], (6, 1)))


@pytest.mark.parametrize("size", [3, 2**16])
def test_where_nothing_has_weight_the_first_row_is_drawn(size, monkeypatch):
    monkeypatch.setattr(drawing, "_BLOCK", size)
    row, _ = draw(Uniforms.draw(jax.random.key(6), (2, 5)), jnp.zeros((10, 2)))
    assert not row.any()
