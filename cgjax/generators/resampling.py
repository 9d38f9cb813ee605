"""Resampling filters of any length on NHWC arrays, and StyleGAN3's filtered nonlinearity.

A leaky ReLU creates frequencies above what a map's sampling rate can represent. So the map is first
resampled to a higher rate, and on the way back a low-pass filter removes what the lower rate cannot
represent. Both filters are separable, except for the round down-sampling filters of config-r.

A filter along one axis is a banded matrix. Small maps are multiplied by it, zeros included; large
maps are shifted and summed, which a CPU does at memory speed. No zeros are inserted and nothing is
interleaved: with u outputs for each input, y[u m + p] = sum over e of g[e, p] x[m + e], so the u
phases are one broadcast product.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cgjax.generators.layers import convolve_zero_inserted, leaky_relu

# Up to this many pixels along an axis, the matrix product is faster (measured on two cores).
DENSE = 128


class Resampling(NamedTuple):
    """The parameters of `filtered_activation`.

    Attributes:
        up: factor of the first resampling.
        down: factor of the second.
        padding: pixels at the upper rate added before and after along both axes, between zero
            insertion and the first filter; negative numbers crop.
        leak: slope of the leaky ReLU below zero.
        gain: factor applied to its output.
        clamp: bound on the magnitude of the result; None for none.
    """

    up: int
    down: int
    padding: tuple[int, int]
    leak: float
    gain: float
    clamp: float | None


def filtered_activation(
    x: Float[Array, "n h w c"],
    up_filter: Float[Array, " f"],
    down_filter: Float[Array, " g"] | Float[Array, "g g"],
    how: Resampling,
) -> Float[Array, "n H W c"]:
    """Resample, apply the leaky ReLU, resample back.

    Args:
        x: (n, h, w, c) float32.
        up_filter: (taps,), for both axes; the gain of zero insertion is applied here.
        down_filter: (taps,) for both axes, or (taps, taps).
        how: the factors, padding and bounds.

    Returns:
        (n, (h up + padding - taps + 1 - taps of the second) / down + 1, ..., c) float32.
    """
    for axis in (1, 2):
        x = _stored(upsample(x, up_filter, how.up, how.padding, axis))
    x = leaky_relu(x, how.leak) * how.gain
    if how.clamp is not None:
        x = jnp.clip(x, -how.clamp, how.clamp)
    if down_filter.ndim == 2:
        return downsample_round(_stored(x), down_filter, how.down)
    for axis in (1, 2):
        x = downsample(_stored(x), down_filter, how.down, axis)
    return x


def _stored(x: Array) -> Array:
    """Keep XLA from recomputing x for each of the sums that read it."""
    stored: Array = jax.lax.optimization_barrier(x)
    return stored


def upsample(
    x: Float[Array, "n h w c"],
    taps: Float[Array, " f"],
    factor: int,
    padding: tuple[int, int],
    axis: int,
) -> Float[Array, "n H W c"]:
    """Insert zeros, pad or crop, and convolve along one axis; keeps the mean.

    With i over the samples of x, y[t] = factor * sum of x[i] taps[t + f - 1 - before - factor i].
    """
    num, before = len(taps), padding[0]
    length = x.shape[axis] * factor + sum(padding) - num + 1
    offset = num - 1 - before
    if num == factor == 1:
        return _fit(x, -before, x.shape[axis] + padding[1], axis) * taps[0]
    if length <= DENSE:
        index = (
            offset
            + jnp.arange(length, dtype=jnp.int32)[:, None]
            - factor * jnp.arange(x.shape[axis], dtype=jnp.int32)[None]
        )
        return _multiply(_pick(taps, index) * factor, x, axis)
    return _upsample_by_phases(x, taps, factor, offset, length, axis)


def _upsample_by_phases(
    x: Array, taps: Float[Array, " f"], factor: int, offset: int, length: int, axis: int
) -> Array:
    """Compute `length` samples of `upsample` as `factor` phases, each a sum of shifted maps."""
    num = len(taps)
    periods = -(-length // factor)
    # Phase p of period m reads x[m + first], ..., x[m + last].
    first = math.ceil((offset - num + 1) / factor)
    last = (offset + factor - 1) // factor
    index = (
        offset
        + jnp.arange(factor, dtype=jnp.int32)[None]
        - factor * jnp.arange(first, last + 1, dtype=jnp.int32)[:, None]
    )
    weights = _pick(taps, index) * factor
    padded = _fit(x, first, periods + last, axis)
    shape = [1] * (x.ndim + 1)
    shape[axis + 1] = factor
    terms = (
        jnp.expand_dims(jax.lax.slice_in_dim(padded, e, e + periods, axis=axis), axis + 1)
        * weights[e].reshape(shape)
        for e in range(last - first + 1)
    )
    phases = functools.reduce(jnp.add, terms)
    y = phases.reshape(*x.shape[:axis], periods * factor, *x.shape[axis + 1 :])
    return jax.lax.slice_in_dim(y, 0, length, axis=axis)


def _pick(taps: Float[Array, " f"], index: Array) -> Array:
    """Return the taps at the given indices, zeros outside."""
    inside = (index >= 0) & (index < len(taps))
    return jnp.where(inside, taps[jnp.clip(index, 0, len(taps) - 1)], 0)


def _multiply(matrix: Float[Array, "t s"], x: Array, axis: int) -> Array:
    """Multiply every line of a map along an axis by a matrix, as a batch of plain products."""
    n, h, w, c = x.shape
    batch = n if axis == 1 else n * h
    lines = x.reshape(batch, x.shape[axis], -1)
    y = jnp.matmul(jnp.broadcast_to(matrix, (batch, *matrix.shape)), lines)
    return y.reshape((n, -1, w, c) if axis == 1 else (n, h, -1, c))


def _fit(x: Array, start: int, stop: int, axis: int) -> Array:
    """Return x[start:stop] along an axis, with zeros outside the map."""
    pads = [(0, 0, 0)] * x.ndim
    pads[axis] = (-start, stop - x.shape[axis], 0)
    return jax.lax.pad(x, jnp.zeros((), x.dtype), pads)


def downsample(
    x: Float[Array, "n h w c"], taps: Float[Array, " f"], factor: int, axis: int
) -> Float[Array, "n H W c"]:
    """Convolve along one axis without padding, and keep samples 0, factor, 2 factor, ...."""
    num = len(taps)
    stop = x.shape[axis] - num + 1
    if num > 1 and x.shape[axis] <= DENSE:
        kept = factor * jnp.arange(-(-stop // factor), dtype=jnp.int32)[:, None]
        return _multiply(
            _pick(taps, num - 1 + kept - jnp.arange(x.shape[axis], dtype=jnp.int32)[None]), x, axis
        )
    terms = (
        taps[num - 1 - k] * jax.lax.slice_in_dim(x, k, k + stop, factor, axis=axis)
        for k in range(num)
    )
    return functools.reduce(jnp.add, terms)


def double(x: Float[Array, "n h w c"], taps: Sequence[float]) -> Float[Array, "n H W c"]:
    """Upsample x2 by zero insertion and a filter of any length along both axes (StyleGAN2).

    Args:
        x: (n, h, w, c) float32.
        taps: the filter's taps, which sum to 1.
    """
    num = len(taps)
    for axis in (1, 2):
        x = upsample(x, jnp.asarray(taps, x.dtype), 2, ((num + 1) // 2, (num - 2) // 2), axis)
    return x


def double_and_convolve(
    x: Float[Array, "n h w i"], kernel: Float[Array, "3 3 i o"], taps: Sequence[float]
) -> Float[Array, "n H W o"]:
    """Insert zeros x2, correlate with a 3x3 kernel, filter (StyleGAN2's up-convolution).

    Args:
        x: (n, h, w, i) float32.
        kernel: (3, 3, i, o).
        taps: the filter's taps, which sum to 1.
    """
    x = convolve_zero_inserted(x, kernel)
    num = len(taps)
    for axis in (1, 2):
        padding = ((num + 1) // 2 - 1, (num - 2) // 2)
        x = upsample(x, 2 * jnp.asarray(taps, x.dtype), 1, padding, axis)
    return x


def downsample_round(
    x: Float[Array, "n h w c"], taps: Float[Array, "f f"], factor: int
) -> Float[Array, "n H W c"]:
    """Convolve with a two-dimensional filter, without padding, and keep every factor-th sample."""
    num, kernel = len(taps), taps[::-1, ::-1]
    high, wide = (side - num + 1 for side in x.shape[1:3])

    def row_sum(k: int) -> Array:
        rows = jax.lax.slice_in_dim(x, k, k + high, factor, axis=1)
        terms = (
            kernel[k, j] * jax.lax.slice_in_dim(rows, j, j + wide, factor, axis=2)
            for j in range(num)
        )
        return functools.reduce(jnp.add, terms)

    return functools.reduce(jnp.add, map(row_sum, range(num)))
