"""StyleGAN3 files of NVIDIA's stylegan3 repository: its pickles, or a state dict of `G_ema`.

A pickle says what its network was built with; of a state dict, names, shapes and filters tell the
most, and the code's defaults are taken for the rest. Whatever was taken, the filters that belong to
it are compared with those in the file.
"""

from __future__ import annotations

import math
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
from converters.conversion import (
    Container,
    Conversion,
    Row,
    conv_kernel,
    dense_kernel,
    take_rows,
)
from converters.networks import Network, has_tensors
from converters.nvidia import STYLEGAN3, Built, built, check_activations, get_clamp, get_rate
from converters.settings import Settings
from converters.stylegan import mapping_rows
from converters.tensors import Tensors

# The schedule's fields by the names of the file's own code: field, the code's default, least value.
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

# The firwin of a SciPy of 2021, in float32, and today's.
FILTER_TOLERANCE = 1e-5


def convert(network: Network, given: Mapping[str, str]) -> Conversion:
    """Convert a StyleGAN3. Kernels are normalised here, as the code does whenever it runs."""
    tensors, settings, found = network.tensors(), Settings(given), built(network)
    assumed: list[str] = []
    if tensors.names(r"mapping\.embed_proj\..*"):
        raise UserError(f"{network.place} is a StyleGAN-XL, which is not supported")
    guesses = None if found.module else assumed
    found = found._replace(module=STYLEGAN3)  # the only code that has this network
    clamp = get_clamp(found, settings, network, assumed)
    rate = get_rate(found, settings)
    settings.default("output_scale", _said(found, "output_scale"))
    scale = settings.get("output_scale", 0.25)
    names = _layer_names(tensors, network)
    schedule, plan = _schedule(tensors, settings, found, names, network, guesses)
    settings.finish()
    check_activations(found, network)

    style_dim = tensors.shape(f"synthesis.{names[0]}.affine.weight", 2)[1]
    first = tensors.shape("synthesis.input.weight", 2)[0]
    outputs = [tensors.shape(f"synthesis.{name}.weight", 4)[0] for name in names]
    widths = [first, *outputs[:-1]]
    mapped, rows = mapping_rows(tensors, "mapping.fc{}", lambda n: 1 / math.sqrt(n), rate)
    num_classes, embedding_dim, label = 0, 0, "mapping.embed.weight"
    if label in tensors:
        embedding_dim, num_classes = shape = tensors.shape(label, 2)
        rows += [
            Row("embedding", label, shape, 1 / math.sqrt(num_classes), dense_kernel),
            Row("embedding_bias", "mapping.embed.bias", (embedding_dim,)),
        ]
    latent_dim = mapped[0] - embedding_dim
    if latent_dim < 1 or mapped[-1] != style_dim:
        raise UserError(
            f"{network.place}: the mapping network reads {mapped[0]} values and makes "
            f"{mapped[-1]}; expected more than the embedding's {embedding_dim}, and {style_dim}"
        )
    rows.append(Row("mean_style", "mapping.w_avg", (style_dim,)))
    source, root = "synthesis.input", 1 / math.sqrt(style_dim)
    rows += [
        Row("source.frequencies", f"{source}.freqs", (first, 2)),
        Row("source.phases", f"{source}.phases", (first,)),
        Row("source.transform", f"{source}.transform", (3, 3)),
        Row("source.affine", f"{source}.affine.weight", (4, style_dim), root, dense_kernel),
        Row("source.affine_bias", f"{source}.affine.bias", (4,)),
        Row("source.mix", f"{source}.weight", (first, first), 1 / math.sqrt(first), dense_kernel),
    ]
    arrays: dict[str, np.ndarray] = {}
    for i, (name, layer) in enumerate(zip(names, plan, strict=True)):
        theirs, ours, width = f"synthesis.{name}", f"synthesis.{i}", widths[i]
        weight = (outputs[i], width, layer.kernel, layer.kernel)
        # The image layer's styles are scaled, instead of its kernel being normalised.
        factor = 1 / math.sqrt(width) if layer.is_image else 1.0
        turn = conv_kernel if layer.is_image else _normalized_kernel
        affine = f"{theirs}.affine.weight", (width, style_dim), factor * root
        rows += [
            Row(f"{ours}.kernel", f"{theirs}.weight", weight, turn=turn),
            Row(f"{ours}.bias", f"{theirs}.bias", weight[:1]),
            Row(f"{ours}.style_kernel", *affine, dense_kernel),
            Row(f"{ours}.style_bias", f"{theirs}.affine.bias", (width,), factor),
        ]
        magnitude = tensors.take(f"{theirs}.magnitude_ema", ())
        if not magnitude > 0:
            tensors.note(f"{theirs}.magnitude_ema is {magnitude}, expected a positive number")
        arrays[f"{ours}.gain"] = np.asarray(1 / np.sqrt(np.maximum(magnitude, 1e-30)), np.float32)
        _take_filters(tensors, theirs, ours, layer, arrays)
    arrays |= take_rows(tensors, rows)
    tensors.finish()
    architecture = {
        "latent_dim": latent_dim,
        "style_dim": style_dim,
        "mapping_widths": mapped[1:],
        "widths": widths,
        "schedule": schedule._asdict(),
        "image_channels": outputs[-1],
        "output_scale": scale,
        "clamp": clamp or None,
        "num_classes": num_classes,
        "embedding_dim": embedding_dim or None,
    }
    return Conversion("stylegan3", architecture, arrays, tuple(assumed))


def _said(found: Built, name: str) -> Any:
    """Return what a pickle says of a setting of the synthesis network; None if nothing."""
    return found.values.get(f"synthesis.{name}", found.arguments.get(name))


def _layer_names(tensors: Tensors, network: Network) -> list[str]:
    """Return the layers' names, in order.

    Raises:
        UserError: if one is missing, or there are too few.
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
    found: Built,
    names: list[str],
    network: Network,
    assumed: list[str] | None,
) -> tuple[Schedule, tuple[LayerPlan, ...]]:
    """Return the layers' sizes, rates and cutoffs, checked against the file's names and filters.

    What is taken by default is listed in `assumed`; it is None where the file's code is known.
    """
    kernel = tensors.shape(f"synthesis.{names[0]}.weight", 4)[2]
    image_size = int(names[-1].split("_")[1])
    rounds = [n for n in tensors.names(r"synthesis\..*\.down_filter") if _ndim(tensors, n) == 2]
    fields: dict[str, Any] = {
        "image_size": image_size,
        "num_layers": len(names) - 1,
        "kernel": kernel,
        "radial": bool(rounds),
    }
    guessed = []
    for theirs, (ours, default, low) in _SETTINGS.items():
        said = _said(found, theirs)
        if said is not None:
            settings.default(theirs, said)
        elif assumed is not None and not settings.is_given(theirs):
            guessed.append(theirs)
        fields[ours] = settings.get(theirs, default, low=low)
    if guessed and assumed is not None:
        assumed.append(
            f"{', '.join(guessed)}: the code's defaults, which the filters in the file agree with; "
            f"--set {guessed[0]}=... if they were others"
        )
    schedule = Schedule(**fields)
    wrong = _disagreement(tensors, names, schedule)
    if wrong:
        first = f"synthesis.{names[0]}.up_filter"
        taps = tensors.shape(first, 1)[0] if first in tensors else 0
        others = _other_schedules(schedule, guessed, int(names[0].split("_")[1]), taps)
        fitting = (o for o in others if not _disagreement(tensors, names, o))
        if (other := next(fitting, None)) is not None:
            schedule, wrong = other, ""
    if wrong:
        raise UserError(
            f"{network.place}: {wrong}; tell how it was built: "
            f"--set {'=... --set '.join(_SETTINGS)}=..."
        )
    return schedule, plan_layers(schedule)[1]


def _other_schedules(
    schedule: Schedule, guessed: Sequence[str], first_size: int, taps: int
) -> Iterator[Schedule]:
    """Yield schedules with other values of what names and filters can tell.

    Args:
        schedule: one with the defaults.
        guessed: what was taken by default.
        first_size: width of the first layer's map.
        taps: of the first layer's up-sampling filter, 0 for none: a multiple of `filter_size`.
    """
    if "filter_size" in guessed and taps:
        schedule = schedule._replace(filter_size=taps // schedule.oversampling)
    margins = [schedule.margin]
    if "margin_size" in guessed:
        source, _ = plan_layers(schedule._replace(num_critical=0))
        margins.append((first_size - source.rate) // 2)
    counts = [schedule.num_critical]
    if "num_critical" in guessed:
        counts += range(schedule.num_layers)
    for margin in margins:
        for count in counts:
            if margin >= 0:
                yield schedule._replace(margin=margin, num_critical=count)


def _ndim(tensors: Tensors, name: str) -> int:
    return len(tensors.shape(name, -1))


def _disagreement(tensors: Tensors, names: list[str], schedule: Schedule) -> str:
    """Say where a file's sizes and filters are not those of a schedule; "" if they are."""
    if schedule.num_critical >= schedule.num_layers:
        return f"num_critical={schedule.num_critical} of {schedule.num_layers} layers"
    _, layers = plan_layers(schedule)
    for name, layer in zip(names, layers, strict=True):
        if int(name.split("_")[1]) != layer.out_size:
            return f"{name} is {layer.out_size} pixels wide with {_in_words(schedule)}"
        for part, designed in (("up", up_filter(layer)), ("down", down_filter(layer))):
            theirs = f"synthesis.{name}.{part}_filter"
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
    """Return how far numbers that were stored in few bits may be from what was rounded.

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


def _take_filters(
    tensors: Tensors, theirs: str, ours: str, layer: LayerPlan, arrays: dict[str, np.ndarray]
) -> None:
    for part, designed in (("up_filter", up_filter(layer)), ("down_filter", down_filter(layer))):
        has = designed.size > 1
        stored = tensors.take(f"{theirs}.{part}", designed.shape) if has else designed
        arrays[f"{ours}.{part}"] = stored


def _normalized_kernel(weight: np.ndarray) -> np.ndarray:
    """Scale each output channel's weights to unit mean square; OIHW to HWIO."""
    squares = np.mean(np.square(weight, dtype=np.float64), axis=(1, 2, 3), keepdims=True)
    return conv_kernel((weight / np.sqrt(np.where(squares == 0, 1, squares))).astype(np.float32))


CONTAINERS = (
    Container(
        "nvidia",
        "NVIDIA stylegan3: state dict of G_ema, or the .pkl (its code is not run)",
        lambda s: has_tensors(s, "synthesis.input.freqs", "synthesis.input.weight"),
        convert,
    ),
)
