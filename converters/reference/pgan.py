"""The progressive GANs of pytorch_GAN_zoo, genforce and GANDissect.

Written in torch, straight from the notes on the formats, for `--verify` and the tests: nothing here
is shared with the library. Each function takes a state dict in its file's own names and a latent,
and returns the activations by layer name (NCHW) with "image".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from converters.reference.common import Found, State, blend_lod, double, fused_up, gain, pixel_norm


def zoo_layer(
    w: State, name: str, equalized: bool = True, factor: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Weight and bias, both with the scale that the reference gives the layer's output."""
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
) -> Found:
    """Run the GAN zoo's PGAN."""
    found: Found = {}
    x = pixel_norm(z)
    x = F.leaky_relu(F.linear(x, *zoo_layer(w, "formatLayer", equalized)), leak)
    x = found["format"] = pixel_norm(x.view(len(z), depths[0], 4, 4))

    def conv(x: Tensor, name: str) -> Tensor:
        return pixel_norm(
            F.leaky_relu(F.conv2d(x, *zoo_layer(w, name, equalized), padding=1), leak)
        )

    x = found["s0_c0"] = conv(x, "groupScale0.0")
    for i in range(len(depths) - 1):
        before = x
        x = found[f"s{i + 1}_c0"] = conv(double(x), f"scaleLayers.{i}.0")
        x = found[f"s{i + 1}_c1"] = conv(x, f"scaleLayers.{i}.1")
    last = len(depths) - 1
    image = F.conv2d(x, *zoo_layer(w, f"toRGBLayers.{last}", equalized))
    if alpha > 0:
        low = F.conv2d(before, *zoo_layer(w, f"toRGBLayers.{last - 1}", equalized))
        image = alpha * double(low) + (1 - alpha) * image
    found["image"] = torch.tanh(image) if tanh else image
    return found


def pggan_genforce(
    w: State,
    z: Tensor,
    resolutions: int,
    label: Tensor | None = None,
    fused: bool = False,
    wscale: bool = True,
    lod: float = 0.0,
    tanh: bool = False,
) -> Found:
    """Run genforce's PGAN."""
    found: Found = {}
    acts: list[Tensor] = []
    x = pixel_norm(z)
    if label is not None:
        x = torch.cat((x, label), dim=1)
    x = x[:, :, None, None]
    root = math.sqrt(2)
    for layer in range(2 * resolutions):
        b = layer // 2
        if lod >= resolutions - b:  # level of the block + 1
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
        x = found[f"layer{layer}"] = F.leaky_relu(x, 0.2)
        found[f"layer{layer}_pn"] = pixel_norm(x)
        if layer % 2:
            acts.append(x)

    def make(b: int) -> Callable[[], Tensor]:
        kernel = gain(w[f"output{b}.weight"], 1.0, wscale)
        return lambda: F.conv2d(pixel_norm(acts[b]), kernel, w[f"output{b}.bias"])

    image = blend_lod([make(b) for b in range(resolutions)], lod)
    found["image"] = torch.tanh(image) if tanh else image
    return found


def pggan_netdissect(w: State, z: Tensor, layers: int, output: str) -> Found:
    """Run GANDissect's PGAN."""
    found: Found = {}
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
        found[f"layer{n}"], found[f"layer{n}_pn"] = x, pixel_norm(x)
    found["image"] = scaled(pixel_norm(x), output, 1.0, 0)
    return found
