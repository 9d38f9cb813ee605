"""The arithmetic that the generator families share, on NHWC arrays.

Both ways in which these networks double a map, nearest upsampling followed by a 3x3 convolution and
a stride-2 4x4 transposed convolution, are four 2x2 convolutions on the *small* map, one for each
parity (row, column) of the output pixel. `phase_convolution` is that one code path: it costs 4/9 of
the operations of convolving the upsampled map and never dilates an input with zeros.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

EPS = 1e-8


def pixel_norm(x: Float[Array, "*batch c"]) -> Float[Array, "*batch c"]:
    """Divide every pixel's channel vector by its root mean square (eps 1e-8 inside the root)."""
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
        # Sums of slices, not a product with a 0/1 matrix: that product costs more than the
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
        kernel: (4, 4, i, o) indexed as PyTorch's ConvTranspose2d indexes it (no flip).

    Returns:
        (2, 2, i, 2, 2, o), as `upsampling_phases`.
    """
    taps = jnp.array([[3, 2], [1, 0]])  # (tap, parity) -> kernel index
    split = kernel[taps][:, :, taps]  # (p, a, q, b, i, o)
    return jnp.transpose(split, (0, 2, 4, 1, 3, 5))


def phase_convolution(
    x: Float[Array, "n h w i"], phases: Float[Array, "2 2 i 2 2 o"]
) -> Float[Array, "n H W o"]:
    """Convolve a map into one of twice its size, one 2x2 kernel for each parity of the output.

    All four phases run as one convolution with 4*o outputs on the map padded by one pixel; each
    phase then reads its own window, and the windows are interleaved.

    Args:
        x: (n, h, w, i) float32.
        phases: (2, 2, i, 2, 2, o), from `upsampling_phases` or `transposed_phases`.

    Returns:
        (n, 2h, 2w, o) float32.
    """
    n, h, w, _ = x.shape
    i, o = phases.shape[2], phases.shape[5]
    y = jax.lax.conv_general_dilated(
        x,
        phases.reshape(2, 2, i, 4 * o),
        (1, 1),
        [(1, 1), (1, 1)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    ).reshape(n, h + 1, w + 1, 2, 2, o)
    rows = [
        jnp.stack([y[:, a : a + h, b : b + w, a, b] for b in (0, 1)], axis=3) for a in (0, 1)
    ]  # each (n, h, w, 2, o)
    return jnp.stack(rows, axis=2).reshape(n, 2 * h, 2 * w, o)


def upsample_convolve(
    x: Float[Array, "n h w i"], kernel: Float[Array, "3 3 i o"]
) -> Float[Array, "n H W o"]:
    """Nearest upsampling x2, then a 3x3 convolution with zero padding 1."""
    return phase_convolution(x, upsampling_phases(kernel))


def transposed_convolve(
    x: Float[Array, "n h w i"], kernel: Float[Array, "4 4 i o"]
) -> Float[Array, "n H W o"]:
    """PyTorch's ConvTranspose2d(kernel 4, stride 2, padding 1)."""
    return phase_convolution(x, transposed_phases(kernel))
