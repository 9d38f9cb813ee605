"""StyleGAN3 files of NVIDIA's stylegan3 repository: its pickles, or a state dict of `G_ema`.

A pickle records what its network was built with; for a state dict, most of it follows from names,
shapes and filters, and the rest is assumed to be the code's defaults. Either way, the filters that
these values lead to are compared with those in the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cgjax.errors import UserError
from cgjax.generators.stylegan3_filters import (
    LayerPlan,
    Schedule,
    down_filter,
    plan_layers,
    up_filter,
)
from converters.axes import conv_kernel, dense_kernel
from converters.conversion import Conversion, Layout
from converters.mapping import fan_in_scale
from converters.networks import Network, has_tensors
from converters.nvidia import (
    STYLEGAN3,
    BuildRecord,
    build_record,
    check_activations,
    get_clamp,
    get_rate,
    read_inputs,
)
from converters.rows import Row, layer_rows, take_rows
from converters.settings import Settings
from converters.tensors import Tensors

# Names in NVIDIA's code: our field of the schedule, the code's default, least value.
_SETTINGS: dict[str, tuple[str, Any, float]] = {
    "num_critical": ("num_critical", 2, 0),
    "first_cutoff": ("first_cutoff", 2.0, 1e-3),
    "first_stopband": ("first_stopband", 2**2.1, 1e-3),
    "last_stopband_rel": ("last_stopband_rel", 2**0.3, 1e-3),
    "margin_size": ("margin", 10, 0),
    "filter_size": ("filter_size", 6, 1),
    "lrelu_upsampling": ("oversampling", 2, 1),
}
_LAYER = r"synthesis\.(L(\d{1,4})_(\d{1,6})_(\d{1,6}))\.weight"

# Files hold the float32 firwin of a SciPy of 2021; today's differs slightly.
FILTER_TOLERANCE = 1e-5


def convert(network: Network, given: Mapping[str, str]) -> Conversion:
    """Convert a StyleGAN3. Kernels are normalised here; the code does so whenever it runs."""
    tensors, settings, record = network.tensors(), Settings(given), build_record(network)
    if tensors.names(r"mapping\.embed_proj\..*"):
        raise UserError(f"{network.place} is a StyleGAN-XL, which is not supported")
    is_bare = not record.module
    record = record._replace(module=STYLEGAN3)  # the only code that has this network
    clamp = get_clamp(record, settings, network)
    rate = get_rate(record, settings)
    settings.default("output_scale", _recorded(record, "output_scale"))
    output_scale = settings.get("output_scale", 0.25)
    names = _layer_names(tensors, network)
    schedule, plan = _schedule(tensors, settings, record, names, network, is_bare)
    settings.finish()
    check_activations(record, network)

    style_dim = tensors.shape(f"synthesis.{names[0]}.affine.weight", 2)[1]
    first = tensors.shape("synthesis.input.weight", 2)[0]
    outputs = [tensors.shape(f"synthesis.{name}.weight", 4)[0] for name in names]
    widths = [first, *outputs[:-1]]
    inputs = read_inputs(tensors, network, style_dim, rate)
    rows = [*inputs.rows, *_source_rows(first, style_dim)]
    arrays: dict[str, np.ndarray] = {}
    for i, (name, layer) in enumerate(zip(names, plan, strict=True)):
        theirs, ours = f"synthesis.{name}", f"synthesis.{i}"
        shape = (outputs[i], widths[i], layer.kernel, layer.kernel)
        rows += _layer_rows(ours, theirs, layer, shape, style_dim)
        magnitude = tensors.take(f"{theirs}.magnitude_ema", ())
        if not magnitude > 0:
            tensors.note(f"{theirs}.magnitude_ema is {magnitude}, expected a positive number")
        arrays[f"{ours}.gain"] = np.asarray(1 / np.sqrt(np.maximum(magnitude, 1e-30)), np.float32)
        for part, designed in _designed_filters(layer):
            is_stored = designed.size > 1
            stored = tensors.take(f"{theirs}.{part}", designed.shape) if is_stored else designed
            arrays[f"{ours}.{part}"] = stored
    arrays |= take_rows(tensors, rows)
    tensors.finish()
    architecture = {
        **inputs.sizes,
        "widths": widths,
        "schedule": schedule._asdict(),
        "image_channels": outputs[-1],
        "output_scale": output_scale,
        "clamp": clamp or None,
    }
    return Conversion("stylegan3", architecture, arrays, tuple(settings.assumed))


def _source_rows(width: int, style_dim: int) -> list[Row]:
    """Return the rows of the Fourier features that the first layer reads."""
    ours, theirs = "source", "synthesis.input"
    affine = (f"{ours}.affine", f"{ours}.affine_bias"), f"{theirs}.affine", (4, style_dim)
    mix = (width, width)
    return [
        Row(f"{ours}.frequencies", f"{theirs}.freqs", (width, 2)),
        Row(f"{ours}.phases", f"{theirs}.phases", (width,)),
        Row(f"{ours}.transform", f"{theirs}.transform", (3, 3)),
        *layer_rows(*affine, dense_kernel, fan_in_scale(style_dim)),
        Row(f"{ours}.mix", f"{theirs}.weight", mix, fan_in_scale(width), dense_kernel),
    ]


def _layer_rows(
    ours: str, theirs: str, layer: LayerPlan, shape: tuple[int, ...], style_dim: int
) -> list[Row]:
    """Return the rows of a layer's convolution and of the dense layer of its style."""
    width = shape[1]
    # The image layer's kernel is not normalised; its styles are scaled instead.
    factor = fan_in_scale(width) if layer.is_image else 1.0
    transform = conv_kernel if layer.is_image else _normalized_kernel
    styles = f"{ours}.style_kernel", f"{ours}.style_bias"
    scale = factor * fan_in_scale(style_dim)
    return [
        *layer_rows((f"{ours}.kernel", f"{ours}.bias"), theirs, shape, transform),
        *layer_rows(
            styles, f"{theirs}.affine", (width, style_dim), dense_kernel, scale, bias_scale=factor
        ),
    ]


def _designed_filters(layer: LayerPlan) -> tuple[tuple[str, np.ndarray], ...]:
    """Return the filters of a layer by the names of their tensors; a single tap is not stored."""
    return ("up_filter", up_filter(layer)), ("down_filter", down_filter(layer))


def _recorded(record: BuildRecord, name: str) -> Any:
    """Return a pickle's value of a setting of the synthesis network; None if it has none."""
    return record.values.get(f"synthesis.{name}", record.arguments.get(name))


def _layer_names(tensors: Tensors, network: Network) -> list[str]:
    """Return the layers' names, in order.

    Raises:
        UserError: if one is missing, or there are fewer than two.
    """
    matches = [re.fullmatch(_LAYER, name) for name in tensors.names(_LAYER)]
    layers = sorted((int(m[2]), m[1]) for m in matches if m)
    if len(layers) < 2 or [i for i, _ in layers] != list(range(len(layers))):
        raise UserError(
            f"{network.place}: layers {', '.join(n for _, n in layers) or 'none'}; expected "
            "synthesis.L0_..., L1_..., ... without a gap, two at least"
        )
    return [name for _, name in layers]


def _schedule(
    tensors: Tensors,
    settings: Settings,
    record: BuildRecord,
    names: list[str],
    network: Network,
    is_bare: bool,
) -> tuple[Schedule, tuple[LayerPlan, ...]]:
    """Return the layers' sizes, rates and cutoffs, checked against the file's names and filters.

    If `is_bare`, a file without a record, the defaults used are listed in `settings.assumed`.
    """
    fields, defaulted = _schedule_fields(tensors, settings, record, names, is_bare)
    if defaulted:
        settings.assumed.append(
            f"{', '.join(defaulted)}: the code's defaults, which the filters in the file agree "
            f"with; --set {defaulted[0]}=... if they were others"
        )
    schedule = Schedule(**fields)
    problem = _disagreement(tensors, names, schedule)
    if problem:
        first = f"synthesis.{names[0]}.up_filter"
        taps = tensors.shape(first, 1)[0] if first in tensors else 0
        others = _other_schedules(schedule, defaulted, int(names[0].split("_")[1]), taps)
        fitting = (other for other in others if not _disagreement(tensors, names, other))
        if (fit := next(fitting, None)) is not None:
            schedule, problem = fit, ""
    if problem:
        raise UserError(
            f"{network.place}: {problem}; say how it was built: "
            f"--set {'=... --set '.join(_SETTINGS)}=..."
        )
    return schedule, plan_layers(schedule)[1]


def _schedule_fields(
    tensors: Tensors,
    settings: Settings,
    record: BuildRecord,
    names: list[str],
    is_bare: bool,
) -> tuple[dict[str, Any], list[str]]:
    """Return a schedule's fields, and the settings of a bare file that are defaults."""
    filters = tensors.names(r"synthesis\..*\.down_filter")
    fields: dict[str, Any] = {
        "image_size": int(names[-1].split("_")[1]),
        "num_layers": len(names) - 1,
        "kernel": tensors.shape(f"synthesis.{names[0]}.weight", 4)[2],
        "radial": any(len(tensors.shape(name, -1)) == 2 for name in filters),
    }
    defaulted = []
    for theirs, (ours, default, low) in _SETTINGS.items():
        value = _recorded(record, theirs)
        if value is not None:
            settings.default(theirs, value)
        elif is_bare and not settings.is_given(theirs):
            defaulted.append(theirs)
        fields[ours] = settings.get(theirs, default, low=low)
    return fields, defaulted


def _other_schedules(
    schedule: Schedule, defaulted: Sequence[str], first_size: int, taps: int
) -> Iterator[Schedule]:
    """Yield schedules with other values of the settings that names and filters determine.

    Args:
        schedule: one with the defaults.
        defaulted: the settings that are defaults.
        first_size: width of the first layer's map.
        taps: taps of the first layer's upsampling filter, a multiple of `filter_size`; 0 for none.
    """
    if "filter_size" in defaulted and taps:
        schedule = schedule._replace(filter_size=taps // schedule.oversampling)
    margins = [schedule.margin]
    if "margin_size" in defaulted:
        source, _ = plan_layers(schedule._replace(num_critical=0))
        margins.append((first_size - source.rate) // 2)
    counts = [schedule.num_critical]
    if "num_critical" in defaulted:
        counts += range(schedule.num_layers)
    for margin in margins:
        for count in counts:
            if margin >= 0:
                yield schedule._replace(margin=margin, num_critical=count)


def _disagreement(tensors: Tensors, names: list[str], schedule: Schedule) -> str:
    """Say where a file's sizes and filters differ from a schedule's; "" if they do not."""
    if schedule.num_critical >= schedule.num_layers:
        return f"num_critical={schedule.num_critical} of {schedule.num_layers} layers"
    _, layers = plan_layers(schedule)
    for name, layer in zip(names, layers, strict=True):
        if int(name.split("_")[1]) != layer.out_size:
            return f"{name} is {layer.out_size} pixels wide with {_in_words(schedule)}"
        for part, designed in _designed_filters(layer):
            theirs = f"synthesis.{name}.{part}"
            if (theirs in tensors) != (designed.size > 1):
                return f"{theirs} has {designed.size} taps with {_in_words(schedule)}"
            if theirs in tensors:
                stored = tensors.value(theirs)
                if stored.shape != designed.shape:
                    return f"{theirs} has shape {designed.shape} with {_in_words(schedule)}"
                allowed = FILTER_TOLERANCE + _rounding(stored) * np.abs(designed).max()
                if not np.abs(stored - designed).max() < allowed:
                    return f"{theirs} is another filter with {_in_words(schedule)}"
    return ""


def _rounding(values: np.ndarray) -> float:
    """Return the largest relative rounding error of numbers that were stored in few bits.

    Example:
        >>> _rounding(np.float32(np.array([0.3, 0.7], np.float16))) == 2.0**-11
        True
    """
    mantissas, _ = np.frexp(values)
    for bits in (3, 4, 8, 11):  # float8_e5m2, float8_e4m3fn, bfloat16, float16
        if (mantissas * 2**bits % 1 == 0).all():
            return float(2.0**-bits)
    return 0.0


def _in_words(schedule: Schedule) -> str:
    fields = schedule._asdict()
    return ", ".join(f"{theirs}={fields[ours]:.6g}" for theirs, (ours, *_) in _SETTINGS.items())


def _normalized_kernel(weight: np.ndarray) -> np.ndarray:
    """OIHW to HWIO, each output channel's weights scaled to unit mean square."""
    squares = np.mean(np.square(weight, dtype=np.float64), axis=(1, 2, 3), keepdims=True)
    return conv_kernel((weight / np.sqrt(np.where(squares == 0, 1, squares))).astype(np.float32))


LAYOUTS = (
    Layout(
        "nvidia",
        "NVIDIA stylegan3: state dict of G_ema, or the .pkl (its code is not run)",
        lambda s: has_tensors(s, "synthesis.input.freqs", "synthesis.input.weight"),
        convert,
    ),
)
