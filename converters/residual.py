"""Residual generators of GAN_stability [Mescheder et al. 2018] and of Self-Conditioned GAN.

Checkpoints `model.pt` hold `generator`, its average `generator_test` and more. The dense layer
reads a class's vector e as e / |e|: its rows for e are folded into one row for each class, or, with
a single class, into the bias. GAN_stability's resnet3 and resnet4, which end in a 7 x 7
convolution, read e unscaled; resnet3, recognised by its narrowing first block, also doubles the
maps before that convolution.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cgjax.errors import UserError
from converters.axes import conv_kernel, pixel_kernel
from converters.conversion import Conversion, Layout
from converters.networks import Network, has_tensors
from converters.settings import Settings
from converters.tensors import Tensors

_WIDE = 7
"""Kernel size of the last convolution in resnet3 and resnet4."""

_EMBEDDINGS = ("embedding.weight", "get_latent.embedding.weight")


def convert_sizes(network: Network, given: Mapping[str, str]) -> Conversion:
    """Convert a network whose blocks are named by size: `resnet_0_0`, `resnet_0_1`, ...."""
    tensors = network.tensors()
    blocks = [
        (size > 0 and number == 0, f"resnet_{size}_{number}")
        for size in range(tensors.count("resnet_{}_0.conv_0.weight"))
        for number in range(max(tensors.count(f"resnet_{size}_{{}}.conv_0.weight"), 1))
    ]
    return _convert(network, tensors, blocks, given)


def convert_sequence(network: Network, given: Mapping[str, str]) -> Conversion:
    """Convert a network whose blocks form a sequence, with upsampling between each two."""
    tensors = network.tensors()
    num = (tensors.count("resnet.{}.conv_0.weight") + 1) // 2
    blocks = [(i > 0, f"resnet.{2 * i}") for i in range(num)]
    return _convert(network, tensors, blocks, given)


def _convert(
    network: Network,
    tensors: Tensors,
    blocks: Sequence[tuple[bool, str]],
    given: Mapping[str, str],
) -> Conversion:
    width = tensors.shape(f"{blocks[0][1]}.conv_0.weight", 4)[1]
    outputs = [tensors.shape(f"{name}.conv_1.weight", 4)[0] for _, name in blocks]
    sides = list(itertools.pairwise((width, *outputs)))
    channels, _, kernel, _ = tensors.shape("conv_img.weight", 4)
    has_classes = any(name in tensors for name in _EMBEDDINGS)
    is_wide, settings = kernel == _WIDE, Settings(given)
    normalize = _get_switch(settings, "normalize_classes", not is_wide, matters=has_classes)
    narrows = width != outputs[0]
    doubles_last = _get_switch(settings, "doubles_last", is_wide and narrows, matters=is_wide)
    settings.finish()
    arrays, size, num_classes = _first_layer(tensors, width, network.place, normalize=normalize)
    for number, ((_, name), (a, b)) in enumerate(zip(blocks, sides, strict=True)):
        ours, hidden = f"blocks.{number}", min(a, b)
        for theirs, part, o, i in (("conv_0", "first", hidden, a), ("conv_1", "second", b, hidden)):
            weight = tensors.take(f"{name}.{theirs}.weight", (o, i, 3, 3))
            arrays[f"{ours}.{part}"] = conv_kernel(weight)
            arrays[f"{ours}.{part}_bias"] = tensors.take(f"{name}.{theirs}.bias", (o,))
        if a != b:
            weight = tensors.take(f"{name}.conv_s.weight", (b, a, 1, 1))
            arrays[f"{ours}.shortcut"] = pixel_kernel(weight)
    shape = (channels, outputs[-1], kernel, kernel)
    arrays["output"] = conv_kernel(tensors.take("conv_img.weight", shape))
    if kernel % 2 == 0:
        tensors.note(f"conv_img has a kernel of {kernel} x {kernel}, expected an odd one")
    arrays["output_bias"] = tensors.take("conv_img.bias", (channels,))
    tensors.finish()
    architecture: dict[str, Any] = {
        "latent_dim": len(arrays["first"]) - num_classes,
        "blocks": [[int(doubles), *pair] for (doubles, _), pair in zip(blocks, sides, strict=True)],
        "image_channels": channels,
        "first_size": size,
    }
    optional = {
        "num_classes": num_classes,
        "output_kernel": kernel if kernel != 3 else 0,
        "doubles_last": doubles_last,
    }
    architecture |= {name: value for name, value in optional.items() if value}
    return Conversion("residual", architecture, arrays, tuple(settings.assumed))


def _get_switch(settings: Settings, name: str, default: bool, *, matters: bool) -> bool:
    """Return a boolean that the tensors do not determine; list it as assumed if it matters."""
    value = settings.get(name, default)
    if matters:
        other = str(not value).lower()
        settings.assume(name, f"{name} {str(value).lower()} (--set {name}={other})")
    return value


def _first_layer(
    tensors: Tensors, width: int, place: str, *, normalize: bool
) -> tuple[dict[str, np.ndarray], int, int]:
    """Return the dense layer, the first maps' height, and the number of classes.

    Args:
        tensors: the file's tensors.
        width: channels of the first maps.
        place: the file, for messages.
        normalize: whether class vectors are scaled to length 1.

    Raises:
        UserError: the layer's outputs are not square maps, or it is too narrow for its class
            vectors.
    """
    outputs, inputs = tensors.shape("fc.weight", 2)
    size = math.isqrt(outputs // width)
    if outputs != size * size * width:
        raise UserError(f"{place}: fc has {outputs} outputs, not a square map of {width} channels")
    maps = (width, size, size)
    kernel = tensors.take("fc.weight", (outputs, inputs)).reshape(*maps, inputs)
    kernel = kernel.transpose(3, 1, 2, 0)
    bias = tensors.take("fc.bias", (outputs,)).reshape(maps).transpose(1, 2, 0)
    name = next((name for name in _EMBEDDINGS if name in tensors), None)
    if name is None:
        return {"first": kernel, "first_bias": bias}, size, 0
    num_classes, length = tensors.shape(name, 2)
    if length >= inputs:
        raise UserError(
            f"{place}: fc.weight reads {inputs} numbers, {name} alone has {length} for each class; "
            "expected a latent too"
        )
    table = tensors.take(name, (num_classes, length)).astype(np.float64)
    norms = np.linalg.norm(table, axis=1, keepdims=True) if normalize else np.ones((1, 1))
    if not norms.all():
        tensors.note(f"{name} has a zero vector, which cannot be scaled to length 1")
        norms = np.ones_like(norms)
    latent, rows = np.split(kernel, [inputs - length])
    rows = np.tensordot(table / norms, rows, axes=1)
    if num_classes == 1:
        return {"first": latent, "first_bias": (bias + rows[0]).astype(np.float32)}, size, 0
    first = np.concatenate([latent, rows]).astype(np.float32)
    return {"first": first, "first_bias": bias}, size, num_classes


LAYOUTS = (
    Layout(
        "sizes",
        "Self-Conditioned GAN for ImageNet and Places, GAN_stability resnet2 to 4: dict with "
        "generator, generator_test; tensors resnet_0_0.conv_0.weight, ...",
        lambda s: has_tensors(s, "fc.weight", "resnet_0_0.conv_0.weight", "conv_img.weight"),
        convert_sizes,
    ),
    Layout(
        "sequence",
        "GAN_stability resnet (CelebA-HQ): the same with resnet.0.conv_0.weight, ...",
        lambda s: has_tensors(s, "fc.weight", "resnet.0.conv_0.weight", "conv_img.weight"),
        convert_sequence,
    ),
)
