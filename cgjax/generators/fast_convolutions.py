"""3x3 convolutions for CPUs: as matrix products, and with fewer multiplications than by definition.

On a CPU, products of (pixels, i) with (i, o) matrices get closer to peak speed than convolutions.
The forms:

* `unfolded_convolve`: one product, with the nine neighbours of a pixel side by side. For few
  pixels, where reading the kernel dominates the time.
* `winograd_convolve`: two outputs of three taps g from four inputs d [Lavin and Gray 2016]. Along
  one axis m0 = (d0-d2) g0, m1 = (d1+d2)(g0+g1+g2)/2, m2 = (d2-d1)(g0-g1+g2)/2, m3 = (d1-d3) g2;
  y0 = m0+m1+m2, y1 = m1-m2-m3. On a map: 16 products on a quarter of the pixels, 2.25 times fewer.
* `nine_products`: after nearest upsampling the outputs 2y and 2y+1 see the inputs y-1, y, y+1 as
  p + q and q + r, with p = w0 (x[y-1] - x[y]), q = (w0+w1+w2) x[y], r = w2 (x[y+1] - x[y]). On a
  map: 9 products on the small map, 4 times fewer than convolving the large one.
* `winograd_phases`: a stride-2 transposed convolution is a 2x2 kernel for each output parity; two
  outputs of two taps from three inputs are m0 = (d0-d1) g0, m1 = d1 (g0+g1), m2 = (d2-d1) g1;
  y0 = m0+m1, y1 = m1+m2. On a map: 36 products on a quarter of the pixels, 1.78 times fewer.

The products are computed separately: a single batched product needs its operands in one array, and
assembling that costs more than it saves. Rounding errors are within a factor of 2 of the plain
form's.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Thresholds from which the forms are faster, measured on two cores: the additions before and after
# the products grow with i + o, the products saved with i * o.
CHANNELS = 128
WINOGRAD_SIZE = 64  # largest height and width of maps with fewer than WIDE channels
WIDE = 256
STRIP = 2**26  # numbers, of input and output, transformed at a time
PIXELS = 512  # with fewer, transforming the kernel for Winograd costs as much as it saves
NINE_CHANNELS = 256
PHASES_CHANNELS = 128


def best_form(x: Array, kernel: Array) -> Callable[[Array, Array], Array] | None:
    """Return the form that is faster than a plain 3x3 convolution of these shapes, or None."""
    n, h, w, i = x.shape
    if jax.default_backend() != "cpu" or min(i, kernel.shape[3]) < CHANNELS:
        return None
    if n * h * w < PIXELS:
        return unfolded_convolve
    is_faster = max(h, w) <= WINOGRAD_SIZE or min(i, kernel.shape[3]) >= WIDE
    return winograd_convolve if h % 2 == w % 2 == 0 and is_faster else None


def nine_products_pay(x: Array, kernel: Array) -> bool:
    """Whether `nine_products` is faster than four convolutions, one per parity of the output."""
    return jax.default_backend() == "cpu" and min(kernel.shape[2:]) >= NINE_CHANNELS


def winograd_phases_pay(x: Array, phases: Array) -> bool:
    """Whether `winograd_phases` is faster than one convolution for all four parities."""
    n, h, w, i = x.shape
    is_large = n * h * w >= PIXELS and min(i, phases.shape[5]) >= PHASES_CHANNELS
    return jax.default_backend() == "cpu" and is_large and h % 2 == w % 2 == 0


def unfolded_convolve(
    x: Float[Array, "n h w i"], kernel: Float[Array, "3 3 i o"]
) -> Float[Array, "n h w o"]:
    """Correlate with a 3x3 kernel, zero padding 1."""
    n, h, w, i = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    neighbours = [padded[:, a : a + h, b : b + w] for a in range(3) for b in range(3)]
    unfolded = jnp.concatenate(neighbours, axis=-1).reshape(n * h * w, 9 * i)
    return (unfolded @ kernel.reshape(9 * i, -1)).reshape(n, h, w, -1)


def winograd_convolve(
    x: Float[Array, "n h w i"], kernel: Float[Array, "3 3 i o"]
) -> Float[Array, "n h w o"]:
    """Correlate with a 3x3 kernel, zero padding 1; h and w are even.

    The transformed input is four times as large as the map, so a large map is processed in strips.
    """
    n, h, w, i = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows = max(STRIP // (n * w * (i + kernel.shape[3])) // 2 * 2, 2)
    starts = range(0, h, rows)
    strips = [_winograd_strip(padded[:, s : min(s + rows, h) + 2], kernel) for s in starts]
    return strips[0] if len(strips) == 1 else jnp.concatenate(strips, axis=1)


def _winograd_strip(padded: Array, kernel: Array) -> Array:
    n, i = padded.shape[0], padded.shape[3]
    h, w = padded.shape[1] - 2, padded.shape[2] - 2
    shape = (n, h // 2, w // 2, kernel.shape[3])
    # Inputs 2t-1, ..., 2t+2 of tile t, along an axis split into pairs.
    pairs = padded.reshape(n, h // 2 + 1, 2, w // 2 + 1, 2, i)
    rows = [pairs[:, :-1, 0], pairs[:, :-1, 1], pairs[:, 1:, 0], pairs[:, 1:, 1]]
    products = []
    for row, taps in zip(_inputs(*rows), _taps(*kernel), strict=True):
        columns = [row[:, :, :-1, 0], row[:, :, :-1, 1], row[:, :, 1:, 0], row[:, :, 1:, 1]]
        factors = zip(_inputs(*columns), _taps(*taps), strict=True)
        products.append([(d.reshape(-1, i) @ g).reshape(shape) for d, g in factors])
    halves = [_outputs(*row) for row in products]
    y = [_outputs(*(half[b] for half in halves)) for b in (0, 1)]
    return interleave([[y[b][a] for b in (0, 1)] for a in (0, 1)])


def _inputs(a: Array, b: Array, c: Array, d: Array) -> tuple[Array, Array, Array, Array]:
    return a - c, b + c, c - b, b - d


def _taps(a: Array, b: Array, c: Array) -> tuple[Array, Array, Array, Array]:
    return a, 0.5 * (a + b + c), 0.5 * (a - b + c), c


def _outputs(a: Array, b: Array, c: Array, d: Array) -> tuple[Array, Array]:
    return a + b + c, b - c - d


def nine_products(
    x: Float[Array, "n h w i"], kernel: Float[Array, "3 3 i o"]
) -> Float[Array, "n H W o"]:
    """Apply nearest upsampling x2, then correlate with a 3x3 kernel, zero padding 1."""
    n, h, w, i = x.shape
    shape = (n, h, w, kernel.shape[3])

    def weights(k: Array) -> tuple[Array, Array, Array]:
        return k[0], k[0] + k[1] + k[2], k[2]

    products = []
    for row, taps in zip(_neighbours(x, 1), weights(kernel), strict=True):
        factors = zip(_neighbours(row, 2), weights(taps), strict=True)
        products.append([(d.reshape(-1, i) @ g).reshape(shape) for d, g in factors])
    columns = [[a + b, b + c] for a, b, c in products]
    p, q, r = columns
    return interleave([[p[b] + q[b] for b in (0, 1)], [q[b] + r[b] for b in (0, 1)]])


def _neighbours(x: Array, axis: int) -> tuple[Array, Array, Array]:
    """Return x[y-1] - x[y], x[y] and x[y+1] - x[y] along an axis, zeros outside."""
    size = x.shape[axis]
    padded = jnp.pad(x, [(1, 1) if a == axis else (0, 0) for a in range(x.ndim)])
    before = jax.lax.slice_in_dim(padded, 0, size, axis=axis)
    after = jax.lax.slice_in_dim(padded, 2, size + 2, axis=axis)
    return before - x, x, after - x


def winograd_phases(
    x: Float[Array, "n h w i"], phases: Float[Array, "2 2 i 2 2 o"]
) -> Float[Array, "n H W o"]:
    """Compute `layers.phase_convolution`; h and w are even."""
    n, h, w, i = x.shape
    shape = (n, h // 2, w // 2, phases.shape[5])
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))

    def inputs(x: Array, parity: int, axis: int) -> tuple[Array, Array, Array]:
        size = x.shape[axis] - 3  # from the first tile's input to the last one's
        a, b, c = (
            jax.lax.slice_in_dim(x, parity + k, parity + k + size, 2, axis) for k in range(3)
        )
        return a - b, b, c - b

    def phase(a: int, b: int) -> Array:
        products = []
        kernel = phases[:, :, :, a, b]
        for row, taps in zip(inputs(padded, a, 1), _two_taps(*kernel), strict=True):
            factors = zip(inputs(row, b, 2), _two_taps(*taps), strict=True)
            products.append([(d.reshape(-1, i) @ g).reshape(shape) for d, g in factors])
        p, q, r = ([u + v, v + t] for u, v, t in products)
        return interleave([[p[k] + q[k] for k in (0, 1)], [q[k] + r[k] for k in (0, 1)]])

    return interleave([[phase(a, b) for b in (0, 1)] for a in (0, 1)])


def _two_taps(a: Array, b: Array) -> tuple[Array, Array, Array]:
    return a, a + b, b


def interleave(parts: list[list[Array]]) -> Float[Array, "n H W o"]:
    """Interleave four (n, h, w, o) maps, by parity of row and column, into one (n, 2h, 2w, o)."""
    n, h, w, o = parts[0][0].shape
    rows = [jnp.stack(row, axis=3) for row in parts]
    return jnp.stack(rows, axis=2).reshape(n, 2 * h, 2 * w, o)
