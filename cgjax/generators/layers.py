"""The arithmetic that the generator families share, on NHWC arrays.

These networks double a map either by nearest upsampling followed by a 3x3 convolution, or by a
stride-2 4x4 transposed convolution. Both are four 2x2 convolutions on the *small* map, one for each
parity (row, column) of the output pixel. `phase_convolution` is the common code path: it costs 4/9
of the operations of convolving the upsampled map and never dilates an input with zeros. Where it is
faster on a CPU, which depends on the shapes, 3x3 convolutions use the forms of `fast_convolutions`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cgjax.generators.fast_convolutions import (
    best_form,
    interleave,
    nine_products,
    nine_products_pay,
    winograd_phases,
    winograd_phases_pay,
)

EPS = 1e-8


def pixel_norm(x: Float[Array, "*batch c"]) -> Float[Array, "*batch c"]:
    """Divide each pixel's channel vector by its root mean square (eps 1e-8 inside the root)."""
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + EPS)


def leaky_relu(x: Float[Array, "*shape"], leak: float = 0.2) -> Float[Array, "*shape"]:
    """Return x where positive, leak * x elsewhere."""
    return jnp.where(x >= 0, x, x * leak)


def upsample_nearest(x: Float[Array, "n h w c"], factor: int = 2) -> Float[Array, "n H W c"]:
    """Repeat every pixel `factor` times along both axes."""
    n, h, w, c = x.shape
    repeated = jnp.broadcast_to(x[:, :, None, :, None, :], (n, h, factor, w, factor, c))
    return repeated.reshape(n, h * factor, w * factor, c)


def convolve(
    x: Float[Array, "n h w i"], kernel: Float[Array, "k k i o"]
) -> Float[Array, "n h w o"]:
    """Correlate with an odd square kernel (HWIO), zero padding that keeps the map's size."""
    k = kernel.shape[0]
    if k == 1:
        return jnp.einsum("nhwi,io->nhwo", x, kernel[0, 0])
    if k == 3 and (form := best_form(x, kernel)):
        return form(x, kernel)
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), [(k // 2, k // 2)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def upsampling_phases(kernel: Float[Array, "3 3 i o"]) -> Float[Array, "2 2 i 2 2 o"]:
    """Fold nearest upsampling x2 into a 3x3 kernel.

    Along one axis, output pixel 2y sees inputs (y-1, y) with weights (w0, w1+w2) and pixel 2y+1
    sees (y, y+1) with (w0+w1, w2).

    Args:
        kernel: (3, 3, i, o), the kernel of the convolution after the upsampling.

    Returns:
        (2, 2, i, 2, 2, o): tap row, tap column, input, output row parity, column parity, output.
    """

    def fold(w: Array, axis: int) -> Array:
        # Sums of slices instead of a product with a 0/1 matrix, which would cost more than the
        # convolution itself on a 4x4 map.
        w0, w1, w2 = (jax.lax.index_in_dim(w, k, axis, keepdims=False) for k in range(3))
        even, odd = jnp.stack([w0, w1 + w2], axis), jnp.stack([w0 + w1, w2], axis)
        return jnp.stack([even, odd], axis=-2)  # the tap replaces k, the parity goes before o

    rows = fold(kernel, 0)  # (p, 3, i, a, o)
    return fold(rows, 1)  # (p, q, i, a, b, o)


def transposed_phases(kernel: Float[Array, "4 4 i o"]) -> Float[Array, "2 2 i 2 2 o"]:
    """Split the kernel of a transposed convolution (4x4, stride 2, padding 1) by output parity.

    Along one axis, output pixel 2y is w3 x[y-1] + w1 x[y] and pixel 2y+1 is w2 x[y] + w0 x[y+1].

    Args:
        kernel: (4, 4, i, o) indexed as in PyTorch's ConvTranspose2d (no flip).

    Returns:
        (2, 2, i, 2, 2, o), as for `upsampling_phases`.
    """
    taps = jnp.array([[3, 2], [1, 0]])  # (tap, parity) -> kernel index
    split = kernel[taps][:, :, taps]  # (p, a, q, b, i, o)
    return jnp.transpose(split, (0, 2, 4, 1, 3, 5))


def phase_convolution(
    x: Float[Array, "n h w i"], phases: Float[Array, "2 2 i 2 2 o"]
) -> Float[Array, "n H W o"]:
    """Convolve a map into one of twice its size, with one 2x2 kernel per parity of the output.

    All four phases run as one convolution with 4*o outputs on the map padded by one pixel; each
    phase takes its own window of the result, and the windows are interleaved.

    Args:
        x: (n, h, w, i) float32.
        phases: (2, 2, i, 2, 2, o), from `upsampling_phases` or `transposed_phases`.

    Returns:
        (n, 2h, 2w, o) float32.
    """
    if winograd_phases_pay(x, phases):
        return winograd_phases(x, phases)
    n, h, w, _ = x.shape
    i, o = phases.shape[2], phases.shape[5]
    y = jax.lax.conv_general_dilated(
        x,
        phases.reshape(2, 2, i, 4 * o),
        (1, 1),
        [(1, 1), (1, 1)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    ).reshape(n, h + 1, w + 1, 2, 2, o)
    return interleave([[y[:, a : a + h, b : b + w, a, b] for b in (0, 1)] for a in (0, 1)])


def upsample_convolve(
    x: Float[Array, "n h w i"], kernel: Float[Array, "3 3 i o"]
) -> Float[Array, "n H W o"]:
    """Apply nearest upsampling x2, then a 3x3 convolution with zero padding 1."""
    if nine_products_pay(x, kernel):
        return nine_products(x, kernel)
    return phase_convolution(x, upsampling_phases(kernel))


def transposed_convolve(
    x: Float[Array, "n h w i"], kernel: Float[Array, "4 4 i o"]
) -> Float[Array, "n H W o"]:
    """Compute PyTorch's ConvTranspose2d(kernel 4, stride 2, padding 1)."""
    return phase_convolution(x, transposed_phases(kernel))


def instance_norm(x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """Normalise every channel of every row to mean 0 and variance 1 (eps 1e-8 inside the root)."""
    centred = x - jnp.mean(x, axis=(1, 2), keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=(1, 2), keepdims=True) + EPS)


def blur(x: Float[Array, "n h w c"], taps: Sequence[float]) -> Float[Array, "n H W c"]:
    """Filter rows and columns with one kernel, zero padding (k - 1) // 2 on every side.

    An odd kernel keeps the map's size, an even one reduces it by a pixel. Computed as shifted sums:
    CPUs run depthwise convolutions far below their peak speed.
    """
    k = len(taps)
    side = (k - 1) // 2
    for axis in (1, 2):
        padded = jnp.pad(x, [(side, side) if a == axis else (0, 0) for a in range(4)])
        length = padded.shape[axis] - k + 1
        shifted = [jax.lax.slice_in_dim(padded, i, i + length, axis=axis) for i in range(k)]
        x = functools.reduce(jnp.add, (t * s for t, s in zip(taps, shifted, strict=True)))
    return x


# StyleGAN2's (1, 3, 3, 1) filter along one axis, with the gain 2 of zero insertion.
FILTER_TAPS = (0.25, 0.75, 0.75, 0.25)


def upsample_filtered(x: Float[Array, "n h w c"]) -> Float[Array, "n H W c"]:
    """Upsample x2 by zero insertion and the (1, 3, 3, 1) filter.

    Along one axis, y[2i] = (x[i-1] + 3 x[i]) / 4 and y[2i+1] = (3 x[i] + x[i+1]) / 4, with zeros
    outside.
    """
    for axis in (1, 2):
        length = x.shape[axis]
        padded = jnp.pad(x, [(1, 1) if a == axis else (0, 0) for a in range(4)])
        before = jax.lax.slice_in_dim(padded, 0, length, axis=axis)
        after = jax.lax.slice_in_dim(padded, 2, length + 2, axis=axis)
        pair = jnp.stack([0.25 * before + 0.75 * x, 0.75 * x + 0.25 * after], axis=axis + 1)
        x = pair.reshape(*x.shape[:axis], 2 * length, *x.shape[axis + 1 :])
    return x


def filter_convolve_upsampled(
    x: Float[Array, "n h w i"], kernel: Float[Array, "3 3 i o"]
) -> Float[Array, "n H W o"]:
    """Insert zeros x2, correlate 3x3 and filter with (1, 3, 3, 1) (StyleGAN2's up-convolution)."""
    return blur(convolve_zero_inserted(x, kernel), FILTER_TAPS)


def convolve_zero_inserted(
    x: Float[Array, "n h w i"], kernel: Float[Array, "3 3 i o"]
) -> Float[Array, "n H W o"]:
    """Insert zeros x2 and correlate with a 3x3 kernel: the result has 2h+1 pixels per side.

    Along one axis u[2i] = w0 x[i-1] + w2 x[i] and u[2i+1] = w1 x[i]; each parity is a separate
    convolution, with 9 taps in all.
    """
    _, h, w, _ = x.shape
    rows = []
    for a, taps_a in ((0, slice(0, 3, 2)), (1, slice(1, 2))):
        columns = []
        for b, taps_b in ((0, slice(0, 3, 2)), (1, slice(1, 2))):
            # Even positions: h + 1 of them, two taps. Odd positions: h, one tap, padded with zeros.
            padding = [(1 - a, 1 - a), (1 - b, 1 - b)]
            part = jax.lax.conv_general_dilated(
                x,
                kernel[taps_a, taps_b],
                (1, 1),
                padding,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
            columns.append(jnp.pad(part, [(0, 0), (0, a), (0, b), (0, 0)]))
        rows.append(jnp.stack(columns, axis=3))
    n, o = x.shape[0], kernel.shape[3]
    return jnp.stack(rows, axis=2).reshape(n, 2 * h + 2, 2 * w + 2, o)[:, :-1, :-1]
