"""StyleGAN2 files of rosinality's stylegan2-pytorch, which many later repositories share.

Relative to genforce's files: the style biases hold their 1, the kernels of up-convolutions are
stored flipped, and the truncation's mean lies beside the networks, or nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from cgjax.errors import UserError
from cgjax.generators.layers import EPS
from converters.conversion import (
    Conversion,
    Row,
    channels_last,
    constant,
    conv_kernel,
    dense_kernel,
    flipped_kernel,
    pixel_kernel,
    take_filter,
    take_rows,
)
from converters.networks import Network
from converters.settings import Settings
from converters.stylegan import MAPPING_RATE, mapping_rows
from converters.tensors import Tensors

MEAN_LATENTS = 10_000
"""How many latents' styles are averaged where a file has no mean."""


def convert(network: Network, given: Mapping[str, str]) -> Conversion:
    """Convert rosinality's StyleGAN2; run-time scales are 1 / sqrt(fan_in)."""
    tensors, settings = network.tensors(), Settings(given)
    assumed: list[str] = []
    rate = settings.get("lr_mlp", MAPPING_RATE)
    if not settings.is_given("lr_mlp"):
        assumed.append(
            f"lr_mlp: {rate:g}, the code's default: the file does not say; --set lr_mlp=..."
        )
    settings.finish()
    widths, rows = mapping_rows(tensors, "style.{}", lambda n: 1 / math.sqrt(n), rate, first=1)
    style_dim, layers = widths[-1], ["conv1"]
    layers += [f"convs.{i}" for i in range(tensors.count("convs.{}.conv.weight"))]
    if len(layers) % 2 == 0:
        raise UserError(f"{network.path}: {len(layers)} convolutions; expected 1, 3, 5, ...")
    resolutions = (len(layers) + 1) // 2
    depths = [tensors.shape(f"{layers[2 * r]}.conv.weight", 5)[1] for r in range(resolutions)]
    channels = tensors.shape("to_rgb1.conv.weight", 5)[1]
    stored_noise = bool(tensors.names(r"noises\.noise_\d+"))
    rows.append(Row("const", "input.input", (1, depths[0], 4, 4), turn=constant))
    arrays: dict[str, np.ndarray] = {}
    for i, name in enumerate(layers):
        r = (i + 1) // 2
        is_up, size = i % 2 == 1, 4 * 2**r
        width = depths[r - is_up]
        turn = flipped_kernel if is_up else conv_kernel
        rows += _modulated(i, ("kernels", "style"), name, (depths[r], width, 3), style_dim, turn)
        rows += [
            Row(f"biases.{i}", f"{name}.activate.bias", (depths[r],)),
            Row(f"noise_strengths.{i}", f"{name}.noise.weight", (1,), turn=lambda w: w[0]),
        ]
        if stored_noise:
            shape = (1, 1, size, size)
            rows.append(Row(f"noise.{i}", f"noises.noise_{i}", shape, turn=channels_last))
    for r, depth in enumerate(depths):
        name = f"to_rgbs.{r - 1}" if r else "to_rgb1"
        rows += _modulated(
            r, ("to_rgb", "rgb_style"), name, (channels, depth, 1), style_dim, pixel_kernel
        )
        bias = (1, channels, 1, 1)
        rows.append(Row(f"to_rgb_biases.{r}", f"{name}.bias", bias, turn=np.ravel))
    arrays |= take_rows(tensors, rows)
    taps = take_filter(tensors, r".*\.(blur|upsample)\.kernel", 4)
    arrays["mean_style"] = _mean_style(network, tensors, arrays, style_dim, assumed)
    tensors.finish()
    architecture = {
        "form": "rosinality",
        "latent_dim": widths[0],
        "style_dim": style_dim,
        "mapping_widths": widths[1:],
        "depths": depths,
        "image_channels": channels,
        "stored_noise": stored_noise,
        "filter_taps": taps,
    }
    return Conversion("stylegan2", architecture, arrays, tuple(assumed))


def _modulated(
    index: int,
    ours: tuple[str, str],
    name: str,
    sizes: tuple[int, int, int],
    style_dim: int,
    turn: Any,
) -> list[Row]:
    """Return the rows of a modulated convolution: its kernel and the dense layer of its style."""
    kernel, style = ours
    width_out, width_in, k = sizes
    modulation, scale = f"{name}.conv.modulation", 1 / math.sqrt(style_dim)
    shape = (width_in, style_dim)
    return [
        Row(
            f"{kernel}.{index}",
            f"{name}.conv.weight",
            (1, width_out, width_in, k, k),
            1 / math.sqrt(width_in * k * k),
            lambda weight: turn(weight[0]),
        ),
        Row(f"{style}_kernels.{index}", f"{modulation}.weight", shape, scale, dense_kernel),
        Row(f"{style}_biases.{index}", f"{modulation}.bias", (width_in,)),
    ]


def _mean_style(
    network: Network,
    tensors: Tensors,
    arrays: Mapping[str, np.ndarray],
    style_dim: int,
    assumed: list[str],
) -> np.ndarray:
    """Return the truncation's mean: `latent_avg` beside the network, else one estimated here."""
    place = network.checkpoint.content
    for name in network.name.split(".")[:-1]:
        place = place.get(name) if isinstance(place, Mapping) else None
    beside = place.get("latent_avg") if isinstance(place, Mapping) else None
    if "latent_avg" in tensors:
        return tensors.take("latent_avg", (style_dim,))
    if isinstance(beside, np.ndarray):
        other = Tensors({"latent_avg": beside.reshape(-1)}, network.path)
        mean = other.take("latent_avg", (style_dim,))
        other.finish()
        return mean
    assumed.append(
        f"latent_avg: the mean of the styles of {MEAN_LATENTS} latents, NumPy's default_rng(0): "
        "the file has none"
    )
    x = np.random.default_rng(0).standard_normal(
        (MEAN_LATENTS, tensors.shape("style.1.weight", 2)[1])
    )
    x /= np.sqrt(np.mean(np.square(x), axis=1, keepdims=True) + EPS)
    for i in range(sum(name.startswith("mapping.") for name in arrays)):
        x = x @ arrays[f"mapping.{i}"] + arrays[f"mapping_biases.{i}"]
        x = np.where(x >= 0, x, 0.2 * x) * math.sqrt(2)
    return np.asarray(x.mean(axis=0), np.float32)
