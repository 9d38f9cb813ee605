"""The signal-processing plan of StyleGAN3: each layer's rates, cutoffs, sizes and low-pass filters.

Every layer has its own cutoff and sampling rate; both grow from the input to the image [Karras et
al. 2021, section 3.2 and appendix F]. Rates and frequencies are in cycles per image width, sizes in
pixels. A map is wider than the image by a margin on every side.
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
    """The settings that determine the layers of a StyleGAN3.

    Attributes:
        image_size: height and width of an image.
        num_layers: number of layers before the one that makes the image.
        num_critical: number of critically sampled layers at the end.
        first_cutoff: the input's cutoff.
        first_stopband: the input's stopband.
        last_stopband_rel: the last stopband, relative to the last cutoff.
        margin: pixels beyond the image on every side.
        kernel: height and width of the convolution kernels.
        filter_size: filter taps per pixel of the lower rate.
        oversampling: sampling rate of the nonlinearity, relative to the higher of the two rates
            around it.
        radial: whether down-sampling filters are round, except in critically sampled layers.
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
    """One layer: its input, its output, and the resampling between the two.

    Attributes:
        in_size: height and width of the input.
        out_size: height and width of the output.
        in_cutoff: cutoff frequency of the input.
        out_cutoff: cutoff frequency of the output.
        in_half_width: half the width of the transition band of the input's filter.
        out_half_width: half the width of the transition band of the output's filter.
        rate: sampling rate of the output.
        middle_rate: sampling rate of the nonlinearity.
        kernel: height and width of the convolution kernel.
        up: factor from the input's rate to the middle rate.
        down: factor from the middle rate to the output's rate.
        up_taps: taps of the up-sampling filter, 1 for none.
        down_taps: taps of the down-sampling filter, 1 for none.
        radial: whether the down-sampling filter is round.
        padding: pixels added before and after, along both axes, at the middle rate; negative
            numbers crop.
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
        cutoff: the frequency above which features fade out.
    """

    size: int
    rate: int
    cutoff: float


def cutoffs(schedule: Schedule) -> np.ndarray:
    """Return the layers' cutoffs, float64, growing geometrically up to the critical layers."""
    return _geometric(schedule, schedule.first_cutoff, schedule.image_size / 2)


def _geometric(schedule: Schedule, first: float, last: float) -> np.ndarray:
    layers = np.arange(schedule.num_layers + 1)
    exponents = np.minimum(layers / (schedule.num_layers - schedule.num_critical), 1)
    return np.asarray(first * (last / first) ** exponents)


def plan_layers(schedule: Schedule) -> tuple[InputPlan, tuple[LayerPlan, ...]]:
    """Compute the plan of the input and of each layer.

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
    stopband = _geometric(schedule, schedule.first_stopband, last_stopband)
    rates = np.exp2(np.ceil(np.log2(np.minimum(stopband * 2, schedule.image_size))))
    half_widths = np.maximum(stopband, rates / 2) - cutoff
    sizes = rates + 2 * schedule.margin
    sizes[-2:] = schedule.image_size
    layers = []
    for i in range(count + 1):
        previous = max(i - 1, 0)
        is_image = i == count
        is_critical = i >= count - schedule.num_critical
        kernel = 1 if is_image else schedule.kernel
        middle = max(rates[previous], rates[i]) * (1 if is_image else schedule.oversampling)
        up, down = round(middle / rates[previous]), round(middle / rates[i])
        up_taps, down_taps = (
            schedule.filter_size * factor if factor > 1 and not is_image else 1
            for factor in (up, down)
        )
        # Padding before and after together, such that the output has the planned size.
        total = (sizes[i] - 1) * down + 1 - (sizes[previous] + kernel - 1) * up
        total = int(total) + up_taps + down_taps - 2
        low = (total + up) // 2
        layers.append(
            LayerPlan(
                in_size=int(sizes[previous]),
                out_size=int(sizes[i]),
                in_cutoff=float(cutoff[previous]),
                out_cutoff=float(cutoff[i]),
                in_half_width=float(half_widths[previous]),
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
    """Design a layer's down-sampling filter, (taps,) or, if it is round, (taps, taps)."""
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
        taps: number of taps along one axis.
        cutoff: the middle of the transition band.
        half_width: half the width of the transition band.
        rate: the sampling rate.
        radial: whether the ideal filter is round, the jinc J1(2 pi f r) / (pi r), instead of
            separable.

    Returns:
        (taps,) or (taps, taps) float32, read-only because it is cached.
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
    position = (np.arange(taps) - (taps - 1) / 2) / rate
    radius = np.hypot(position[:, None], position[None])
    # An odd number of taps has one at radius 0, where the jinc's limit is pi f^2.
    safe = np.where(radius == 0, 1, radius)
    ideal = scipy.special.j1(2 * np.pi * cutoff * safe) / (np.pi * safe)
    ideal = np.where(radius == 0, np.pi * cutoff**2, ideal)
    attenuation = scipy.signal.kaiser_atten(taps, 2 * half_width / (rate / 2))
    window = scipy.signal.windows.kaiser(taps, scipy.signal.kaiser_beta(attenuation))
    shaped = ideal * window[:, None] * window[None]
    return np.asarray(shaped / shaped.sum())
