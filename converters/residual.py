"""Residual generators of GAN_stability [Mescheder et al. 2018] and of Self-Conditioned GAN.

Checkpoints `model.pt` with `generator`, its average `generator_test` and more. A class's vector e
goes into the dense layer as e / |e|: that layer's rows for it are folded into one row for each
class, and the vector of a single class into the bias. GAN_stability's resnet3 and resnet4, which
end in a convolution of 7 x 7, take e as it is; the former, known by its first block, which narrows,
doubles maps before that convolution.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cgjax.errors import UserError
from converters.conversion import Container, Conversion, conv_kernel, pixel_kernel
from converters.networks import Network, has_tensors
from converters.settings import Settings
from converters.tensors import Tensors

_WIDE = 7
"""The last convolution of resnet3 and resnet4."""

_EMBEDDINGS = ("embedding.weight", "get_latent.embedding.weight")


def convert_sizes(network: Network, given: Mapping[str, str]) -> Conversion:
    """Convert a network whose blocks are called by their size: `resnet_0_0`, `resnet_0_1`, ...."""
    tensors = network.tensors()
    blocks = [
        (size > 0 and number == 0, f"resnet_{size}_{number}")
        for size in range(tensors.count("resnet_{}_0.conv_0.weight"))
        for number in range(max(tensors.count(f"resnet_{size}_{{}}.conv_0.weight"), 1))
    ]
    return _convert(network, tensors, blocks, given)


def convert_sequence(network: Network, given: Mapping[str, str]) -> Conversion:
    """Convert a network whose blocks are a sequence, with upsampling between any two of them."""
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
    form = _Form(given, kernel == _WIDE, narrows=width != outputs[0], has_classes=has_classes)
    arrays, size, num_classes = _first_layer(
        tensors, width, network.place, normalize=form.normalize_classes
    )
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
        "doubles_last": form.doubles_last,
    }
    architecture |= {name: value for name, value in optional.items() if value}
    return Conversion("residual", architecture, arrays, tuple(form.assumed))


class _Form:
    """What the tensors do not tell: as given, or assumed, and then listed."""

    def __init__(
        self, given: Mapping[str, str], is_wide: bool, *, narrows: bool, has_classes: bool
    ):
        settings = Settings(given)
        self.normalize_classes = settings.get("normalize_classes", not is_wide)
        self.doubles_last = settings.get("doubles_last", is_wide and narrows)
        settings.finish()
        self.assumed = [
            f"{name} {str(value).lower()} (--set {name}={str(not value).lower()})"
            for name, value, matters in (
                ("normalize_classes", self.normalize_classes, has_classes),
                ("doubles_last", self.doubles_last, is_wide),
            )
            if matters and not settings.is_given(name)
        ]


def _first_layer(
    tensors: Tensors, width: int, place: str, *, normalize: bool
) -> tuple[dict[str, np.ndarray], int, int]:
    """Return the dense layer, the first maps' height, and how many classes there are.

    Args:
        tensors: the file's.
        width: channels of the first maps.
        place: the file, for messages.
        normalize: whether classes' vectors have length 1.

    Raises:
        UserError: a layer that makes no square maps, or is too narrow for its class vectors.
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
            "expected a latent besides"
        )
    table = tensors.take(name, (num_classes, length)).astype(np.float64)
    norms = np.linalg.norm(table, axis=1, keepdims=True) if normalize else np.ones((1, 1))
    if not norms.all():
        tensors.note(f"{name} has a class without direction: its vector is zero")
        norms = np.ones_like(norms)
    latent, rows = np.split(kernel, [inputs - length])
    rows = np.tensordot(table / norms, rows, axes=1)
    if num_classes == 1:
        return {"first": latent, "first_bias": (bias + rows[0]).astype(np.float32)}, size, 0
    first = np.concatenate([latent, rows]).astype(np.float32)
    return {"first": first, "first_bias": bias}, size, num_classes


CONTAINERS = (
    Container(
        "sizes",
        "Self-Conditioned GAN for ImageNet and Places, GAN_stability resnet2 to 4: dict with "
        "generator, generator_test; tensors resnet_0_0.conv_0.weight, ...",
        lambda s: has_tensors(s, "fc.weight", "resnet_0_0.conv_0.weight", "conv_img.weight"),
        convert_sizes,
    ),
    Container(
        "sequence",
        "GAN_stability resnet (CelebA-HQ): the same with resnet.0.conv_0.weight, ...",
        lambda s: has_tensors(s, "fc.weight", "resnet.0.conv_0.weight", "conv_img.weight"),
        convert_sequence,
    ),
)
