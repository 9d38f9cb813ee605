"""StyleGAN2 files of rosinality's stylegan2-pytorch, a form that many later repositories share.

Unlike in genforce's files, the style biases include their 1, the kernels of up-convolutions are
stored flipped, and the truncation's mean lies beside the networks, or is missing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from cgjax.errors import UserError
from cgjax.generators.layers import EPS
from converters.axes import (
    Transform,
    channels_last,
    constant,
    conv_kernel,
    dense_kernel,
    flipped_kernel,
    pixel_kernel,
)
from converters.conversion import Conversion
from converters.filters import take_filter
from converters.mapping import RATE, fan_in_scale, mapping_rows
from converters.networks import Network
from converters.rows import Row, layer_rows, take_rows
from converters.settings import Settings
from converters.tensors import Tensors

MEAN_LATENTS = 10_000
"""Number of latents whose styles are averaged if a file has no mean."""


def convert(network: Network, given: Mapping[str, str]) -> Conversion:
    """Convert rosinality's StyleGAN2; run-time scales are 1 / sqrt(fan_in)."""
    tensors, settings = network.tensors(), Settings(given)
    rate = settings.get("lr_mlp", RATE)
    settings.assume_default("lr_mlp", rate)
    settings.finish()
    widths, rows = mapping_rows(tensors, "style.{}", rate, first=1)
    style_dim, layers = widths[-1], ["conv1"]
    layers += [f"convs.{i}" for i in range(tensors.count("convs.{}.conv.weight"))]
    if len(layers) % 2 == 0:
        raise UserError(f"{network.path}: {len(layers)} convolutions; expected 1, 3, 5, ...")
    depths = [tensors.shape(f"{layer}.conv.weight", 5)[1] for layer in layers[::2]]
    channels = tensors.shape("to_rgb1.conv.weight", 5)[1]
    stored_noise = bool(tensors.names(r"noises\.noise_\d+"))
    rows.append(Row("const", "input.input", (1, depths[0], 4, 4), transform=constant))
    for i, name in enumerate(layers):
        r = (i + 1) // 2
        is_up, size = i % 2 == 1, 4 * 2**r
        shape = (depths[r], depths[r - is_up], 3, 3)
        transform = flipped_kernel if is_up else conv_kernel
        rows += _modulated(f"kernels.{i}", f"style_{{}}.{i}", name, shape, style_dim, transform)
        rows += [
            Row(f"biases.{i}", f"{name}.activate.bias", (depths[r],)),
            Row(f"noise_strengths.{i}", f"{name}.noise.weight", (1,), transform=lambda w: w[0]),
        ]
        if stored_noise:
            noise, buffer = f"noises.noise_{i}", (1, 1, size, size)
            rows.append(Row(f"noise.{i}", noise, buffer, transform=channels_last))
    for r, depth in enumerate(depths):
        name, shape = f"to_rgbs.{r - 1}" if r else "to_rgb1", (channels, depth, 1, 1)
        style = f"rgb_style_{{}}.{r}"
        rows += _modulated(f"to_rgb.{r}", style, name, shape, style_dim, pixel_kernel)
        bias = (1, channels, 1, 1)
        rows.append(Row(f"to_rgb_biases.{r}", f"{name}.bias", bias, transform=np.ravel))
    arrays = take_rows(tensors, rows)
    taps = take_filter(tensors, r".*\.(blur|upsample)\.kernel", 4)
    mean = _stored_mean(network, tensors, style_dim)
    if mean is None:
        settings.assumed.append(
            f"latent_avg: the mean of the styles of {MEAN_LATENTS} latents, NumPy's "
            "default_rng(0): the file has none"
        )
        mean = _estimated_mean(arrays, widths[0])
    arrays["mean_style"] = mean
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
    return Conversion("stylegan2", architecture, arrays, tuple(settings.assumed))


def _modulated(
    kernel: str,
    style: str,
    theirs: str,
    shape: tuple[int, int, int, int],
    style_dim: int,
    transform: Transform,
) -> list[Row]:
    """Return the rows of a modulated convolution: its kernel and the dense layer of its style."""
    width_in = shape[1]
    scale = fan_in_scale(math.prod(shape[1:]))
    styles = style.format("kernels"), style.format("biases")
    modulation, dense = f"{theirs}.conv.modulation", (width_in, style_dim)
    return [
        Row(kernel, f"{theirs}.conv.weight", (1, *shape), scale, lambda w: transform(w[0])),
        *layer_rows(styles, modulation, dense, dense_kernel, fan_in_scale(style_dim)),
    ]


def _stored_mean(network: Network, tensors: Tensors, style_dim: int) -> np.ndarray | None:
    """Return the truncation's mean, `latent_avg` in the network or beside it; None if missing."""
    if "latent_avg" in tensors:
        return tensors.take("latent_avg", (style_dim,))
    beside = network.beside("latent_avg")
    if not isinstance(beside, np.ndarray):
        return None
    other = Tensors({"latent_avg": beside.reshape(-1)}, network.path)
    mean = other.take("latent_avg", (style_dim,))
    other.finish()
    return mean


def _estimated_mean(arrays: Mapping[str, np.ndarray], latent_dim: int) -> np.ndarray:
    """Return the mean style of `MEAN_LATENTS` latents."""
    x = np.random.default_rng(0).standard_normal((MEAN_LATENTS, latent_dim))
    x /= np.sqrt(np.mean(np.square(x), axis=1, keepdims=True) + EPS)
    for i in range(sum(name.startswith("mapping.") for name in arrays)):
        x = x @ arrays[f"mapping.{i}"] + arrays[f"mapping_biases.{i}"]
        x = np.where(x >= 0, x, 0.2 * x) * math.sqrt(2)
    return np.asarray(x.mean(axis=0), np.float32)
