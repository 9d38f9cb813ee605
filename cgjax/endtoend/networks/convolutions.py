"""Convolutions; those of 4x4 with stride 2, up and down, have derivatives that are fast on CPUs.

Three maps are linear in both arguments, and each is a derivative of the others:

    y = halve(x, k)             (n, 2h, 2w, i) to (n, h, w, o)
    x = double(y, k)            its adjoint in x, a transposed convolution
    k = kernel_between(x, y)    its adjoint in k

XLA computes the derivative by a kernel as a convolution whose window is the whole map, on a CPU a
hundred times slower than the equivalent matrix product. The rules below map the three onto each
other to any order of derivative; a gradient penalty needs the second.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from cgjax.endtoend.networks.layers import normal, uniform
from cgjax.generators.layers import transposed_convolve

SIDE = 4
"""Height and width of a kernel."""

AT_A_TIME = 2**21
"""Size of a block of images' windows, in numbers: a few megabytes, which a CPU's cache holds."""

THIN = 32
"""Up to this many channels windows are joined before multiplying, for one longer product."""

COLOURS = 8
"""Up to this many channels a product of joined windows beats XLA's convolution on a CPU."""

_LAYOUT = ("NHWC", "HWIO", "NHWC")


@jax.custom_vjp
def halve(x: Float[Array, "n h w i"], kernel: Float[Array, "4 4 i o"]) -> Float[Array, "n p q o"]:
    """Correlate with stride 2 and padding 1; h = 2p and w = 2q."""
    return _correlate(x, kernel)


@jax.custom_vjp
def double(y: Float[Array, "n p q o"], kernel: Float[Array, "4 4 i o"]) -> Float[Array, "n h w i"]:
    """Return the adjoint of `halve` in x: a transposed convolution to h = 2p and w = 2q."""
    return transposed_convolve(y, kernel.swapaxes(2, 3))


@jax.custom_vjp
def kernel_between(
    x: Float[Array, "n h w i"], y: Float[Array, "n p q o"]
) -> Float[Array, "4 4 i o"]:
    """Return the adjoint of `halve` in its kernel: the sum over places of x's window times y."""
    if jax.default_backend() != "cpu":
        zeros = jnp.zeros((SIDE, SIDE, x.shape[3], y.shape[3]), x.dtype)
        return jax.linear_transpose(lambda kernel: _correlate(x, kernel), zeros)(y)[0]
    num, i = len(x), x.shape[3]
    size = y[0, :, :, 0].size * SIDE * SIDE * i
    block = max(1, min(num, AT_A_TIME // size))
    while num % block:
        block -= 1
    parts = tuple(a.reshape(num // block, block, *a.shape[1:]) for a in (x, y))

    is_thin = i <= THIN

    def add(sums: list[Array], part: tuple[Array, ...]) -> tuple[list[Array], None]:
        x, y = part[0], part[1].reshape(-1, part[1].shape[3])
        pieces = windows(x)
        if is_thin:
            pieces = [jnp.concatenate(pieces, axis=1)]
        return [s + y.T @ piece for s, piece in zip(sums, pieces, strict=True)], None

    num_pieces = 1 if is_thin else SIDE * SIDE // 2
    none = [jnp.zeros((y.shape[3], SIDE * SIDE * i // num_pieces), x.dtype)] * num_pieces
    sums = jnp.concatenate(jax.lax.scan(add, none, parts)[0], axis=1)
    return sums.T.reshape(SIDE, SIDE, i, -1)


def windows(x: Float[Array, "n h w i"]) -> list[Float[Array, "places two"]]:
    """Return the window of `halve` at every place, in pieces of two neighbours in a row.

    Joining them takes one more copy, which pays off for few channels only: see `THIN`.

    >>> two, *others = windows(jnp.ones((2, 6, 6, 5)))
    >>> two.shape, len(others)
    ((18, 10), 7)
    """
    n, h, w, i = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    # Two neighbouring columns are contiguous in memory, so they are copied together.
    pairs = padded.reshape(n, h // 2 + 1, 2, w // 2 + 1, 2 * i)
    return [
        pairs[:, a : a + h // 2, s, b : b + w // 2].reshape(-1, 2 * i)
        for a in (0, 1)
        for s in (0, 1)
        for b in (0, 1)
    ]


def _correlate(x: Array, kernel: Array) -> Array:
    if jax.default_backend() == "cpu" and x.shape[3] <= COLOURS:
        joined = jnp.concatenate(windows(x), axis=1)
        product = joined @ kernel.reshape(-1, kernel.shape[3])
        return product.reshape(len(x), x.shape[1] // 2, x.shape[2] // 2, -1)
    padding = [(1, 1)] * 2
    return jax.lax.conv_general_dilated(x, kernel, (2, 2), padding, dimension_numbers=_LAYOUT)


def _keeping_inputs(f: Any) -> Any:
    return lambda a, b: (f(a, b), (a, b))


halve.defvjp(_keeping_inputs(halve), lambda xk, y: (double(y, xk[1]), kernel_between(xk[0], y)))
double.defvjp(_keeping_inputs(double), lambda yk, x: (halve(x, yk[1]), kernel_between(x, yk[0])))
kernel_between.defvjp(
    _keeping_inputs(kernel_between), lambda xy, k: (double(xy[1], k), halve(xy[0], k))
)


class Halving(nnx.Module):
    """A 4x4 convolution of stride 2, its kernel N(0, 0.02), optionally with a bias."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool, rngs: nnx.Rngs):
        self.kernel = normal(rngs, SIDE, SIDE, inputs, outputs)
        self.bias = nnx.Param(jnp.zeros(outputs, jnp.float32)) if bias else None

    def __call__(self, x: Float[Array, "n h w i"]) -> Float[Array, "n p q o"]:
        """Halve the maps' height and width."""
        y = halve(x, self.kernel[...])
        return y if self.bias is None else y + self.bias[...][None, None, None]


class Doubling(nnx.Module):
    """A 4x4 transposed convolution of stride 2, its kernel N(0, 0.02), optionally with a bias.

    The kernel is (4, 4, inputs, outputs), indexed as in PyTorch, not flipped.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: bool, rngs: nnx.Rngs):
        self.kernel = normal(rngs, SIDE, SIDE, inputs, outputs)
        self.bias = nnx.Param(jnp.zeros(outputs, jnp.float32)) if bias else None

    def __call__(self, x: Float[Array, "n p q i"]) -> Float[Array, "n h w o"]:
        """Double the maps' height and width."""
        y = double(x, self.kernel[...].swapaxes(2, 3))
        return y if self.bias is None else y + self.bias[...][None, None, None]


class Convolution(nnx.Module):
    """A convolution of stride 1 that keeps the maps' size, initialised as in PyTorch."""

    def __init__(
        self, inputs: int, outputs: int, *, side: int = 3, bias: bool = True, rngs: nnx.Rngs
    ):
        bound = (side * side * inputs) ** -0.5
        self.kernel = uniform(rngs, bound, side, side, inputs, outputs)
        self.bias = uniform(rngs, bound, outputs) if bias else None

    def __call__(self, x: Float[Array, "n h w i"]) -> Float[Array, "n h w o"]:
        """Apply the layer."""
        y = jax.lax.conv_general_dilated(
            x, self.kernel[...], (1, 1), "SAME", dimension_numbers=_LAYOUT
        )
        return y if self.bias is None else y + self.bias[...][None, None, None]
