"""The fast forms equal the convolutions that they replace, borders included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgjax.generators.fast_convolutions import (
    best_form,
    nine_products,
    nine_products_pay,
    unfolded_convolve,
    winograd_convolve,
    winograd_phases,
    winograd_phases_pay,
)
from cgjax.generators.layers import (
    convolve,
    phase_convolution,
    transposed_convolve,
    upsample_convolve,
    upsample_nearest,
)

# Wide layers in float32: sums of 9 * 256 products of order 1 are off by 1e-5 of their size in
# either form.
ROUNDING = 2e-5


def _plain(x, kernel):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        [(1, 1), (1, 1)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision="highest",
    )


def _random(n, h, w, i, o):
    key = jax.random.key(0)
    x = jax.random.normal(key, (n, h, w, i), jnp.float32)
    return x, jax.random.normal(jax.random.fold_in(key, 1), (3, 3, i, o), jnp.float32)


def _assert_alike(ours, expected):
    scale = float(jnp.abs(expected).max())
    np.testing.assert_allclose(ours / scale, expected / scale, atol=ROUNDING)


@pytest.mark.parametrize("shape", [(1, 2, 2, 3, 4), (2, 4, 6, 5, 1), (1, 16, 8, 2, 7)])
def test_winograd_is_the_convolution(shape):
    x, kernel = _random(*shape)
    _assert_alike(winograd_convolve(x, kernel), _plain(x, kernel))


def test_winograd_in_strips_is_the_convolution(monkeypatch):
    monkeypatch.setattr("cgjax.generators.fast_convolutions.STRIP", 2 * 6 * 7 * 4)
    x, kernel = _random(2, 10, 6, 4, 3)
    _assert_alike(winograd_convolve(x, kernel), _plain(x, kernel))


@pytest.mark.parametrize("shape", [(1, 1, 1, 3, 4), (2, 3, 5, 5, 1)])
def test_unfolding_is_the_convolution(shape):
    x, kernel = _random(*shape)
    _assert_alike(unfolded_convolve(x, kernel), _plain(x, kernel))


@pytest.mark.parametrize("shape", [(1, 1, 1, 3, 4), (2, 4, 4, 5, 1), (1, 3, 5, 2, 7)])
def test_nine_products_equal_upsampling_then_convolving(shape):
    x, kernel = _random(*shape)
    _assert_alike(nine_products(x, kernel), _plain(upsample_nearest(x), kernel))


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the forms are for CPUs")
@pytest.mark.parametrize(
    ("shape", "form"),
    [
        ((8, 8, 8, 128, 128), winograd_convolve),
        ((1, 4, 4, 128, 256), unfolded_convolve),
        ((1, 86, 86, 256, 512), winograd_convolve),
        ((8, 9, 8, 128, 128), None),
        ((8, 8, 8, 64, 256), None),
        ((1, 128, 128, 128, 128), None),
    ],
    ids=["wide", "few pixels", "large and wide", "odd", "narrow", "large"],
)
def test_the_shapes_decide_which_form_is_used(shape, form):
    x, kernel = _random(*shape)
    assert best_form(x, kernel) is form
    if x.size < 1e6:
        _assert_alike(jax.jit(convolve)(x, kernel), _plain(x, kernel))


def test_wide_upsampling_layers_use_nine_products_with_the_same_result():
    x, kernel = _random(2, 4, 4, 256, 256)
    assert nine_products_pay(x, kernel) == (jax.default_backend() == "cpu")
    assert not nine_products_pay(x, kernel[:, :, :, :64])
    _assert_alike(jax.jit(upsample_convolve)(x, kernel), _plain(upsample_nearest(x), kernel))


@pytest.mark.parametrize("shape", [(1, 2, 2, 3, 4), (2, 4, 6, 5, 1)])
def test_winograd_phases_equal_phase_convolution(shape):
    i, o = shape[3:]
    x, _ = _random(*shape)
    phases = jax.random.normal(jax.random.key(2), (2, 2, i, 2, 2, o), jnp.float32)
    assert not winograd_phases_pay(x, phases)
    _assert_alike(winograd_phases(x, phases), phase_convolution(x, phases))


def test_wide_transposed_convolutions_equal_the_dilated_convolution():
    x, _ = _random(32, 4, 4, 256, 256)
    kernel = jax.random.normal(jax.random.key(2), (4, 4, 256, 256), jnp.float32)
    dilated = jax.lax.conv_general_dilated(
        x,
        kernel[::-1, ::-1],
        (1, 1),
        [(2, 2), (2, 2)],
        lhs_dilation=(2, 2),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision="highest",
    )
    _assert_alike(jax.jit(transposed_convolve)(x, kernel), dilated)


def test_rows_do_not_depend_on_their_neighbours():
    x, kernel = _random(4, 8, 8, 128, 128)
    np.testing.assert_array_equal(
        winograd_convolve(x, kernel)[:2], winograd_convolve(x.at[2:].set(0.0), kernel)[:2]
    )
