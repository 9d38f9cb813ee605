"""The nearest-row search against a float64 loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec as P

from cgjax.kernels import distance as kernel
from cgjax.kernels.distance import k_nearest, k_nearest_, nearest, nearest_
from cgjax.kernels.smallest import row_argmin


def _reference(queries, base, valid=None):
    """Return all squared distances in float64."""
    queries, base = np.asarray(queries, np.float64), np.asarray(base, np.float64)
    distance = ((queries[:, None] - base[None]) ** 2).sum(-1)
    if valid is not None:
        distance[:, ~np.asarray(valid)] = np.inf
    return distance


def _normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 7, 2), (50, 33, 16), (257, 100, 40), (600, 9, 5)])
@pytest.mark.parametrize("product", ["float32", "bfloat16"])
def test_nearest_agrees_with_a_float64_loop(shape, product):
    q, b, f = shape
    queries, base = _normal(0, q, f), _normal(1, b, f)
    index, distance = nearest(queries, base, block=64, product=product)
    expected = _reference(queries, base)
    np.testing.assert_array_equal(index, expected.argmin(1))
    # The distance is recomputed from the difference: only float32 rounding of f terms is left.
    np.testing.assert_allclose(distance, expected.min(1), rtol=1e-5, atol=1e-7)
    assert index.dtype == jnp.int32
    assert distance.dtype == jnp.float32


@pytest.mark.parametrize("num", [3, 128, 300])
@pytest.mark.parametrize("product", ["float32", "bfloat16"])
def test_rows_of_a_single_feature_find_their_nearest(num, product):
    """XLA computes no matrix product for them but multiplies again wherever the result is read."""
    queries, base = 0.9 + _normal(0, 50, 1), _normal(1, num, 1)
    expected = _reference(queries, base)
    index, distance = nearest(queries, base, product=product)
    np.testing.assert_array_equal(index, expected.argmin(1))
    np.testing.assert_allclose(distance, expected.min(1), rtol=1e-5, atol=1e-7)
    index, _ = k_nearest(queries, base, 2)
    np.testing.assert_array_equal(index, np.argsort(expected, 1)[:, :2])


# Queries, half of the base's rows, and a block of one, that divides, that does not, and of all.
@pytest.mark.parametrize(
    ("q", "b", "block"), [(1, 1, 1), (9, 30, 1), (40, 30, 8), (33, 17, 7), (25, 4, 45)]
)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_ties_go_to_the_lowest_index_whatever_the_block(seed, q, b, block):
    """Small integers: every distance is exact in float32 and ties are common."""
    rng = np.random.default_rng(seed)
    queries = rng.integers(-2, 3, (q, 3)).astype(np.float32)
    base = rng.integers(-2, 3, (b, 3)).astype(np.float32)
    # A base with a mean of exactly zero keeps the centring exact as well.
    base = np.concatenate([base, -base])
    expected = _reference(queries, base).argmin(1)
    for product in ("float32", "bfloat16"):
        index, _ = nearest(queries, base, block=block, product=product)
        np.testing.assert_array_equal(index, expected)


@pytest.mark.parametrize("block", [1, 10, 64, 1000])
def test_block_size_changes_nothing(block):
    queries, base = _normal(0, 100, 8), _normal(1, 64, 8)
    expected = nearest(queries, base, block=100)
    got = nearest(queries, base, block=block)
    np.testing.assert_array_equal(got[0], expected[0])
    np.testing.assert_array_equal(got[1], expected[1])


@pytest.mark.parametrize("product", ["float32", "bfloat16"])
def test_data_far_from_the_origin_keeps_the_right_neighbour(product):
    """Without centring the expanded square picks a wrong row for several percent of such points."""
    base = 100.0 + _normal(0, 300, 512)
    queries = 100.0 + _normal(1, 200, 512)
    index, distance = nearest(queries, base, product=product)
    expected = _reference(queries, base)
    np.testing.assert_array_equal(index, expected.argmin(1))
    np.testing.assert_allclose(distance, expected.min(1), rtol=1e-5)


def test_a_row_finds_itself_at_distance_zero():
    base = 1000.0 + _normal(0, 50, 20)
    index, distance = nearest(base, base)
    np.testing.assert_array_equal(index, np.arange(50))
    np.testing.assert_array_equal(distance, np.zeros(50))


@pytest.mark.parametrize("product", ["float32", "bfloat16"])
def test_invalid_rows_are_never_chosen_even_when_they_hold_nan(product):
    queries, base = _normal(0, 30, 6), _normal(1, 25, 6)
    valid = jnp.arange(25) % 3 == 1
    base = jnp.where(valid[:, None], base, jnp.nan)
    index, distance = nearest(queries, base, valid=valid, product=product)
    expected = _reference(queries, jnp.where(valid[:, None], base, 0.0), valid)
    np.testing.assert_array_equal(index, expected.argmin(1))
    np.testing.assert_allclose(distance, expected.min(1), rtol=1e-5)


def test_when_no_row_is_valid_the_distance_is_infinite():
    index, distance = nearest(_normal(0, 3, 2), _normal(1, 4, 2), valid=jnp.zeros(4, bool))
    np.testing.assert_array_equal(index, [0, 0, 0])
    assert np.isinf(distance).all()


@pytest.mark.parametrize("num_valid", [0, 1, 2])
@pytest.mark.parametrize("is_first", [True, False])
def test_fewer_valid_rows_than_candidates_are_the_only_ones_found(num_valid, is_first):
    """The queries are at the centre of the valid rows, which is where invalid rows are moved."""
    base = 5.0 + _normal(1, 300, 6)
    place = jnp.arange(300)
    valid = place < num_valid if is_first else place >= 300 - num_valid
    middle = jnp.mean(base[:2] if is_first else base[-2:], axis=0, keepdims=True)
    queries = middle + 1e-3 * _normal(0, 30, 6)
    expected = nearest(queries, base, valid=valid, product="float32")
    index, distance = nearest(queries, base, valid=valid, product="bfloat16")
    np.testing.assert_array_equal(index, expected[0])
    np.testing.assert_array_equal(distance, expected[1])
    index, distance = k_nearest(queries, base, 3, valid=valid)
    np.testing.assert_array_equal(distance[:, num_valid:], np.inf)
    assert np.isfinite(distance[:, :num_valid]).all()
    assert np.asarray(valid)[np.asarray(index[:, :num_valid])].all()


def test_no_queries_give_empty_results():
    index, distance = nearest(jnp.zeros((0, 3)), _normal(0, 4, 3))
    assert index.shape == distance.shape == (0,)


def test_close_calls_of_the_bfloat16_product_are_decided_in_float32():
    """Neighbours differ by about one bfloat16 step (2^-8): the bound must send them to float32."""
    base = 1.0 + 1e-2 * _normal(0, 200, 4)
    base = jnp.concatenate([base, -base])
    queries = 1.0 + 1e-2 * _normal(1, 50, 4)
    _, distance = nearest(queries, base, product="bfloat16")
    # float32 rounding of squared norms of 4, four of them: 1e-6 at the most.
    np.testing.assert_allclose(distance, _reference(queries, base).min(1), atol=1e-6, rtol=0)
    low = jnp.matmul(queries.astype(jnp.bfloat16), base.T.astype(jnp.bfloat16))
    norms = jnp.sum(base * base, axis=1)
    naive = row_argmin(norms[None] - 2.0 * low.astype(jnp.float32))
    worst = jnp.max(jnp.sum((queries - base[naive]) ** 2, axis=1) - distance)
    assert worst > 1e-4, "the test would pass without the re-check"


@pytest.mark.parametrize("copies", [1, 2, 3, 300])
def test_more_equal_rows_than_candidates_still_give_the_lowest(copies):
    row = _normal(0, 1, 6)
    base = jnp.concatenate([10.0 + _normal(1, 5, 6), jnp.repeat(row, copies, axis=0)])
    index, distance = nearest(jnp.repeat(row, 3, axis=0), base, product="bfloat16")
    np.testing.assert_array_equal(index, [5, 5, 5])
    np.testing.assert_array_equal(distance, [0, 0, 0])


def test_long_rows_are_multiplied_in_bfloat16_where_that_is_fast_and_the_answer_stays(monkeypatch):
    queries, base = _normal(0, 40, 64), _normal(1, 4096, 64)

    def text(is_fast, queries, base):
        monkeypatch.setattr(kernel, "has_fast_bfloat16", lambda: is_fast)
        return str(jax.jit(lambda q, b: nearest_(q, b)).trace(queries, base).jaxpr)

    assert "bf16" in text(True, queries, base)
    assert "bf16" not in text(False, queries, base)
    assert "bf16" not in text(True, queries, base[:4095])
    assert "bf16" not in text(True, queries[:, :63], base[:, :63])
    found = [nearest(queries, base, product=product)[0] for product in ("float32", "bfloat16")]
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("dim", [64, 512])
def test_the_bfloat16_product_misses_no_row_among_thousands(dim):
    """When the rounding error was optimised away, one row in 300 got a different code."""
    queries, base = _normal(0, 3000, dim), _normal(1, 5000, dim)
    q, b = np.asarray(queries, np.float64), np.asarray(base, np.float64)
    expected = ((b**2).sum(1)[None] - 2 * q @ b.T).argmin(1)
    found = nearest(queries, base, product="bfloat16")[0]
    np.testing.assert_array_equal(found, expected)


def test_the_rounding_error_is_not_optimised_away():
    rows = _normal(0, 50, 100)
    rounded = np.asarray(rows).astype(jnp.bfloat16).astype(np.float64)
    lost = np.linalg.norm(np.asarray(rows, np.float64) - rounded, axis=1)
    np.testing.assert_allclose(jax.jit(kernel._rounding)(rows), lost, rtol=1e-5)


def test_three_bfloat16_numbers_hold_a_float32_number():
    values = jnp.concatenate([jnp.exp(10.0 * _normal(0, 1000)), jnp.array([0.0, jnp.inf])])
    # Compiled, where XLA takes a conversion and its inverse for nothing.
    parts = np.asarray(jax.jit(kernel._split)(values), np.float64)
    np.testing.assert_array_equal(parts.astype(jnp.bfloat16), parts)
    np.testing.assert_array_equal(parts.sum(0), np.asarray(values, np.float64))


@pytest.mark.parametrize("k", [1, 3, 20])
def test_k_nearest_are_sorted_and_agree_with_a_float64_loop(k):
    queries, base = _normal(0, 45, 7), _normal(1, 20, 7)
    index, distance = k_nearest(queries, base, k, block=16)
    expected = _reference(queries, base)
    np.testing.assert_array_equal(index, np.argsort(expected, 1, kind="stable")[:, :k])
    np.testing.assert_allclose(distance, np.sort(expected, 1)[:, :k], rtol=1e-5, atol=1e-6)


def test_k_nearest_ties_are_in_order_of_index():
    base = jnp.array([[1.0], [-1.0], [1.0], [-1.0]])
    index, distance = k_nearest(jnp.array([[0.0], [1.0]]), base, 4)
    np.testing.assert_array_equal(index, [[0, 1, 2, 3], [0, 2, 1, 3]])
    np.testing.assert_array_equal(distance, [[1, 1, 1, 1], [0, 0, 4, 4]])


def test_k_nearest_when_k_exceeds_the_base_is_refused():
    with pytest.raises(ValueError, match="k=5"):
        k_nearest_(jnp.zeros((2, 2)), jnp.zeros((4, 2)), 5)


@pytest.mark.parametrize("product", ["float32", "bfloat16"])
def test_nearest_under_vmap_equals_a_loop(product):
    queries, base = _normal(0, 3, 20, 5), _normal(1, 3, 15, 5)
    valid = jax.random.bernoulli(jax.random.key(2), 0.7, (3, 15))
    index, distance = jax.vmap(
        lambda q, b, v: nearest(q, b, valid=v, block=8, product=product), axis_name="c"
    )(queries, base, valid)
    for c in range(3):
        expected = nearest(queries[c], base[c], valid=valid[c], block=8)
        np.testing.assert_array_equal(index[c], expected[0])
        np.testing.assert_allclose(distance[c], expected[1], rtol=1e-6)


@pytest.mark.parametrize("product", ["float32", "bfloat16"])
@pytest.mark.parametrize("num_devices", [1, 2, 4])
def test_nearest_inside_shard_map_equals_one_device(num_devices, product):
    mesh = jax.make_mesh(
        (num_devices,),
        ("data",),
        axis_types=(jax.sharding.AxisType.Auto,),
        devices=jax.devices()[:num_devices],
    )
    queries, base = _normal(0, 40, 5), _normal(1, 15, 5)
    sharded = jax.jit(
        jax.shard_map(
            lambda q, b: nearest(q, b, block=4, product=product),
            mesh=mesh,
            in_specs=(P("data"), P()),
            out_specs=P("data"),
        )
    )
    np.testing.assert_array_equal(sharded(queries, base)[0], nearest(queries, base)[0])


def test_nearest_inside_scan_compiles_once_and_agrees():
    queries, base = _normal(0, 3, 20, 5), _normal(1, 15, 5)
    _, index = jax.lax.scan(lambda c, q: (c, nearest(q, base)[0]), 0, queries)
    np.testing.assert_array_equal(index.reshape(-1), nearest(queries.reshape(60, 5), base)[0])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 100.0), st.floats(-50.0, 50.0))
def test_scaling_and_shifting_keep_the_choice(seed, scale, shift):
    rng = np.random.default_rng(seed)
    queries = rng.normal(size=(20, 4)).astype(np.float32)
    base = rng.normal(size=(10, 4)).astype(np.float32)
    gap = np.sort(_reference(queries, base), 1)
    # A shift by 50 at scale 0.01 leaves 1e-3 of a unit: nearer ties may turn either way.
    clear = gap[:, 1] - gap[:, 0] > 0.1
    before, _ = nearest(jnp.array(queries), jnp.array(base))
    after, _ = nearest(
        jnp.array(queries * np.float32(scale) + np.float32(shift)),
        jnp.array(base * np.float32(scale) + np.float32(shift)),
    )
    np.testing.assert_array_equal(np.asarray(before)[clear], np.asarray(after)[clear])
