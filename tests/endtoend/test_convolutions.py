"""Convolutions of stride 2: three maps, each the derivative of the others, to second order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cgjax.endtoend.networks import convolutions
from cgjax.endtoend.networks.convolutions import (
    Convolution,
    Doubling,
    Halving,
    double,
    halve,
    kernel_between,
)

torch = pytest.importorskip("torch")

# Few channels, some, and many: see `COLOURS` and `THIN`.
SHAPES = [(1, 8, 8, 3, 5), (4, 6, 10, 2, 1), (6, 4, 4, 1, 7), (3, 8, 4, 12, 3), (2, 4, 6, 36, 5)]


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape, jnp.float32)


def of_shape(n, h, w, i, o):
    return normal(0, n, h, w, i), normal(1, 4, 4, i, o), normal(2, n, h // 2, w // 2, o)


def plain(x, kernel):
    """XLA's own convolution, whose derivatives are XLA's too."""
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (2, 2), [(1, 1)] * 2, dimension_numbers=layout)


@pytest.mark.parametrize("shape", [*SHAPES, (5, 2, 8, 1, 2)])
def test_the_three_maps_are_each_others_adjoints(shape):
    x, k, y = of_shape(*shape)
    value = np.vdot(halve(x, k), y)
    np.testing.assert_allclose(np.vdot(x, double(y, k)), value, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(np.vdot(k, kernel_between(x, y)), value, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_values_equal_torchs(shape):
    x, k, y = of_shape(*shape)
    of_torch = [torch.from_numpy(np.asarray(a).transpose(0, 3, 1, 2).copy()) for a in (x, y)]
    weight = torch.from_numpy(np.asarray(k).transpose(3, 2, 0, 1).copy())
    down = torch.nn.functional.conv2d(of_torch[0], weight, stride=2, padding=1)
    up = torch.nn.functional.conv_transpose2d(of_torch[1], weight, stride=2, padding=1)
    np.testing.assert_allclose(halve(x, k), down.numpy().transpose(0, 2, 3, 1), atol=1e-4)
    np.testing.assert_allclose(double(y, k), up.numpy().transpose(0, 2, 3, 1), atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_first_and_second_derivatives_are_those_of_xlas_convolution(shape):
    x, k, _ = of_shape(*shape)

    def loss(convolve):
        return lambda x, k: jnp.sum(jnp.sin(convolve(x, k)))

    def penalty(convolve):
        return lambda x, k: jnp.sum(jnp.square(jax.grad(loss(convolve))(x, k)))

    for of in (loss, penalty):
        ours = jax.grad(of(halve), (0, 1))(x, k)
        theirs = jax.grad(of(plain), (0, 1))(x, k)
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * float(jnp.abs(b).max()))


def test_second_derivatives_of_double_match_finite_differences():
    _, k, y = of_shape(2, 4, 4, 2, 3)

    def slope(y, k):
        return jnp.sum(jnp.square(jax.grad(lambda y: jnp.sum(jnp.sin(double(y, k))))(y)))

    towards, step = normal(5, *k.shape), 1e-2
    found = np.vdot(jax.grad(slope, 1)(y, k), towards)
    difference = (slope(y, k + step * towards) - slope(y, k - step * towards)) / (2 * step)
    np.testing.assert_allclose(found, difference, rtol=2e-2)


def test_the_block_size_changes_only_rounding(monkeypatch):
    x, _, y = of_shape(6, 8, 8, 3, 5)
    whole = kernel_between(x, y)
    for numbers in (1, 2 * 4 * 4 * 16 * 3):
        monkeypatch.setattr(convolutions, "AT_A_TIME", numbers)
        np.testing.assert_allclose(kernel_between(x, y), whole, atol=1e-4)


def test_halving_and_doubling_change_the_size_as_named():
    rngs = nnx.Rngs(0)
    x = normal(0, 2, 8, 8, 3)
    assert Halving(3, 5, bias=True, rngs=rngs)(x).shape == (2, 4, 4, 5)
    assert Doubling(3, 5, bias=True, rngs=rngs)(x).shape == (2, 16, 16, 5)
    assert Convolution(3, 5, rngs=rngs)(x).shape == (2, 8, 8, 5)
    assert Doubling(3, 5, bias=False, rngs=rngs).bias is None
