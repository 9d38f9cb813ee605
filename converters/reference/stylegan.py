"""The StyleGANs of pytorch_GAN_zoo and genforce."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from converters.reference.common import (
    Activations,
    State,
    blend_lod,
    double,
    fused_up,
    gain,
    mapping_genforce,
    pixel_norm,
    truncate,
)
from converters.reference.pgan import zoo_layer


def stylegan_zoo(
    w: State,
    z: Tensor,
    depths: Sequence[int],
    mappings: int,
    noise: Sequence[Tensor],
    leak: float = 0.2,
    alpha: float = 0.0,
    phi: float = 0.5,
    tanh: bool = False,
) -> Activations:
    """Run the GAN zoo's StyleGAN, in inference mode."""

    def adain(x: Tensor, name: str) -> Tensor:
        mean = x.mean(dim=(2, 3), keepdim=True)
        variance = ((x**2).mean(dim=(2, 3), keepdim=True) - mean**2).clamp(min=0)
        x = (x - mean) * torch.rsqrt(variance + 1e-8)
        style = F.linear(style_w, *zoo_layer(w, f"{name}.styleModulator"))
        a, b = style[:, :, None, None].chunk(2, dim=1)
        return a * x + b

    activations: Activations = {}
    draws = iter(noise)
    y = pixel_norm(z)
    for i in range(mappings):
        y = F.leaky_relu(F.linear(y, *zoo_layer(w, f"mapping.FC.{i}", factor=0.01)), 0.2)
    activations["w"] = y
    style_w = w["mean_w"] + phi * (y - w["mean_w"]) if phi < 1 else y

    def step(x: Tensor, conv: str | None, noise_name: str, adain_name: str) -> Tensor:
        if conv:
            x = F.conv2d(x, *zoo_layer(w, conv), padding=1)
        x = x + w[f"{noise_name}.weight"] * next(draws)
        return adain(F.leaky_relu(x, leak), adain_name)

    x = w["baseScale0"].expand(len(z), -1, -1, -1)
    x = activations["s0_a0"] = step(x, None, "noiseMod00", "adain00")
    x = activations["s0_a1"] = step(x, "conv0", "noiseMod01", "adain01")
    for i in range(len(depths) - 1):
        before = x
        for c in (0, 1):
            layer = f"scaleLayers.{i}."
            x = step(
                x if c else double(x),
                layer + str(2 * c),
                f"noiseModulators.{i}.{c}",
                layer + str(2 * c + 1),
            )
            activations[f"s{i + 1}_a{c}"] = x
    image = F.conv2d(x, *zoo_layer(w, f"toRGBLayers.{len(depths) - 2}"))
    if alpha > 0:
        low = F.conv2d(before, *zoo_layer(w, f"toRGBLayers.{len(depths) - 3}"))
        image = alpha * double(low) + (1 - alpha) * image
    activations["image"] = torch.tanh(image) if tanh else image
    return activations


def stylegan_genforce(
    w: State,
    z: Tensor,
    resolutions: int,
    mappings: int,
    label: Tensor | None = None,
    fused: Callable[[int], bool] = lambda r: r >= 128,
    wscale: bool = True,
    lod: float = 0.0,
    tanh: bool = False,
    psi: float = 1.0,
    psi_layers: int | None = None,
    noise: Sequence[Tensor] | None = None,
    rate: float = 0.01,
) -> Activations:
    """Run genforce's StyleGAN."""

    def lrelu(x: Tensor) -> Tensor:
        return F.leaky_relu(x, 0.2)

    activations: Activations = {}
    block_outputs: list[Tensor] = []
    y = mapping_genforce(w, z, mappings, math.sqrt(2), lrelu, label, wscale, rate)
    activations["w"] = y
    style_dim = w["synthesis.layer0.style.weight"].shape[1]
    wp = truncate(y, w["truncation.w_avg"], 2 * resolutions, style_dim, psi, psi_layers)
    x = w["synthesis.layer0.const"].expand(len(z), -1, -1, -1)
    for layer in range(2 * resolutions):
        name, b = f"synthesis.layer{layer}", layer // 2
        if lod >= resolutions - b:
            break
        up = layer > 0 and layer % 2 == 0
        if layer:
            weight = gain(w[f"{name}.weight"], math.sqrt(2), wscale)
            if up and fused(4 * 2**b):
                x = fused_up(x, weight.permute(1, 0, 2, 3))
            else:
                x = F.conv2d(double(x) if up else x, weight, padding=1)
        if up:
            kernel = w[f"{name}.blur.kernel"]
            x = F.conv2d(x, kernel, padding=1, groups=x.shape[1])
        added = w[f"{name}.apply_noise.noise"] if noise is None else noise[layer]
        x = x + added * w[f"{name}.apply_noise.weight"][None, :, None, None]
        x = lrelu(x + w[f"{name}.bias"][None, :, None, None])
        x = x - x.mean(dim=(2, 3), keepdim=True)
        x = x / torch.sqrt((x**2).mean(dim=(2, 3), keepdim=True) + 1e-8)
        style = F.linear(
            wp[:, layer], gain(w[f"{name}.style.weight"], 1.0, wscale), w[f"{name}.style.bias"]
        )
        scale, shift = style[:, :, None, None].chunk(2, dim=1)
        x = activations[f"layer{layer}"] = x * (scale + 1) + shift
        if layer % 2:
            block_outputs.append(x)

    def make(b: int) -> Callable[[], Tensor]:
        kernel = gain(w[f"synthesis.output{b}.weight"], 1.0, wscale)
        return lambda: F.conv2d(block_outputs[b], kernel, w[f"synthesis.output{b}.bias"])

    image = blend_lod([make(b) for b in range(resolutions)], lod)
    activations["image"] = torch.tanh(image) if tanh else image
    return activations
