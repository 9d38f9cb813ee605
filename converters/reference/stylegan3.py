"""StyleGAN3, config-t and config-r."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from converters.reference.common import Activations, State, act2, full, mapping_nvidia

DEFAULTS: dict[str, Any] = {
    "num_layers": 14, "num_critical": 2, "first_cutoff": 2.0, "first_stopband": 2**2.1,
    "last_stopband_rel": 2**0.3, "margin_size": 10, "output_scale": 0.25, "conv_kernel": 3,
    "filter_size": 6, "lrelu_upsampling": 2, "use_radial_filters": False, "conv_clamp": 256,
}  # fmt: skip
"""The defaults of NVIDIA's code."""


class Band(NamedTuple):
    """A layer's output: its cutoff, half its transition band, its sampling rate and its size."""

    cutoff: float
    half_width: float
    rate: int
    pixels: int


class Layer(NamedTuple):
    """A layer's bands, kernel, factors and taps."""

    before: Band
    after: Band
    kernel: int
    up: int
    down: int
    up_taps: int
    down_taps: int
    middle_rate: int
    is_round: bool
    is_image: bool


def bands(size: int, **options: Any) -> list[Band]:
    """Return the output band of every layer."""
    o = {**DEFAULTS, **options}
    rows = []
    for i in range(o["num_layers"] + 1):
        e = min(i / (o["num_layers"] - o["num_critical"]), 1)
        f0, t0 = o["first_cutoff"], o["first_stopband"]
        cutoff = f0 * (size / 2 / f0) ** e
        stop = t0 * (size / 2 * o["last_stopband_rel"] / t0) ** e
        rate = 2 ** math.ceil(math.log2(min(2 * stop, size)))
        pixels = size if i >= o["num_layers"] - 1 else rate + 2 * o["margin_size"]
        rows.append(Band(cutoff, max(stop, rate / 2) - cutoff, rate, pixels))
    return rows


def plan_layers(size: int, **options: Any) -> list[Layer]:
    """Return the layers; `options` have the names of NVIDIA's code."""
    o, rows = {**DEFAULTS, **options}, bands(size, **options)
    plan = []
    for i, after in enumerate(rows):
        before = rows[max(i - 1, 0)]
        is_image, is_critical = i == len(rows) - 1, i >= o["num_layers"] - o["num_critical"]
        middle = max(before.rate, after.rate) * (1 if is_image else o["lrelu_upsampling"])
        up, down = middle // before.rate, middle // after.rate
        up_taps, down_taps = (
            o["filter_size"] * k if k > 1 and not is_image else 1 for k in (up, down)
        )
        is_round = o["use_radial_filters"] and not is_critical and down_taps > 1
        kernel = 1 if is_image else o["conv_kernel"]
        bands_and_kernel = (before, after, kernel)
        plan.append(
            Layer(*bands_and_kernel, up, down, up_taps, down_taps, middle, is_round, is_image)
        )
    return plan


def resample(
    x: Tensor, taps: Tensor, up: int = 1, down: int = 1, pad: tuple[int, int] = (0, 0)
) -> Tensor:
    """Insert zeros, pad or crop, convolve, and keep every `down`-th sample."""
    n, c, h, w = x.shape
    y = torch.zeros(n, c, h * up, w * up)
    y[:, :, ::up, ::up] = x
    y = F.pad(y, (*pad, *pad))
    kernel = taps if taps.ndim == 2 else torch.outer(taps, taps)
    kernel = kernel.flip(0, 1)[None, None] * up**2
    y = F.conv2d(y.reshape(n * c, 1, *y.shape[2:]), kernel)
    return y.reshape(n, c, *y.shape[2:])[:, :, ::down, ::down]


def stylegan3(
    w: State,
    z: Tensor,
    size: int,
    label: Tensor | None = None,
    psi: float = 1.0,
    cutoff: int | None = None,
    rate: float = 0.01,
    placed: Tensor | None = None,
    **options: Any,
) -> Activations:
    """Run StyleGAN3.

    Args:
        w: the state dict.
        z: (n, d).
        size: pixels of the image's side.
        label: (n, classes); None without classes.
        psi: truncation.
        cutoff: how many of the styles are truncated; None for all.
        rate: the mapping network's learning-rate factor.
        placed: (3, 3) transform of the input's plane, applied after the stored one.
        **options: what the network was built with, where it differs from `DEFAULTS`.
    """
    o, plan = {**DEFAULTS, **options}, plan_layers(size, **options)
    y = mapping_nvidia(w, z, label, rate)
    activations: Activations = {"w": y}
    ws = y[:, None].repeat(1, len(plan) + 1, 1)
    mean = w["mapping.w_avg"]
    ws[:, :cutoff] = mean + psi * (ws[:, :cutoff] - mean)
    x = activations["input"] = _fourier(w, ws[:, 0], plan[0].before, placed)
    names = {}
    for name in w:
        if name.startswith("synthesis.L"):
            names[int(name.split(".")[1].split("_")[0][1:])] = name.split(".")[1]
    for i, layer in enumerate(plan):
        x = activations[names[i]] = _run(w, x, ws[:, i + 1], names[i], layer, o["conv_clamp"])
    activations["image"] = x * o["output_scale"]
    return activations


def _fourier(w: State, styles: Tensor, band: Band, placed: Tensor | None) -> Tensor:
    """Return sine waves over the plane, which each style rotates and shifts."""
    t = full(w, styles, "synthesis.input.affine")
    t = t / t[:, :2].norm(dim=1, keepdim=True)
    line = ((torch.arange(band.pixels) + 0.5) / band.pixels - 0.5) * band.pixels / band.rate
    grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1)
    rows = []
    for cosine, sine, x, y in t.tolist():
        rotation = torch.tensor([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
        shift = torch.tensor([[1, 0, -x], [0, 1, -y], [0, 0, 1]])
        matrix = rotation @ shift @ w["synthesis.input.transform"]
        matrix = matrix if placed is None else matrix @ placed
        freqs = w["synthesis.input.freqs"]
        phases = w["synthesis.input.phases"] + freqs @ matrix[:2, 2]
        freqs = freqs @ matrix[:2, :2]
        fade = (freqs.norm(dim=1) - band.cutoff) / (band.rate / 2 - band.cutoff)
        rows.append(torch.sin(2 * math.pi * (grid @ freqs.T + phases)) * (1 - fade).clamp(0, 1))
    mix = w["synthesis.input.weight"]
    x = torch.stack(rows) @ mix.T / math.sqrt(len(mix))
    return x.permute(0, 3, 1, 2)


def _run(
    w: State, x: Tensor, styles: Tensor, name: str, layer: Layer, clamp: float | None
) -> Tensor:
    """Run one layer."""
    name = f"synthesis.{name}"
    weight, style = w[f"{name}.weight"], full(w, styles, f"{name}.affine")
    if layer.is_image:
        kernels = weight[None] * style[:, None, :, None, None] / math.sqrt(weight.shape[1])
    else:
        weight = weight / (weight**2).mean(dim=(1, 2, 3), keepdim=True).sqrt()
        style = style / (style**2).mean().sqrt()
        kernels = weight[None] * style[:, None, :, None, None]
        norm = (kernels**2).sum(dim=(2, 3, 4), keepdim=True) + 1e-8
        kernels = kernels / norm.sqrt()
    kernels = kernels / w[f"{name}.magnitude_ema"].sqrt()
    padding = layer.kernel - 1
    pairs = zip(x, kernels, strict=True)
    x = torch.cat([F.conv2d(row[None], kernel, padding=padding) for row, kernel in pairs])
    x = x + w[f"{name}.bias"][None, :, None, None]
    total = (layer.after.pixels - 1) * layer.down + 1
    total += layer.up_taps + layer.down_taps - 2 - (layer.before.pixels + padding) * layer.up
    low = (total + layer.up) // 2
    one = torch.ones(1)
    x = resample(x, w.get(f"{name}.up_filter", one), layer.up, 1, (low, total - low))
    if not layer.is_image:
        x = act2(x)
    if clamp is not None:
        x = x.clamp(-clamp, clamp)
    return resample(x, w.get(f"{name}.down_filter", one), 1, layer.down)
