"""StyleGAN2 files: genforce's ports, and NVIDIA's own networks (stylegan2-ada-pytorch).

NVIDIA's official `.pkl` files hold source code, which is not executed here: see `safe_pickle`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cgjax.errors import UserError
from cgjax.generators.layers import FILTER_TAPS
from converters import stylegan2_rosinality
from converters.axes import (
    channels_last,
    constant,
    conv_kernel,
    dense_kernel,
    flipped_kernel,
    pixel_kernel,
)
from converters.conversion import Conversion, Layout
from converters.filters import take_filter
from converters.genforce import WeightScale, label_rows
from converters.mapping import RATE, fan_in_scale, mapping_rows
from converters.networks import Network, has_tensors
from converters.nvidia import build_record, check_activations, get_clamp, get_rate, read_inputs
from converters.rows import Row, layer_rows, take_rows
from converters.settings import Settings
from converters.tensors import Tensors

FILTER = np.outer(FILTER_TAPS, FILTER_TAPS).astype(np.float32)


def convert_genforce(network: Network, given: Mapping[str, str]) -> Conversion:
    """Convert a genforce StyleGAN2: every gain 1, run-time scales 1 / sqrt(fan_in)."""
    tensors, settings = network.tensors(), Settings(given)
    tanh = settings.get("final_tanh", False)
    demodulate = settings.get("demodulate", True)
    scale = WeightScale(settings.get("use_wscale", True))
    rate = settings.get("mapping_lr_mul", RATE)
    settings.finish()
    style_dim = tensors.shape("synthesis.layer0.style.weight", 2)[1]
    convolutions = tensors.count("synthesis.layer{}.weight")
    if convolutions % 2 == 0:
        raise UserError(f"{network.path}: {convolutions} layers; expected 1, 3, 5, ...")
    resolutions = (convolutions + 1) // 2
    depths = [tensors.shape(f"synthesis.layer{2 * r}.weight", 4)[0] for r in range(resolutions)]
    outputs = [r for r in range(resolutions) if f"synthesis.output{r}.weight" in tensors]
    skip = outputs != [resolutions - 1] or resolutions == 1
    channels = tensors.shape(f"synthesis.output{resolutions - 1}.weight", 4)[0]

    widths, rows = mapping_rows(tensors, "mapping.dense{}", rate, scale)
    num_classes, latent_dim, embedding_rows = label_rows(tensors, widths[0])
    rows += [
        *embedding_rows,
        Row("mean_style", "truncation.w_avg", (widths[-1],)),
        Row("const", "synthesis.early_layer.const", (1, depths[0], 4, 4), transform=constant),
    ]
    for layer in range(convolutions):
        rows += _genforce_layer(layer, depths, style_dim, scale)
        if layer % 2:
            name = f"synthesis.layer{layer}.filter.kernel"
            tensors.check_constant(name, FILTER[None, None])
    for k, r in enumerate(range(resolutions) if skip else [resolutions - 1]):
        name, depth = f"synthesis.output{r}", depths[r]
        ours, shape = (f"to_rgb.{k}", f"to_rgb_biases.{k}"), (channels, depth, 1, 1)
        rows += layer_rows(ours, name, shape, pixel_kernel, scale(depth))
        rows += _genforce_style(f"rgb_style_{{}}.{k}", name, (depth, style_dim), scale)
    tensors.check_constant("synthesis.upsample.kernel", FILTER[None, None])
    arrays = take_rows(tensors, rows)
    tensors.finish()
    architecture = {
        "form": "genforce",
        "latent_dim": latent_dim,
        "style_dim": style_dim,
        "mapping_widths": widths[1:],
        "depths": depths,
        "image_channels": channels,
        "tanh": tanh,
        "skip": skip,
        "demodulate": demodulate,
        "num_classes": num_classes,
    }
    return Conversion("stylegan2", architecture, arrays)


def _genforce_layer(
    layer: int, depths: Sequence[int], style_dim: int, scale: WeightScale
) -> Iterator[Row]:
    name, r = f"synthesis.layer{layer}", (layer + 1) // 2
    is_up, size = layer % 2 == 1, 4 * 2**r
    width, depth = depths[r - is_up], depths[r]
    ours, shape = (f"kernels.{layer}", f"biases.{layer}"), (depth, width, 3, 3)
    yield from layer_rows(ours, name, shape, conv_kernel, scale(9 * width))
    yield Row(f"noise_strengths.{layer}", f"{name}.noise_strength", ())
    yield Row(f"noise.{layer}", f"{name}.noise", (1, 1, size, size), transform=channels_last)
    yield from _genforce_style(f"style_{{}}.{layer}", name, (width, style_dim), scale)


def _genforce_style(
    ours: str, theirs: str, shape: tuple[int, int], scale: WeightScale
) -> tuple[Row, Row]:
    pair = ours.format("kernels"), ours.format("biases")
    kernel, bias = layer_rows(pair, f"{theirs}.style", shape, dense_kernel, scale(shape[1]))
    return kernel, bias._replace(transform=lambda b: b + np.float32(1))


def convert_nvidia(network: Network, given: Mapping[str, str]) -> Conversion:
    """Convert NVIDIA's StyleGAN2: a state dict of `G_ema`, or the official pickle.

    Unlike in genforce's files, the style biases include their 1, the kernels have no run-time scale
    (demodulation cancels it), and those of up-convolutions are stored flipped.
    """
    tensors, settings, record = network.tensors(), Settings(given), build_record(network)
    clamp = get_clamp(record, settings, network)
    rate = get_rate(record, settings)
    settings.finish()
    check_activations(record, network)

    blocks, depths = _nvidia_blocks(tensors, network)
    style_dim = tensors.shape(f"{blocks[0]}.conv1.affine.weight", 2)[1]
    channels = tensors.shape(f"{blocks[-1]}.torgb.weight", 4)[0]
    skip = len(blocks) == 1 or f"{blocks[0]}.torgb.weight" in tensors
    stored_noise = bool(tensors.names(r"synthesis\.b\d+\.conv\d\.noise_const"))

    inputs = read_inputs(tensors, network, style_dim, rate)
    const = f"{blocks[0]}.const"
    rows = [
        *inputs.rows,
        Row("const", const, (depths[0], 4, 4), transform=lambda c: c.transpose(1, 2, 0)),
    ]
    arrays: dict[str, np.ndarray] = {}
    parts = [(r, f"{blocks[r]}.conv{j}") for r in range(len(blocks)) for j in (0, 1) if r or j]
    for layer, (r, name) in enumerate(parts):
        is_up, size = name.endswith("conv0"), 4 * 2**r
        width, depth = depths[r - is_up], depths[r]
        ours, shape = (f"kernels.{layer}", f"biases.{layer}"), (depth, width, 3, 3)
        rows += layer_rows(ours, name, shape, flipped_kernel if is_up else conv_kernel)
        rows += _nvidia_style(f"style_{{}}.{layer}", name, (width, style_dim))
        if stored_noise:
            noise = f"{name}.noise_const"
            rows += [
                Row(f"noise_strengths.{layer}", f"{name}.noise_strength", ()),
                Row(f"noise.{layer}", noise, (size, size), transform=lambda x: x[None, :, :, None]),
            ]
        else:
            arrays[f"noise_strengths.{layer}"] = np.zeros((), np.float32)
    for k, r in enumerate(range(len(blocks)) if skip else [len(blocks) - 1]):
        name, depth = f"{blocks[r]}.torgb", depths[r]
        ours, shape = (f"to_rgb.{k}", f"to_rgb_biases.{k}"), (channels, depth, 1, 1)
        rows += layer_rows(ours, name, shape, pixel_kernel, fan_in_scale(depth))
        rows += _nvidia_style(f"rgb_style_{{}}.{k}", name, (depth, style_dim))
    arrays |= take_rows(tensors, rows)
    taps = take_filter(tensors, r".*resample_filter", 1)
    tensors.finish()
    architecture: dict[str, Any] = {
        "form": "nvidia",
        **inputs.sizes,
        "depths": depths,
        "image_channels": channels,
        "skip": skip,
        "clamp": clamp or None,
        "stored_noise": stored_noise,
        "filter_taps": taps,
    }
    return Conversion("stylegan2", architecture, arrays, tuple(settings.assumed))


def _nvidia_blocks(tensors: Tensors, network: Network) -> tuple[list[str], list[int]]:
    """Return the names of the blocks, 4x4 first, and their channels.

    Raises:
        UserError: another architecture, or a block is missing.
    """
    if tensors.names(r"synthesis\.b\d+\.skip\.weight"):
        raise UserError(f"{network.path}: architecture resnet; only skip and orig are known")
    pattern = r"synthesis\.b(\d{1,9})\.conv1\.weight"
    sizes = sorted(int(re.sub(pattern, r"\1", name)) for name in tensors.names(pattern))
    if not sizes or sizes != [4 * 2**r for r in range(len(sizes))]:
        raise UserError(f"{network.path}: blocks of {sizes} pixels; expected 4, 8, 16, ...")
    blocks = [f"synthesis.b{size}" for size in sizes]
    return blocks, [tensors.shape(f"{block}.conv1.weight", 4)[0] for block in blocks]


def _nvidia_style(ours: str, theirs: str, shape: tuple[int, int]) -> tuple[Row, Row]:
    pair = ours.format("kernels"), ours.format("biases")
    return layer_rows(pair, f"{theirs}.affine", shape, dense_kernel, fan_in_scale(shape[1]))


LAYOUTS = (
    Layout(
        "genforce",
        "genforce stylegan2_*: dict with generator, generator_smooth",
        lambda s: has_tensors(s, "synthesis.early_layer.const"),
        convert_genforce,
    ),
    Layout(
        "nvidia",
        "NVIDIA StyleGAN2: state dict of G_ema, or the .pkl (its code is not run)",
        lambda s: has_tensors(s, "synthesis.b4.const"),
        convert_nvidia,
    ),
    Layout(
        "rosinality",
        "rosinality stylegan2-pytorch: dict with g_ema, latent_avg",
        lambda s: has_tensors(s, "input.input", "conv1.conv.weight"),
        stylegan2_rosinality.convert,
    ),
)
