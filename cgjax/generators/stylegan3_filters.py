"""StyleGAN3's layers as a signal passes them: rates, cutoffs, sizes, and the low-pass filters.

Every layer has a cutoff and a sampling rate of its own; both grow from the input to the image
[Karras et al. 2021, section 3.2 and appendix F]. Rates and frequencies are in cycles over the width
of the image, sizes in pixels. A map is wider than the image by a margin on every side.
"""

from __future__ import annotations

import functools
from typing import Annotated, NamedTuple

import numpy as np
import scipy.signal
import scipy.special

from cgjax.errors import UserError
from cgjax.generators.architecture import Count, Range, Rate, Size


class Schedule(NamedTuple):
    """What decides the layers of a StyleGAN3.

    Attributes:
        image_size: height and width of an image.
        num_layers: how many layers there are before the one that makes the image.
        num_critical: how many of the last layers are critically sampled.
        first_cutoff: the input's cutoff.
        first_stopband: the input's stopband.
        last_stopband_rel: the last stopband, relative to the last cutoff.
        margin: pixels on every side beyond the image.
        kernel: height and width of the convolutions' kernels.
        filter_size: taps of a filter for each pixel of the lower rate.
        oversampling: how many times the higher of two rates the nonlinearity is sampled.
        radial: whether down-sampling filters are round where nothing is critically sampled.
    """

    image_size: Size
    num_layers: Annotated[int, Range(1, 100)] = 14
    num_critical: Count = 2
    first_cutoff: Rate = 2.0
    first_stopband: Rate = 2**2.1
    last_stopband_rel: Rate = 2**0.3
    margin: Count = 10
    kernel: Annotated[int, Range(1, 100)] = 3
    filter_size: Annotated[int, Range(1, 100)] = 6
    oversampling: Annotated[int, Range(1, 100)] = 2
    radial: bool = False


class LayerPlan(NamedTuple):
    """One layer: what comes in, what goes out, and the resampling between the two.

    Attributes:
        in_size: height and width of what comes in.
        out_size: of what goes out.
        in_cutoff: cutoff of what comes in; a filter's transition band is twice the half width.
        out_cutoff: of what goes out.
        in_half_width: of what comes in.
        out_half_width: of what goes out.
        rate: sampling rate of what goes out.
        middle_rate: sampling rate of the nonlinearity.
        kernel: height and width of the convolution's kernel.
        up: factor from the rate that comes in to the middle one.
        down: from the middle one to the one that goes out.
        up_taps: taps of the up-sampling filter, 1 for none.
        down_taps: of the down-sampling one.
        radial: whether the latter is round.
        padding: pixels added before and after, along both axes, at the middle rate; negative ones
            are taken off.
        is_image: whether this layer makes the image.
    """

    in_size: int
    out_size: int
    in_cutoff: float
    out_cutoff: float
    in_half_width: float
    out_half_width: float
    rate: int
    middle_rate: int
    kernel: int
    up: int
    down: int
    up_taps: int
    down_taps: int
    radial: bool
    padding: tuple[int, int]
    is_image: bool


class InputPlan(NamedTuple):
    """The input's Fourier features.

    Attributes:
        size: height and width of the map.
        rate: its sampling rate.
        cutoff: above it, features fade out.
    """

    size: int
    rate: int
    cutoff: float


def cutoffs(schedule: Schedule) -> np.ndarray:
    """Return the layers' cutoffs, float64, growing geometrically up to the critical layers."""
    return _grow(schedule, schedule.first_cutoff, schedule.image_size / 2)


def _grow(schedule: Schedule, first: float, last: float) -> np.ndarray:
    layers = np.arange(schedule.num_layers + 1)
    exponents = np.minimum(layers / (schedule.num_layers - schedule.num_critical), 1)
    return np.asarray(first * (last / first) ** exponents)


def plan_layers(schedule: Schedule) -> tuple[InputPlan, tuple[LayerPlan, ...]]:
    """Lay the layers out.

    Example:
        >>> source, layers = plan_layers(Schedule(256))
        >>> source.size, [layer.out_size for layer in layers][-3:], layers[0].padding
        (36, [276, 256, 256], (9, 8))

    Raises:
        UserError: if all layers are critically sampled.
    """
    if schedule.num_critical >= schedule.num_layers:
        raise UserError(
            f"num_critical={schedule.num_critical}: expected less than num_layers="
            f"{schedule.num_layers}"
        )
    count, cutoff = schedule.num_layers, cutoffs(schedule)
    last_stopband = schedule.image_size / 2 * schedule.last_stopband_rel
    stopband = _grow(schedule, schedule.first_stopband, last_stopband)
    rates = np.exp2(np.ceil(np.log2(np.minimum(stopband * 2, schedule.image_size))))
    half_widths = np.maximum(stopband, rates / 2) - cutoff
    sizes = rates + 2 * schedule.margin
    sizes[-2:] = schedule.image_size
    layers = []
    for i in range(count + 1):
        before = max(i - 1, 0)
        is_image = i == count
        is_critical = i >= count - schedule.num_critical
        kernel = 1 if is_image else schedule.kernel
        middle = max(rates[before], rates[i]) * (1 if is_image else schedule.oversampling)
        up, down = round(middle / rates[before]), round(middle / rates[i])
        up_taps, down_taps = (
            schedule.filter_size * factor if factor > 1 and not is_image else 1
            for factor in (up, down)
        )
        total = (sizes[i] - 1) * down + 1 - (sizes[before] + kernel - 1) * up
        total = int(total) + up_taps + down_taps - 2
        low = (total + up) // 2
        layers.append(
            LayerPlan(
                in_size=int(sizes[before]),
                out_size=int(sizes[i]),
                in_cutoff=float(cutoff[before]),
                out_cutoff=float(cutoff[i]),
                in_half_width=float(half_widths[before]),
                out_half_width=float(half_widths[i]),
                rate=int(rates[i]),
                middle_rate=int(middle),
                kernel=kernel,
                up=up,
                down=down,
                up_taps=up_taps,
                down_taps=down_taps,
                radial=schedule.radial and not is_critical and down_taps > 1,
                padding=(low, total - low),
                is_image=is_image,
            )
        )
    return InputPlan(int(sizes[0]), int(rates[0]), float(cutoff[0])), tuple(layers)


def up_filter(layer: LayerPlan) -> np.ndarray:
    """Design a layer's up-sampling filter, (taps,) float32."""
    return low_pass(
        layer.up_taps, layer.in_cutoff, layer.in_half_width, layer.middle_rate, radial=False
    )


def down_filter(layer: LayerPlan) -> np.ndarray:
    """Design a layer's down-sampling filter, (taps,) or, where it is round, (taps, taps)."""
    return low_pass(
        layer.down_taps,
        layer.out_cutoff,
        layer.out_half_width,
        layer.middle_rate,
        radial=layer.radial,
    )


@functools.lru_cache(maxsize=1024)
def low_pass(
    taps: int, cutoff: float, half_width: float, rate: float, *, radial: bool
) -> np.ndarray:
    """Design a low-pass filter with a Kaiser window; it sums to 1.

    Args:
        taps: along one axis.
        cutoff: the middle of the transition band.
        half_width: half the width of the transition band.
        rate: the sampling rate.
        radial: whether the ideal filter is round, the jinc J1(2 pi f r) / (pi r), instead of a
            product of one along each axis.

    Returns:
        (taps,) or (taps, taps) float32, read-only: it is kept for the next call.
    """
    design = np.asarray(_design(taps, cutoff, half_width, rate, radial=radial), np.float32)
    design.flags.writeable = False
    return design


def _design(
    taps: int, cutoff: float, half_width: float, rate: float, *, radial: bool
) -> np.ndarray:
    if taps == 1:
        return np.ones(1)
    if not radial:
        return np.asarray(scipy.signal.firwin(taps, cutoff, width=2 * half_width, fs=rate))
    place = (np.arange(taps) - (taps - 1) / 2) / rate
    radius = np.hypot(place[:, None], place[None])
    # An odd number of taps has one in the middle, where the jinc's limit is pi f^2.
    safe = np.where(radius == 0, 1, radius)
    ideal = scipy.special.j1(2 * np.pi * cutoff * safe) / (np.pi * safe)
    ideal = np.where(radius == 0, np.pi * cutoff**2, ideal)
    attenuation = scipy.signal.kaiser_atten(taps, 2 * half_width / (rate / 2))
    window = scipy.signal.windows.kaiser(taps, scipy.signal.kaiser_beta(attenuation))
    shaped = ideal * window[:, None] * window[None]
    return np.asarray(shaped / shaped.sum())
