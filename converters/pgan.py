"""Progressive GAN files: pytorch_GAN_zoo, genforce (and SeFa), GANDissect.

The run-time weight scales ("equalised learning rate") are baked in here.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from cgjax.errors import UserError
from converters.conversion import (
    Container,
    Conversion,
    Row,
    Turn,
    conv_kernel,
    first_kernel,
    flipped_kernel,
    pixel_kernel,
    take_rows,
)
from converters.networks import Network, has_tensors
from converters.settings import Settings
from converters.tensors import Tensors
from converters.zoo import get_categories, get_tanh, layer_rows, zoo_settings

T = TypeVar("T")


def convert_zoo(network: Network, given: Mapping[str, str]) -> Conversion:
    """Convert a GAN-zoo PGAN file.

    The equalised scale s = sqrt(2 / fan_in) multiplies the layer's output, bias included, for every
    layer; `alpha` is the weight of the *lower* resolution.
    """
    tensors, settings = network.tensors(), zoo_settings(network, given)
    num_rows, latent_dim = tensors.shape("formatLayer.weight", 2)
    leak = settings.get("leakyReluLeak", 0.2, low=0, high=1)
    alpha = settings.get("alpha", 0.0, low=0, high=1)
    equalized = settings.get("equalizedlR", True)
    normalized = settings.get("perChannelNormalization", True)
    tanh = get_tanh(settings, "WGANGP")
    categories = get_categories(network, settings, latent_dim)
    settings.finish()
    if not normalized:
        raise UserError(
            f"{network.path}: perChannelNormalization=False; the reference code cannot run such "
            "a file, so there is no reference to match"
        )
    if num_rows % 16:
        raise UserError(
            f"{network.path}: formatLayer.weight has {num_rows} rows, not 16 times a width"
        )
    scales = tensors.count("scaleLayers.{}.0.weight")
    depths = [num_rows // 16]
    depths += [tensors.shape(f"scaleLayers.{i}.0.weight", 4)[0] for i in range(scales)]
    channels = tensors.shape("toRGBLayers.0.weight", 4)[0]
    rows_of = functools.partial(layer_rows, is_equalized=equalized)

    square = (depths[0], 4, 4)
    dense, bias = rows_of(
        ("dense", "dense_bias"), "formatLayer", (num_rows, latent_dim), np.asarray
    )
    rows = [
        dense._replace(turn=lambda w: w.reshape(*square, latent_dim).transpose(3, 1, 2, 0)),
        bias._replace(turn=lambda b: b.reshape(square).transpose(1, 2, 0)),
    ]
    layers = [("groupScale0.0", depths[0], depths[0])]
    for i in range(scales):
        layers += [(f"scaleLayers.{i}.0", depths[i], depths[i + 1])]
        layers += [(f"scaleLayers.{i}.1", depths[i + 1], depths[i + 1])]
    for i, (name, width_in, width_out) in enumerate(layers):
        ours = f"kernels.{i}", f"biases.{i}"
        rows += rows_of(ours, name, (width_out, width_in, 3, 3), conv_kernel)
    for i, depth in enumerate(depths):
        ours = f"to_rgb.{i}", f"to_rgb_biases.{i}"
        rows += rows_of(ours, f"toRGBLayers.{i}", (channels, depth, 1, 1), pixel_kernel)
    arrays = take_rows(tensors, rows)
    tensors.finish()
    architecture = {
        "form": "zoo",
        "latent_dim": latent_dim,
        "depths": depths,
        "image_channels": channels,
        "leak": leak,
        "tanh": tanh,
        "blend": alpha if scales else 0.0,
        "categories": categories,
    }
    return Conversion("pgan", architecture, arrays)


def split_lod(lod: float, resolutions: int, source: object) -> tuple[int, float]:
    """Read a genforce level of detail.

    A level l leaves the last floor(l) resolutions out and fades in the one before.

    Returns:
        How many resolutions are active, and the weight of the lower one's upsampled image.

    Raises:
        UserError: if the network has no such level.
    """
    if not 0 <= lod <= resolutions - 1:
        raise UserError(f"{source}: lod={lod} is not in [0, {resolutions - 1}]; give --set lod=0")
    return resolutions - math.floor(lod), lod - math.floor(lod)


def has_fused_kernels(tensors: Tensors, depths: Sequence[int]) -> bool:
    """Whether up-convolutions are stored (in, out): visible only where the two differ."""
    for r in range(1, len(depths)):
        name = f"layer{2 * r}.weight"
        if depths[r] != depths[r - 1] and name in tensors:
            return tensors.shape(name, 4)[:2] == (depths[r - 1], depths[r])
    return False


def _fused_kernel(stored: np.ndarray) -> np.ndarray:
    """Turn a fused up-convolution's kernel, stored (in, out), into an ordinary one.

    A transposed convolution uses it, which equals upsampling and convolving with the flipped
    kernel; the reference takes its fan_in from the first axis.
    """
    return flipped_kernel(stored.transpose(1, 0, 2, 3))


def convert_genforce(network: Network, given: Mapping[str, str]) -> Conversion:
    """Convert a genforce (or SeFa) PGAN file; kernels are scaled, biases are not."""
    tensors = network.tensors()
    stored_lod = tensors.scalar("lod", 0.0)
    settings = Settings(given)
    lod = settings.get("lod", stored_lod)
    tanh = settings.get("final_tanh", False)
    wscale = settings.get("use_wscale", True)
    width, latent_dim = tensors.shape("layer0.weight", 4)[:2]
    num_classes = settings.get("label_size", 0, low=0, high=latent_dim - 1)
    resolutions = tensors.count("output{}.weight")
    depths = [tensors.shape(f"output{b}.weight", 4)[1] for b in range(resolutions)]
    fused = settings.get("fused_scale", has_fused_kernels(tensors, depths))
    settings.finish()
    channels = tensors.shape("output0.weight", 4)[0]
    if width != depths[0]:
        raise UserError(
            f"{network.path}: layer0 has {width} output channels, output0 reads {depths[0]}"
        )
    active, blend = split_lod(lod, resolutions, network.path)

    def gain(value: float, fan_in: int) -> float:
        return value / math.sqrt(fan_in) if wscale else 1.0

    first, root = (width, latent_dim, 4, 4), math.sqrt(2)
    rows = [
        Row("dense", "layer0.weight", first, gain(root, 16 * latent_dim), first_kernel),
        Row("dense_bias", "layer0.bias", (width,)),
    ]
    arrays = take_rows(tensors, rows)
    for b, depth in enumerate(depths):
        rows = []
        for layer in (1,) if b == 0 else (2 * b, 2 * b + 1):
            is_up = layer % 2 == 0
            width_in = depths[b - is_up]
            is_fused = fused and is_up
            shape = (width_in, depth, 3, 3) if is_fused else (depth, width_in, 3, 3)
            turn: Turn = _fused_kernel if is_fused else conv_kernel
            scale = gain(root, 9 * width_in)
            rows += [
                Row(f"kernels.{layer - 1}", f"layer{layer}.weight", shape, scale, turn),
                Row(f"biases.{layer - 1}", f"layer{layer}.bias", (depth,)),
            ]
        shape = (channels, depth, 1, 1)
        rows += [
            Row(f"to_rgb.{b}", f"output{b}.weight", shape, gain(1.0, depth), pixel_kernel),
            Row(f"to_rgb_biases.{b}", f"output{b}.bias", (channels,)),
        ]
        # Every resolution is checked; those above the level of detail are not kept.
        taken = take_rows(tensors, rows)
        if b < active:
            arrays |= taken
    tensors.finish()
    architecture = {
        "form": "genforce",
        "latent_dim": latent_dim - num_classes,
        "num_classes": num_classes,
        "depths": depths[:active],
        "image_channels": channels,
        "tanh": tanh,
        "blend": blend,
        "extra_doublings": resolutions - active,
    }
    return Conversion("pgan", architecture, arrays)


def convert_netdissect(network: Network, given: Mapping[str, str]) -> Conversion:
    """Convert a GANDissect PGAN file: genforce's arithmetic, layers counted from 1."""
    settings = Settings(given)
    tanh = settings.get("final_tanh", False)
    settings.finish()
    tensors = Tensors(renumbered(network.state), network.place)
    outputs = sorted({name.split(".")[0] for name in tensors.names("output.*")})
    if len(outputs) != 1:
        raise UserError(
            f"{network.path}: expected one output layer, found {', '.join(outputs) or 'none'}"
        )
    latent_dim = tensors.shape("layer1.conv.weight", 4)[1]
    layers = tensors.count("layer{}.conv.weight") - 1
    channels, depth_last = tensors.shape(f"{outputs[0]}.conv.weight", 4)[:2]
    if layers % 2:
        raise UserError(f"{network.path}: {layers} layers; expected two for each resolution")
    depths = [tensors.shape(f"layer{2 * b + 2}.conv.weight", 4)[0] for b in range(layers // 2)]
    if depth_last != depths[-1]:
        tensors.note(f"{outputs[0]} reads {depth_last} channels, expected {depths[-1]}")

    def rows_of(
        ours: tuple[str, str], theirs: str, shape: tuple[int, ...], turn: Turn
    ) -> list[Row]:
        scale = math.sqrt((1 if theirs == outputs[0] else 2) / math.prod(shape[1:]))
        return [
            Row(ours[0], f"{theirs}.conv.weight", shape, scale, turn),
            Row(ours[1], f"{theirs}.wscale.b", shape[:1]),
        ]

    first = (depths[0], latent_dim, 4, 4)
    rows = rows_of(("dense", "dense_bias"), "layer1", first, first_kernel)
    for n in range(2, layers + 1):
        ours, b = (f"kernels.{n - 2}", f"biases.{n - 2}"), (n - 1) // 2
        rows += rows_of(ours, f"layer{n}", (depths[b], depths[b - n % 2], 3, 3), conv_kernel)
    ours, last = ("to_rgb.0", "to_rgb_biases.0"), (channels, depths[-1], 1, 1)
    rows += rows_of(ours, outputs[0], last, pixel_kernel)
    arrays = take_rows(tensors, rows)
    tensors.finish()
    architecture = {
        "form": "netdissect",
        "latent_dim": latent_dim,
        "depths": depths,
        "image_channels": channels,
        "tanh": tanh,
    }
    return Conversion("pgan", architecture, arrays)


def renumbered(state: Mapping[Any, T]) -> dict[str, T]:
    """Name the layers of old GANDissect files, features.{n-1}, as new ones do, layer{n}."""
    pattern = re.compile(r"^features\.(\d{1,9})(?!\d)")
    return {pattern.sub(_renumber, str(name)): value for name, value in state.items()}


def _renumber(match: re.Match[str]) -> str:
    return f"layer{int(match.group(1)) + 1}"


CONTAINERS = (
    Container(
        "zoo",
        "pytorch_GAN_zoo PGAN: dict with config, netG, avgG",
        lambda s: has_tensors(s, "formatLayer.weight", "groupScale0.0.weight"),
        convert_zoo,
    ),
    Container(
        "genforce",
        "genforce and SeFa pggan_*: dict with generator, generator_smooth",
        lambda s: has_tensors(s, "layer0.weight", "output0.weight"),
        convert_genforce,
    ),
    Container(
        "netdissect",
        "GANDissect PGAN: state dict layer1.conv.weight, layer1.wscale.b, ...",
        lambda s: has_tensors(s, "layer1.conv.weight") or has_tensors(s, "features.0.conv.weight"),
        convert_netdissect,
    ),
)
