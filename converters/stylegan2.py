"""StyleGAN2 files: genforce's ports, and NVIDIA's own networks (stylegan2-ada-pytorch).

NVIDIA's official `.pkl` files hold source code, which is not executed here: see `safe_pickle`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from cgjax.errors import UserError
from cgjax.generators.layers import FILTER_TAPS
from converters.conversion import Container, Conversion, conv_kernel, dense_kernel, has_tensors
from converters.reading import Checkpoint, Tensors, choose_state
from converters.settings import Settings
from converters.stylegan import MAPPING_RATE, take_mapping

FILTER = np.outer(FILTER_TAPS, FILTER_TAPS).astype(np.float32)


def convert_genforce(checkpoint: Checkpoint, given: Mapping[str, str]) -> Conversion:
    """Convert a genforce StyleGAN2 file: every gain 1, run-time scales 1 / sqrt(fan_in)."""
    tensors = Tensors(choose_state(checkpoint, ("generator_smooth", "generator")), checkpoint.path)
    settings = Settings(given)
    tanh = settings.get("final_tanh", False)
    demodulate = settings.get("demodulate", True)
    wscale = settings.get("use_wscale", True)
    rate = settings.get("mapping_lr_mul", MAPPING_RATE)
    settings.finish()

    def scale(fan_in: int) -> np.float32:
        return np.float32(1 / math.sqrt(fan_in) if wscale else 1.0)

    arrays: dict[str, np.ndarray] = {}
    style_dim = tensors.shape("synthesis.layer0.style.weight", 2)[1]
    convolutions = tensors.count("synthesis.layer{}.weight")
    if convolutions % 2 == 0:
        raise UserError(f"{checkpoint.path}: {convolutions} layers; expected 1, 3, 5, ...")
    resolutions = (convolutions + 1) // 2
    depths = [tensors.shape(f"synthesis.layer{2 * r}.weight", 4)[0] for r in range(resolutions)]
    outputs = [r for r in range(resolutions) if f"synthesis.output{r}.weight" in tensors]
    skip = outputs != [resolutions - 1] or resolutions == 1
    channels = tensors.shape(f"synthesis.output{resolutions - 1}.weight", 4)[0]

    label = "mapping.label_weight"
    inputs, widths = take_mapping(tensors, "mapping.dense{}", 1.0, arrays, rate=rate, wscale=wscale)
    num_classes, latent_dim = tensors.shape(label, 2) if label in tensors else (0, inputs)
    if num_classes:
        arrays["embedding"] = tensors.take(label, (num_classes, latent_dim))
    arrays["mean_style"] = tensors.take("truncation.w_avg", (widths[-1],))

    def take_style(name: str, width: int) -> tuple[np.ndarray, np.ndarray]:
        weight = tensors.take(f"{name}.style.weight", (width, style_dim)) * scale(style_dim)
        return dense_kernel(weight), tensors.take(f"{name}.style.bias", (width,)) + np.float32(1)

    const = tensors.take("synthesis.early_layer.const", (1, depths[0], 4, 4))
    arrays["const"] = const[0].transpose(1, 2, 0)
    for layer in range(convolutions):
        name, r = f"synthesis.layer{layer}", (layer + 1) // 2
        upsampling, resolution = layer % 2 == 1, 4 * 2**r
        width_in, depth = depths[r - upsampling], depths[r]
        weight = tensors.take(f"{name}.weight", (depth, width_in, 3, 3))
        arrays[f"kernels.{layer}"] = conv_kernel(weight * scale(9 * width_in))
        arrays[f"biases.{layer}"] = tensors.take(f"{name}.bias", (depth,))
        arrays[f"noise_strengths.{layer}"] = tensors.take(f"{name}.noise_strength", ())
        noise = tensors.take(f"{name}.noise", (1, 1, resolution, resolution))
        arrays[f"noise.{layer}"] = noise.transpose(0, 2, 3, 1)
        kernel, bias = take_style(name, width_in)
        arrays[f"style_kernels.{layer}"], arrays[f"style_biases.{layer}"] = kernel, bias
        if upsampling:
            tensors.check_constant(f"{name}.filter.kernel", FILTER[None, None])
    tensors.check_constant("synthesis.upsample.kernel", FILTER[None, None])
    for k, r in enumerate(range(resolutions) if skip else [resolutions - 1]):
        name, depth = f"synthesis.output{r}", depths[r]
        weight = tensors.take(f"{name}.weight", (channels, depth, 1, 1)) * scale(depth)
        arrays[f"to_rgb.{k}"] = conv_kernel(weight)[0, 0]
        arrays[f"to_rgb_biases.{k}"] = tensors.take(f"{name}.bias", (channels,))
        kernel, bias = take_style(name, depth)
        arrays[f"rgb_style_kernels.{k}"], arrays[f"rgb_style_biases.{k}"] = kernel, bias
    tensors.finish()
    architecture = {
        "form": "genforce",
        "latent_dim": latent_dim,
        "style_dim": style_dim,
        "mapping_widths": widths,
        "depths": depths,
        "image_channels": channels,
        "tanh": tanh,
        "skip": skip,
        "demodulate": demodulate,
        "num_classes": num_classes,
    }
    return Conversion("stylegan2", architecture, arrays)


NVIDIA_STATES = ("G_ema", "generator_ema", "state_dict", "G", "generator")


def _nvidia_settings(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what an official pickle says its network was built with."""
    content = checkpoint.content if isinstance(checkpoint.content, Mapping) else {}
    built = content.get("settings", {})
    built = built.get("G_ema", {}) if isinstance(built, Mapping) else {}
    if not isinstance(built, Mapping):
        return {}
    parts = [built.get(name) for name in ("mapping_kwargs", "synthesis_kwargs")]
    return {k: v for part in parts if isinstance(part, Mapping) for k, v in part.items()}


def convert_nvidia(checkpoint: Checkpoint, given: Mapping[str, str]) -> Conversion:
    """Convert NVIDIA's StyleGAN2: a state dict of `G_ema`, or the official pickle.

    Relative to genforce's files: the style biases hold their 1, the kernels carry no run-time
    scale (demodulation cancels it) and those of up-convolutions are stored flipped.
    """
    tensors = Tensors(choose_state(checkpoint, NVIDIA_STATES), checkpoint.path)
    settings = Settings(given, _nvidia_settings(checkpoint))
    clamp = settings.get("conv_clamp", 0.0)
    rate = settings.get("lr_multiplier", MAPPING_RATE)
    settings.finish()

    if tensors.names(r"synthesis\.b\d+\.skip\.weight"):
        raise UserError(f"{checkpoint.path}: architecture resnet; only skip and orig are known")
    arrays: dict[str, np.ndarray] = {}
    sizes = [name.split(".")[1] for name in tensors.names(r"synthesis\.b\d+\.conv1\.weight")]
    resolutions = max((int(b[1:]) for b in sizes), default=4).bit_length() - 2
    blocks = [f"synthesis.b{4 * 2**r}" for r in range(resolutions)]
    depths = [tensors.shape(f"{block}.conv1.weight", 4)[0] for block in blocks]
    style_dim = tensors.shape(f"{blocks[0]}.conv1.affine.weight", 2)[1]
    channels = tensors.shape(f"{blocks[-1]}.torgb.weight", 4)[0]
    skip = resolutions == 1 or f"{blocks[0]}.torgb.weight" in tensors

    inputs, widths = take_mapping(tensors, "mapping.fc{}", 1.0, arrays, rate=rate)
    num_classes, embedding_dim = 0, 0
    if "mapping.embed.weight" in tensors:
        embedding_dim, num_classes = tensors.shape("mapping.embed.weight", 2)
        weight = tensors.take("mapping.embed.weight", (embedding_dim, num_classes))
        arrays["embedding"] = dense_kernel(weight * np.float32(1 / math.sqrt(num_classes)))
        arrays["embedding_bias"] = tensors.take("mapping.embed.bias", (embedding_dim,))
    latent_dim = inputs - embedding_dim
    if widths[-1] != style_dim:
        tensors.note(f"the mapping network ends in {widths[-1]} values, expected {style_dim}")
    arrays["mean_style"] = tensors.take("mapping.w_avg", (widths[-1],))

    def take_style(name: str, width: int) -> tuple[np.ndarray, np.ndarray]:
        weight = tensors.take(f"{name}.affine.weight", (width, style_dim))
        scaled = weight * np.float32(1 / math.sqrt(style_dim))
        return dense_kernel(scaled), tensors.take(f"{name}.affine.bias", (width,))

    const = tensors.take(f"{blocks[0]}.const", (depths[0], 4, 4))
    arrays["const"] = const.transpose(1, 2, 0)
    stored_noise = bool(tensors.names(r"synthesis\.b\d+\.conv\d\.noise_const"))
    layer = 0
    for r, block in enumerate(blocks):
        depth, resolution = depths[r], 4 * 2**r
        for part in ("conv1",) if r == 0 else ("conv0", "conv1"):
            name, upsampling = f"{block}.{part}", part == "conv0"
            width_in = depths[r - upsampling]
            weight = tensors.take(f"{name}.weight", (depth, width_in, 3, 3))
            if upsampling:
                weight = weight[:, :, ::-1, ::-1]
            arrays[f"kernels.{layer}"] = conv_kernel(weight)
            arrays[f"biases.{layer}"] = tensors.take(f"{name}.bias", (depth,))
            arrays[f"noise_strengths.{layer}"] = np.zeros((), np.float32)
            if stored_noise:
                strength = tensors.take(f"{name}.noise_strength", ())
                noise = tensors.take(f"{name}.noise_const", (resolution, resolution))
                arrays[f"noise_strengths.{layer}"] = strength
                arrays[f"noise.{layer}"] = noise[None, :, :, None]
            kernel, bias = take_style(name, width_in)
            arrays[f"style_kernels.{layer}"], arrays[f"style_biases.{layer}"] = kernel, bias
            layer += 1
    for k, r in enumerate(range(resolutions) if skip else [resolutions - 1]):
        name, depth = f"{blocks[r]}.torgb", depths[r]
        weight = tensors.take(f"{name}.weight", (channels, depth, 1, 1))
        arrays[f"to_rgb.{k}"] = conv_kernel(weight * np.float32(1 / math.sqrt(depth)))[0, 0]
        arrays[f"to_rgb_biases.{k}"] = tensors.take(f"{name}.bias", (channels,))
        kernel, bias = take_style(name, depth)
        arrays[f"rgb_style_kernels.{k}"], arrays[f"rgb_style_biases.{k}"] = kernel, bias
    for name in tensors.names(r".*resample_filter"):
        tensors.check_constant(name, FILTER / 4)  # NVIDIA applies the gain at run time
    tensors.finish()
    architecture = {
        "form": "nvidia",
        "latent_dim": latent_dim,
        "style_dim": style_dim,
        "mapping_widths": widths,
        "depths": depths,
        "image_channels": channels,
        "skip": skip,
        "clamp": clamp or None,
        "num_classes": num_classes,
        "embedding_dim": embedding_dim or None,
        "stored_noise": stored_noise,
    }
    return Conversion("stylegan2", architecture, arrays)


CONTAINERS = (
    Container(
        "genforce",
        "genforce stylegan2_*: dict with generator, generator_smooth",
        lambda c: has_tensors(c, "synthesis.early_layer.const"),
        convert_genforce,
    ),
    Container(
        "nvidia",
        "NVIDIA stylegan2-ada-pytorch: state dict of G_ema, or the .pkl (its code is not run)",
        lambda c: has_tensors(c, "synthesis.b4.const"),
        convert_nvidia,
    ),
)
