"""The progressive GANs of pytorch_GAN_zoo, genforce and GANDissect."""

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
    pixel_norm,
)


def zoo_layer(
    w: State, name: str, equalized: bool = True, factor: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return weight and bias, scaled as the reference scales the layer's output."""
    weight, bias = w[f"{name}.weight"], w[f"{name}.bias"]
    scale = math.sqrt(2 / math.prod(weight.shape[1:])) if equalized else 1.0
    return weight * scale * factor, bias * scale * factor


def pgan_zoo(
    w: State,
    z: Tensor,
    depths: Sequence[int],
    leak: float = 0.2,
    alpha: float = 0.0,
    equalized: bool = True,
    tanh: bool = False,
) -> Activations:
    """Run the GAN zoo's PGAN."""
    activations: Activations = {}
    x = pixel_norm(z)
    x = F.leaky_relu(F.linear(x, *zoo_layer(w, "formatLayer", equalized)), leak)
    x = activations["format"] = pixel_norm(x.view(len(z), depths[0], 4, 4))

    def conv(x: Tensor, name: str) -> Tensor:
        return pixel_norm(
            F.leaky_relu(F.conv2d(x, *zoo_layer(w, name, equalized), padding=1), leak)
        )

    x = activations["s0_c0"] = conv(x, "groupScale0.0")
    for i in range(len(depths) - 1):
        before = x
        x = activations[f"s{i + 1}_c0"] = conv(double(x), f"scaleLayers.{i}.0")
        x = activations[f"s{i + 1}_c1"] = conv(x, f"scaleLayers.{i}.1")
    last = len(depths) - 1
    image = F.conv2d(x, *zoo_layer(w, f"toRGBLayers.{last}", equalized))
    if alpha > 0:
        low = F.conv2d(before, *zoo_layer(w, f"toRGBLayers.{last - 1}", equalized))
        image = alpha * double(low) + (1 - alpha) * image
    activations["image"] = torch.tanh(image) if tanh else image
    return activations


def pggan_genforce(
    w: State,
    z: Tensor,
    resolutions: int,
    label: Tensor | None = None,
    fused: bool = False,
    wscale: bool = True,
    lod: float = 0.0,
    tanh: bool = False,
) -> Activations:
    """Run genforce's PGAN."""
    activations: Activations = {}
    block_outputs: list[Tensor] = []
    x = pixel_norm(z)
    if label is not None:
        x = torch.cat((x, label), dim=1)
    x = x[:, :, None, None]
    root = math.sqrt(2)
    for layer in range(2 * resolutions):
        b = layer // 2
        if lod >= resolutions - b:  # the block's level + 1
            break
        weight, bias = w[f"layer{layer}.weight"], w[f"layer{layer}.bias"]
        x = pixel_norm(x)
        if layer == 0:
            x = F.conv2d(x, gain(weight, root, wscale), bias, padding=3)
        elif layer % 2:
            x = F.conv2d(x, gain(weight, root, wscale), bias, padding=1)
        elif fused:
            scale = root / math.sqrt(9 * weight.shape[0]) if wscale else 1.0
            x = fused_up(x, weight * scale) + bias[None, :, None, None]
        else:
            x = F.conv2d(double(x), gain(weight, root, wscale), bias, padding=1)
        x = activations[f"layer{layer}"] = F.leaky_relu(x, 0.2)
        activations[f"layer{layer}_pn"] = pixel_norm(x)
        if layer % 2:
            block_outputs.append(x)

    def make(b: int) -> Callable[[], Tensor]:
        kernel = gain(w[f"output{b}.weight"], 1.0, wscale)
        return lambda: F.conv2d(pixel_norm(block_outputs[b]), kernel, w[f"output{b}.bias"])

    image = blend_lod([make(b) for b in range(resolutions)], lod)
    activations["image"] = torch.tanh(image) if tanh else image
    return activations


def pggan_netdissect(w: State, z: Tensor, layers: int, output: str) -> Activations:
    """Run GANDissect's PGAN."""
    activations: Activations = {}
    x = z[:, :, None, None]

    def scaled(x: Tensor, name: str, value: float, padding: int) -> Tensor:
        weight = w[f"{name}.conv.weight"]
        y = F.conv2d(x, weight, padding=padding) * (value / math.sqrt(weight[0].numel()))
        return y + w[f"{name}.wscale.b"][None, :, None, None]

    for n in range(1, layers + 1):
        x = pixel_norm(x)
        if n > 1 and n % 2 == 1:
            x = double(x)
        x = F.leaky_relu(scaled(x, f"layer{n}", math.sqrt(2), 3 if n == 1 else 1), 0.2)
        activations[f"layer{n}"], activations[f"layer{n}_pn"] = x, pixel_norm(x)
    activations["image"] = scaled(pixel_norm(x), output, 1.0, 0)
    return activations
