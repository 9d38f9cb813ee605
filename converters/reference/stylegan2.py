"""The StyleGAN2s of genforce, NVIDIA and rosinality."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from converters.reference.common import (
    Activations,
    State,
    act2,
    full,
    gain,
    mapping_genforce,
    mapping_nvidia,
    truncate,
)

TAPS = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8


def filtered(x: Tensor, before: int, after: int, taps: Tensor = TAPS) -> Tensor:
    """Filter with the taps along both axes, gain 4, after padding."""
    kernel = 4 * torch.outer(taps, taps).flip(0, 1).expand(x.shape[1], 1, -1, -1)
    return F.conv2d(F.pad(x, (before, after, before, after)), kernel, groups=x.shape[1])


def upsample2(x: Tensor, taps: Tensor = TAPS) -> Tensor:
    """Insert zeros and filter."""
    n, c, h, w = x.shape
    zeros = torch.zeros(n, c, 2 * h, 2 * w)
    zeros[:, :, ::2, ::2] = x
    return filtered(zeros, (len(taps) + 1) // 2, (len(taps) - 2) // 2, taps)


def modulated(
    x: Tensor,
    weight: Tensor,
    style: Tensor,
    up: bool = False,
    demodulate: bool = True,
    taps: Tensor = TAPS,
) -> Tensor:
    """Convolve every row with its own kernel; `weight` is as a transposed convolution uses it."""
    rows = []
    for row, s in zip(x, style, strict=True):
        kernel = weight * s[None, :, None, None]
        if demodulate:
            kernel = kernel / torch.sqrt((kernel**2).sum(dim=(1, 2, 3), keepdim=True) + 1e-8)
        if up:
            y = F.conv_transpose2d(row[None], kernel.transpose(0, 1), stride=2)
            # The padding of upsampling alone, less the convolution's own two pixels.
            rows.append(filtered(y, (len(taps) + 1) // 2 - 1, (len(taps) - 2) // 2, taps))
        else:
            rows.append(F.conv2d(row[None], kernel, padding=weight.shape[-1] // 2))
    return torch.cat(rows)


def stylegan2_genforce(
    w: State,
    z: Tensor,
    resolutions: int,
    mappings: int,
    label: Tensor | None = None,
    skip: bool = True,
    demodulate: bool = True,
    wscale: bool = True,
    tanh: bool = False,
    psi: float = 1.0,
    psi_layers: int | None = None,
    noise: Sequence[Tensor] | None = None,
    rate: float = 0.01,
) -> Activations:
    """Run genforce's StyleGAN2."""
    activations: Activations = {}
    image: Tensor | None = None
    y = activations["w"] = mapping_genforce(w, z, mappings, 1.0, act2, label, wscale, rate)
    style_dim = w["synthesis.layer0.style.weight"].shape[1]
    wp = truncate(y, w["truncation.w_avg"], 2 * resolutions, style_dim, psi, psi_layers)

    def style(name: str, index: int) -> Tensor:
        weight = gain(w[f"{name}.style.weight"], 1.0, wscale)
        return F.linear(wp[:, index], weight, w[f"{name}.style.bias"]) + 1

    x = activations["early_layer"] = w["synthesis.early_layer.const"].expand(len(z), -1, -1, -1)
    for layer in range(2 * resolutions - 1):
        name, r, up = f"synthesis.layer{layer}", (layer + 1) // 2, layer % 2 == 1
        kernel = gain(w[f"{name}.weight"], 1.0, wscale)
        kernel = kernel.flip(2, 3) if up else kernel
        x = modulated(x, kernel, style(name, layer), up, demodulate)
        added = w[f"{name}.noise"] if noise is None else noise[layer]
        x = x + added * w[f"{name}.noise_strength"]
        x = activations[f"layer{layer}"] = act2(x + w[f"{name}.bias"][None, :, None, None])
        if layer % 2 == 0 and (skip or r == resolutions - 1):
            out = f"synthesis.output{r}"
            kernel = gain(w[f"{out}.weight"], 1.0, wscale)
            rgb = modulated(x, kernel, style(out, 2 * r + 1), demodulate=False)
            rgb = rgb + w[f"{out}.bias"][None, :, None, None]
            image = rgb if image is None else rgb + upsample2(image)
    assert image is not None
    activations["image"] = torch.tanh(image) if tanh else image
    return activations


def stylegan2_nvidia(
    w: State,
    z: Tensor,
    resolutions: int,
    label: Tensor | None = None,
    skip: bool = True,
    psi: float = 1.0,
    cutoff: int | None = None,
    clamp: float | None = None,
    noise: Sequence[Tensor] | None = None,
    rate: float = 0.01,
    taps: Tensor = TAPS,
) -> Activations:
    """Run NVIDIA's StyleGAN2."""

    def bounded(x: Tensor) -> Tensor:
        return x if clamp is None else x.clamp(-clamp, clamp)

    activations: Activations = {}
    image: Tensor | None = None
    index = 0
    y = activations["w"] = mapping_nvidia(w, z, label, rate)
    ws = truncate(y, w["mapping.w_avg"], 2 * resolutions, y.shape[1], psi, cutoff)
    x = w["synthesis.b4.const"].expand(len(z), -1, -1, -1)
    for r in range(resolutions):
        block = f"synthesis.b{4 * 2**r}"
        for part in ("conv1",) if r == 0 else ("conv0", "conv1"):
            name = f"{block}.{part}"
            style = full(w, ws[:, index], f"{name}.affine")
            x = modulated(x, w[f"{name}.weight"], style, part == "conv0", taps=taps)
            if noise is not None:
                x = x + noise[index] * w[f"{name}.noise_strength"]
            elif f"{name}.noise_const" in w:
                x = x + w[f"{name}.noise_const"] * w[f"{name}.noise_strength"]
            x = act2(x + w[f"{name}.bias"][None, :, None, None])
            x = activations[f"b{4 * 2**r}_{part}"] = bounded(x)
            index += 1
        if skip or r == resolutions - 1:
            name = f"{block}.torgb"
            weight = w[f"{name}.weight"]
            style = full(w, ws[:, index], f"{name}.affine") / math.sqrt(weight.shape[1])
            rgb = modulated(x, weight, style, demodulate=False)
            rgb = bounded(rgb + w[f"{name}.bias"][None, :, None, None])
            image = rgb if image is None else rgb + upsample2(image, taps)
    assert image is not None
    activations["image"] = image
    return activations


def stylegan2_rosinality(
    w: State,
    z: Tensor,
    size: int,
    psi: float = 1.0,
    noise: Sequence[Tensor] | None = None,
    rate: float = 0.01,
    taps: Tensor = TAPS,
) -> Activations:
    """Run rosinality's StyleGAN2."""

    def modulate(
        x: Tensor, name: str, index: int, up: bool = False, demodulate: bool = True
    ) -> Tensor:
        weight = w[f"{name}.conv.weight"][0]
        style = full(w, ws[:, index], f"{name}.conv.modulation")
        return modulated(x, weight / math.sqrt(weight[0].numel()), style, up, demodulate, taps)

    activations: Activations = {}
    y = activations["w"] = mapping_nvidia(w, z, None, rate, "style.{}", first=1)
    resolutions = int(math.log2(size)) - 1
    mean = w.get("latent_avg", torch.zeros(y.shape[1]))
    ws = truncate(y, mean, 2 * resolutions, y.shape[1], min(psi, 1.0), None)
    x = activations["input"] = w["input.input"].expand(len(z), -1, -1, -1)
    image: Tensor | None = None
    for layer in range(2 * resolutions - 1):
        name = f"convs.{layer - 1}" if layer else "conv1"
        x = modulate(x, name, layer, layer % 2 == 1)
        if noise is not None:
            x = x + noise[layer] * w[f"{name}.noise.weight"]
        elif f"noises.noise_{layer}" in w:
            x = x + w[f"noises.noise_{layer}"] * w[f"{name}.noise.weight"]
        x = act2(x + w[f"{name}.activate.bias"][None, :, None, None])
        activations[f"convs_{layer - 1:02d}" if layer else "conv1"] = x
        if layer % 2 == 0:
            out = f"to_rgbs.{layer // 2 - 1}" if layer else "to_rgb1"
            rgb = modulate(x, out, layer + 1, demodulate=False) + w[f"{out}.bias"]
            image = rgb if image is None else rgb + upsample2(image, taps)
    assert image is not None
    activations["image"] = image
    return activations
