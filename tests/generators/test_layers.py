"""The shared arithmetic equals its definition, written with plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgjax.generators.layers import (
    convolve,
    leaky_relu,
    pixel_norm,
    transposed_convolve,
    upsample_convolve,
    upsample_nearest,
)


def _loop_convolution(x, kernel):
    """Correlate with zero padding by definition, in float64."""
    n, h, w, _ = x.shape
    k = kernel.shape[0]
    padded = np.pad(x.astype(np.float64), [(0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)])
    y = np.zeros((n, h, w, kernel.shape[3]))
    for row in range(k):
        for column in range(k):
            window = padded[:, row : row + h, column : column + w]
            y += window @ kernel[row, column].astype(np.float64)
    return y


def _random(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# One pixel, one row, odd and even sides, one channel. Each compiles a program, so there are few.
shapes = pytest.mark.parametrize(
    ("shape", "out"), [((1, 1, 1, 1), 1), ((2, 1, 4, 3), 5), ((3, 5, 4, 2), 1), ((1, 8, 8, 4), 3)]
)


@shapes
@pytest.mark.parametrize("k", [1, 3])
def test_convolve_is_correlation_with_zero_padding(shape, out, k):
    x, kernel = _random(0, *shape), _random(1, k, k, shape[3], out)
    np.testing.assert_allclose(
        jax.jit(convolve)(jnp.asarray(x), jnp.asarray(kernel)),
        _loop_convolution(x, kernel),
        atol=1e-4,
    )


@shapes
def test_upsample_convolve_equals_repeating_then_convolving(shape, out):
    x, kernel = _random(0, *shape), _random(1, 3, 3, shape[3], out)
    expected = _loop_convolution(x.repeat(2, 1).repeat(2, 2), kernel)
    np.testing.assert_allclose(
        jax.jit(upsample_convolve)(jnp.asarray(x), jnp.asarray(kernel)), expected, atol=1e-4
    )


@shapes
def test_transposed_convolve_scatters_every_input_pixel_through_the_kernel(shape, out):
    x, kernel = _random(0, *shape), _random(1, 4, 4, shape[3], out)
    n, h, w, _ = shape
    # PyTorch's definition: y[2i + k - 1] += x[i] w[k], cut to 2h x 2w.
    canvas = np.zeros((n, 2 * h + 2, 2 * w + 2, out))
    for i in range(h):
        for j in range(w):
            canvas[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += np.einsum(
                "ni,yxio->nyxo", x[:, i, j].astype(np.float64), kernel.astype(np.float64)
            )
    np.testing.assert_allclose(
        jax.jit(transposed_convolve)(jnp.asarray(x), jnp.asarray(kernel)),
        canvas[:, 1:-1, 1:-1],
        atol=1e-4,
    )


def test_upsample_nearest_repeats_pixels():
    x = jnp.arange(4.0).reshape(1, 2, 2, 1)
    expected = np.arange(4.0).reshape(2, 2).repeat(3, 0).repeat(3, 1)
    np.testing.assert_array_equal(upsample_nearest(x, 3)[0, :, :, 0], expected)


def test_pixel_norm_makes_the_mean_square_of_channels_one():
    x = jax.random.normal(jax.random.key(0), (2, 3, 3, 7))
    np.testing.assert_allclose(jnp.mean(pixel_norm(x) ** 2, -1), 1, rtol=1e-5)


@pytest.mark.parametrize("leak", [0.0, 0.2])
def test_leaky_relu_scales_only_negative_numbers(leak):
    np.testing.assert_allclose(
        leaky_relu(jnp.array([-2.0, 0.0, 3.0]), leak), [-2 * leak, 0, 3], rtol=1e-6
    )
