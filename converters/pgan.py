"""Progressive GAN files: pytorch_GAN_zoo, genforce (and SeFa), GANDissect.

The run-time weight scales ("equalised learning rate") are folded into the weights.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from cgjax.errors import UserError
from converters.axes import Transform, conv_kernel, first_kernel, flipped_kernel, pixel_kernel
from converters.conversion import Conversion, Layout
from converters.genforce import WeightScale, split_lod
from converters.networks import Network, has_tensors
from converters.rows import Row, layer_rows, take_rows
from converters.settings import Settings
from converters.tensors import Tensors
from converters.zoo import get_categories, get_tanh, zoo_rows, zoo_settings

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
    rows = _zoo_table(latent_dim, depths, channels, equalized)
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
    return Conversion("pgan", architecture, arrays, tuple(settings.assumed))


def _zoo_table(
    latent_dim: int, depths: Sequence[int], channels: int, is_equalized: bool
) -> list[Row]:
    rows_of = functools.partial(zoo_rows, is_equalized=is_equalized)

    def as_maps(dense: np.ndarray) -> np.ndarray:
        return np.moveaxis(dense.reshape(depths[0], 4, 4, *dense.shape[1:]), 0, 2)

    dense, bias = rows_of(
        ("dense", "dense_bias"),
        "formatLayer",
        (16 * depths[0], latent_dim),
        lambda weight: np.moveaxis(as_maps(weight), -1, 0),
    )
    rows = [dense, bias._replace(transform=as_maps)]
    layers = [("groupScale0.0", depths[0], depths[0])]
    for i, (width_in, width_out) in enumerate(itertools.pairwise(depths)):
        layers += [(f"scaleLayers.{i}.0", width_in, width_out)]
        layers += [(f"scaleLayers.{i}.1", width_out, width_out)]
    for i, (name, width_in, width_out) in enumerate(layers):
        ours = f"kernels.{i}", f"biases.{i}"
        rows += rows_of(ours, name, (width_out, width_in, 3, 3), conv_kernel)
    for i, depth in enumerate(depths):
        ours = f"to_rgb.{i}", f"to_rgb_biases.{i}"
        rows += rows_of(ours, f"toRGBLayers.{i}", (channels, depth, 1, 1), pixel_kernel)
    return rows


def has_fused_kernels(tensors: Tensors, depths: Sequence[int]) -> bool:
    """Whether up-convolutions are stored (in, out); False where no shape shows it."""
    for r in range(1, len(depths)):
        name = f"layer{2 * r}.weight"
        if depths[r] != depths[r - 1] and name in tensors:
            return tensors.shape(name, 4)[:2] == (depths[r - 1], depths[r])
    return False


def _fused_kernel(stored: np.ndarray) -> np.ndarray:
    """Convert a fused up-convolution's kernel, stored (in, out), to an ordinary one.

    The file's code uses it in a transposed convolution, which equals upsampling and convolving with
    the flipped kernel; the fan_in is that of the first axis.
    """
    return flipped_kernel(stored.transpose(1, 0, 2, 3))


def convert_genforce(network: Network, given: Mapping[str, str]) -> Conversion:
    """Convert a genforce (or SeFa) PGAN file; kernels are scaled, biases are not."""
    tensors, settings = network.tensors(), Settings(given)
    lod = settings.get("lod", tensors.scalar("lod"))
    tanh = settings.get("final_tanh", False)
    scale = WeightScale(settings.get("use_wscale", True))
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
    first, ours = (width, latent_dim, 4, 4), ("dense", "dense_bias")
    gain = scale(16 * latent_dim, math.sqrt(2))
    arrays = take_rows(tensors, layer_rows(ours, "layer0", first, first_kernel, gain))
    for b in range(resolutions):
        # Every resolution is checked; those above the level of detail are dropped.
        taken = take_rows(tensors, _genforce_rows(b, depths, channels, scale, fused))
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


def _genforce_rows(
    b: int, depths: Sequence[int], channels: int, scale: WeightScale, fused: bool
) -> Iterator[Row]:
    """Yield the rows of a resolution's convolutions and of its image layer."""
    depth = depths[b]
    for layer in (1,) if b == 0 else (2 * b, 2 * b + 1):
        is_up = layer % 2 == 0
        is_fused, width_in = fused and is_up, depths[b - is_up]
        shape = (width_in, depth, 3, 3) if is_fused else (depth, width_in, 3, 3)
        transform: Transform = _fused_kernel if is_fused else conv_kernel
        gain = scale(9 * width_in, math.sqrt(2))
        yield Row(f"kernels.{layer - 1}", f"layer{layer}.weight", shape, gain, transform)
        yield Row(f"biases.{layer - 1}", f"layer{layer}.bias", (depth,))
    ours, shape = (f"to_rgb.{b}", f"to_rgb_biases.{b}"), (channels, depth, 1, 1)
    yield from layer_rows(ours, f"output{b}", shape, pixel_kernel, scale(depth))


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
        ours: tuple[str, str], theirs: str, shape: tuple[int, ...], transform: Transform
    ) -> list[Row]:
        scale = math.sqrt((1 if theirs == outputs[0] else 2) / math.prod(shape[1:]))
        return [
            Row(ours[0], f"{theirs}.conv.weight", shape, scale, transform),
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
    """Rename the layers of old GANDissect files, features.{n-1}, to those of new ones, layer{n}."""
    pattern = re.compile(r"^features\.(\d{1,9})(?!\d)")
    return {pattern.sub(_renumber, str(name)): value for name, value in state.items()}


def _renumber(match: re.Match[str]) -> str:
    return f"layer{int(match.group(1)) + 1}"


LAYOUTS = (
    Layout(
        "zoo",
        "pytorch_GAN_zoo PGAN: dict with config, netG, avgG",
        lambda s: has_tensors(s, "formatLayer.weight", "groupScale0.0.weight"),
        convert_zoo,
    ),
    Layout(
        "genforce",
        "genforce and SeFa pggan_*: dict with generator, generator_smooth",
        lambda s: has_tensors(s, "layer0.weight", "output0.weight"),
        convert_genforce,
    ),
    Layout(
        "netdissect",
        "GANDissect PGAN: state dict layer1.conv.weight, layer1.wscale.b, ...",
        lambda s: has_tensors(s, "layer1.conv.weight") or has_tensors(s, "features.0.conv.weight"),
        convert_netdissect,
    ),
)
