"""StyleGAN2 files: genforce's ports, and NVIDIA's own networks (stylegan2-ada-pytorch).

NVIDIA's official `.pkl` files hold source code, which is not executed here: see `safe_pickle`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np

from cgjax.errors import UserError
from cgjax.generators.layers import FILTER_TAPS
from converters import rosinality
from converters.conversion import (
    Container,
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
from converters.networks import Network, has_tensors
from converters.nvidia import built, check_activations, get_clamp, get_rate
from converters.settings import Settings
from converters.stylegan import MAPPING_RATE, label_rows, mapping_rows

FILTER = np.outer(FILTER_TAPS, FILTER_TAPS).astype(np.float32)


def convert_genforce(network: Network, given: Mapping[str, str]) -> Conversion:
    """Convert a genforce StyleGAN2: every gain 1, run-time scales 1 / sqrt(fan_in)."""
    tensors, settings = network.tensors(), Settings(given)
    tanh = settings.get("final_tanh", False)
    demodulate = settings.get("demodulate", True)
    wscale = settings.get("use_wscale", True)
    rate = settings.get("mapping_lr_mul", MAPPING_RATE)
    settings.finish()

    def scale(fan_in: int) -> float:
        return 1 / math.sqrt(fan_in) if wscale else 1.0

    style_dim = tensors.shape("synthesis.layer0.style.weight", 2)[1]
    convolutions = tensors.count("synthesis.layer{}.weight")
    if convolutions % 2 == 0:
        raise UserError(f"{network.path}: {convolutions} layers; expected 1, 3, 5, ...")
    resolutions = (convolutions + 1) // 2
    depths = [tensors.shape(f"synthesis.layer{2 * r}.weight", 4)[0] for r in range(resolutions)]
    outputs = [r for r in range(resolutions) if f"synthesis.output{r}.weight" in tensors]
    skip = outputs != [resolutions - 1] or resolutions == 1
    channels = tensors.shape(f"synthesis.output{resolutions - 1}.weight", 4)[0]

    def styles(prefix: str, index: int, name: str, width: int) -> list[Row]:
        weight, bias = f"{name}.style.weight", f"{name}.style.bias"
        shape = (width, style_dim)
        return [
            Row(f"{prefix}_kernels.{index}", weight, shape, scale(style_dim), dense_kernel),
            Row(f"{prefix}_biases.{index}", bias, (width,), turn=lambda b: b + np.float32(1)),
        ]

    widths, rows = mapping_rows(tensors, "mapping.dense{}", scale, rate)
    num_classes, latent_dim, embedding = label_rows(tensors, widths[0])
    rows += embedding
    const = (1, depths[0], 4, 4)
    rows += [
        Row("mean_style", "truncation.w_avg", (widths[-1],)),
        Row("const", "synthesis.early_layer.const", const, turn=constant),
    ]
    for layer in range(convolutions):
        name, r = f"synthesis.layer{layer}", (layer + 1) // 2
        is_up, size = layer % 2 == 1, 4 * 2**r
        width, depth = depths[r - is_up], depths[r]
        shape = (depth, width, 3, 3)
        noise = (1, 1, size, size)
        rows += [
            Row(f"kernels.{layer}", f"{name}.weight", shape, scale(9 * width), conv_kernel),
            Row(f"biases.{layer}", f"{name}.bias", (depth,)),
            Row(f"noise_strengths.{layer}", f"{name}.noise_strength", ()),
            Row(f"noise.{layer}", f"{name}.noise", noise, turn=channels_last),
            *styles("style", layer, name, width),
        ]
        if is_up:
            tensors.check_constant(f"{name}.filter.kernel", FILTER[None, None])
    for k, r in enumerate(range(resolutions) if skip else [resolutions - 1]):
        name, depth = f"synthesis.output{r}", depths[r]
        shape = (channels, depth, 1, 1)
        rows += [
            Row(f"to_rgb.{k}", f"{name}.weight", shape, scale(depth), pixel_kernel),
            Row(f"to_rgb_biases.{k}", f"{name}.bias", (channels,)),
            *styles("rgb_style", k, name, depth),
        ]
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


def convert_nvidia(network: Network, given: Mapping[str, str]) -> Conversion:
    """Convert NVIDIA's StyleGAN2: a state dict of `G_ema`, or the official pickle.

    Relative to genforce's files: the style biases hold their 1, the kernels carry no run-time
    scale (demodulation cancels it) and those of up-convolutions are stored flipped.
    """
    tensors, settings, found = network.tensors(), Settings(given), built(network)
    assumed: list[str] = []
    clamp = get_clamp(found, settings, network, assumed)
    rate = get_rate(found, settings)
    settings.finish()
    check_activations(found, network)

    if tensors.names(r"synthesis\.b\d+\.skip\.weight"):
        raise UserError(f"{network.path}: architecture resnet; only skip and orig are known")
    pattern = r"synthesis\.b(\d{1,9})\.conv1\.weight"
    sizes = sorted(int(re.sub(pattern, r"\1", name)) for name in tensors.names(pattern))
    resolutions = len(sizes)
    if not sizes or sizes != [4 * 2**r for r in range(resolutions)]:
        raise UserError(f"{network.path}: blocks of {sizes} pixels; expected 4, 8, 16, ...")
    blocks = [f"synthesis.b{size}" for size in sizes]
    depths = [tensors.shape(f"{block}.conv1.weight", 4)[0] for block in blocks]
    style_dim = tensors.shape(f"{blocks[0]}.conv1.affine.weight", 2)[1]
    channels = tensors.shape(f"{blocks[-1]}.torgb.weight", 4)[0]
    skip = resolutions == 1 or f"{blocks[0]}.torgb.weight" in tensors
    stored_noise = bool(tensors.names(r"synthesis\.b\d+\.conv\d\.noise_const"))

    def styles(prefix: str, index: int, name: str, width: int) -> list[Row]:
        weight, shape, scale = f"{name}.affine.weight", (width, style_dim), 1 / math.sqrt(style_dim)
        return [
            Row(f"{prefix}_kernels.{index}", weight, shape, scale, dense_kernel),
            Row(f"{prefix}_biases.{index}", f"{name}.affine.bias", (width,)),
        ]

    widths, rows = mapping_rows(tensors, "mapping.fc{}", lambda n: 1 / math.sqrt(n), rate)
    num_classes, embedding_dim, label = 0, 0, "mapping.embed.weight"
    if label in tensors:
        embedding_dim, num_classes = shape = tensors.shape(label, 2)
        rows += [
            Row("embedding", label, shape, 1 / math.sqrt(num_classes), dense_kernel),
            Row("embedding_bias", "mapping.embed.bias", (embedding_dim,)),
        ]
    latent_dim = widths[0] - embedding_dim
    if latent_dim < 1:
        raise UserError(
            f"{network.path}: mapping.fc0 reads {widths[0]} values, the embedding has "
            f"{embedding_dim}: nothing is left for the latents"
        )
    if widths[-1] != style_dim:
        tensors.note(f"the mapping network ends in {widths[-1]} values, expected {style_dim}")
    const = (depths[0], 4, 4)
    rows += [
        Row("mean_style", "mapping.w_avg", (widths[-1],)),
        Row("const", f"{blocks[0]}.const", const, turn=lambda c: c.transpose(1, 2, 0)),
    ]
    arrays: dict[str, np.ndarray] = {}
    layer = 0
    for r, (block, depth, size) in enumerate(zip(blocks, depths, sizes, strict=True)):
        for part in ("conv1",) if r == 0 else ("conv0", "conv1"):
            name, is_up = f"{block}.{part}", part == "conv0"
            width = depths[r - is_up]
            turn = flipped_kernel if is_up else conv_kernel
            rows += [
                Row(f"kernels.{layer}", f"{name}.weight", (depth, width, 3, 3), turn=turn),
                Row(f"biases.{layer}", f"{name}.bias", (depth,)),
                *styles("style", layer, name, width),
            ]
            if stored_noise:
                noise = (size, size)
                rows += [
                    Row(f"noise_strengths.{layer}", f"{name}.noise_strength", ()),
                    Row(f"noise.{layer}", f"{name}.noise_const", noise, turn=_as_image),
                ]
            else:
                arrays[f"noise_strengths.{layer}"] = np.zeros((), np.float32)
            layer += 1
    for k, r in enumerate(range(resolutions) if skip else [resolutions - 1]):
        name, depth = f"{blocks[r]}.torgb", depths[r]
        shape = (channels, depth, 1, 1)
        rows += [
            Row(f"to_rgb.{k}", f"{name}.weight", shape, 1 / math.sqrt(depth), pixel_kernel),
            Row(f"to_rgb_biases.{k}", f"{name}.bias", (channels,)),
            *styles("rgb_style", k, name, depth),
        ]
    arrays |= take_rows(tensors, rows)
    taps = take_filter(tensors, r".*resample_filter", 1)
    tensors.finish()
    architecture = {
        "form": "nvidia",
        "latent_dim": latent_dim,
        "style_dim": style_dim,
        "mapping_widths": widths[1:],
        "depths": depths,
        "image_channels": channels,
        "skip": skip,
        "clamp": clamp or None,
        "num_classes": num_classes,
        "embedding_dim": embedding_dim or None,
        "stored_noise": stored_noise,
        "filter_taps": taps,
    }
    return Conversion("stylegan2", architecture, arrays, tuple(assumed))


def _as_image(noise: np.ndarray) -> np.ndarray:
    return noise[None, :, :, None]


CONTAINERS = (
    Container(
        "genforce",
        "genforce stylegan2_*: dict with generator, generator_smooth",
        lambda s: has_tensors(s, "synthesis.early_layer.const"),
        convert_genforce,
    ),
    Container(
        "nvidia",
        "NVIDIA StyleGAN2: state dict of G_ema, or the .pkl (its code is not run)",
        lambda s: has_tensors(s, "synthesis.b4.const"),
        convert_nvidia,
    ),
    Container(
        "rosinality",
        "rosinality stylegan2-pytorch: dict with g_ema, latent_avg",
        lambda s: has_tensors(s, "input.input", "conv1.conv.weight"),
        rosinality.convert,
    ),
)
