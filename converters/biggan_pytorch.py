"""BigGAN files of ajbrock's BigGAN-PyTorch: a bare state dict, `G_ema.pth` or `G.pth`.

The shapes determine everything but eps. Spectral norms are folded in here, in double precision: the
code does not store them, it takes one power step from the stored vector u0 whenever it runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from cgjax.errors import UserError
from converters.axes import conv_kernel, dense_kernel, pixel_kernel
from converters.conversion import Conversion
from converters.networks import Network
from converters.settings import Settings
from converters.spectral import attention_layers, spectrally_normalized
from converters.tensors import Tensors

# Names of a norm's statistics: its own, the code's `myBN`, and synchronised ones.
STATISTICS = ("stored_{}", "bn.stored_{}", "bn.running_{}", "running_{}")


class _Condition(NamedTuple):
    """What the norms of the blocks are conditioned on.

    Attributes:
        num_classes: classes of the file.
        embedding_dim: length of a class's embedding; None if each norm has a row for each class.
        width: how many values a norm reads.
        is_hierarchical: whether the latent is split, with a piece for each block.
    """

    num_classes: int
    embedding_dim: int | None
    width: int
    is_hierarchical: bool


def convert(network: Network, given: Mapping[str, str]) -> Conversion:
    """Convert BigGAN-PyTorch's generator."""
    tensors, settings = network.tensors(), Settings(given)
    eps = settings.get("BN_eps", 1e-5, low=1e-12, high=1)
    power_eps = settings.get("SN_eps", 1e-12, low=1e-30, high=1)
    settings.assume_default("BN_eps", eps)
    settings.finish()
    num_blocks = tensors.count("blocks.{}.0.conv1.weight")
    shapes = [tensors.shape(f"blocks.{i}.0.conv1.weight", 4)[:2] for i in range(num_blocks)]
    widths = [shapes[0][1], *(width_out for width_out, _ in shapes)]
    first, piece = tensors.shape("linear.weight", 2)
    size = math.isqrt(first // widths[0])
    if first != size * size * widths[0]:
        raise UserError(
            f"{network.path}: linear has {first} outputs, not a square map of {widths[0]} channels"
        )
    condition = _find_condition(tensors, network, piece)
    reader = _Reader(tensors, power_eps, condition)
    arrays = reader.arrays
    if condition.embedding_dim is not None:
        shape = condition.num_classes, condition.embedding_dim
        arrays["embedding"] = tensors.take("shared.weight", shape)
    arrays["dense"] = dense_kernel(reader.weight("linear", (first, piece)))
    arrays["dense_bias"] = tensors.take("linear.bias", (first,))
    attention: list[int] = []
    for i in range(num_blocks):
        reader.block(i, *widths[i : i + 2])
        if f"blocks.{i}.1.gamma" in tensors:
            reader.attention(f"attentions.{len(attention)}", f"blocks.{i}.1", widths[i + 1])
            attention.append(i)
    channels = tensors.shape("output_layer.2.weight", 4)[0]
    reader.statistics("final_{}", "output_layer.0", widths[-1])
    for theirs, ours in (("gain", "final_scale"), ("bias", "final_offset")):
        arrays[ours] = tensors.take(f"output_layer.0.{theirs}", (widths[-1],))
    reader.convolution(("to_rgb", "to_rgb_bias"), "output_layer.2", (channels, widths[-1], 3, 3))
    # Logged norms, the vectors of further singular values, and counters of averages.
    tensors.ignore(r".*\.(sv\d+|u[1-9]\d*|accumulation_counter|num_batches_tracked)")
    tensors.finish()
    architecture = {
        "latent_dim": piece * (num_blocks + 1) if condition.is_hierarchical else piece,
        "num_classes": condition.num_classes,
        "widths": widths,
        "embedding_dim": condition.embedding_dim,
        "hierarchical": condition.is_hierarchical,
        "attention": attention,
        "first_size": size,
        "eps": eps,
        "image_channels": channels,
    }
    return Conversion("biggan_pytorch", architecture, arrays, tuple(settings.assumed))


def _find_condition(tensors: Tensors, network: Network, piece: int) -> _Condition:
    """Return what the norms read.

    Raises:
        UserError: it is neither the embedding alone nor the embedding and a piece of the latent.
    """
    gain = tensors.shape("blocks.0.0.bn1.gain.weight", 2)
    if "shared.weight" not in tensors:
        return _Condition(gain[0], None, gain[0], False)
    num_classes, embedding_dim = tensors.shape("shared.weight", 2)
    width, extra = gain[1], gain[1] - embedding_dim
    if extra not in (0, piece):
        raise UserError(
            f"{network.path}: blocks.0.0.bn1.gain.weight has shape {tuple(gain)}: it reads "
            f"{width} values; expected {embedding_dim} of the class's embedding (the rows of "
            f"shared.weight), and {piece} of the latent where it is hierarchical"
        )
    return _Condition(num_classes, embedding_dim, width, bool(extra))


class _Reader:
    """Takes layers out of a state dict, with their spectral norms folded in."""

    def __init__(self, tensors: Tensors, eps: float, condition: _Condition):
        self.tensors, self.eps, self.condition = tensors, eps, condition
        self.arrays: dict[str, np.ndarray] = {}

    def weight(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Return a weight, divided by its spectral norm if it has one."""
        weight = self.tensors.take(f"{name}.weight", shape)
        if f"{name}.u0" not in self.tensors:
            return weight
        u = self.tensors.take(f"{name}.u0", (1, shape[0]))[0]
        return spectrally_normalized(self.tensors, name, weight, u, None, self.eps)

    def convolution(
        self, ours: tuple[str, str], theirs: str, shape: tuple[int, int, int, int]
    ) -> None:
        """Take a convolution, of one pixel or more."""
        transform = pixel_kernel if shape[2] == 1 else conv_kernel
        self.arrays[ours[0]] = transform(self.weight(theirs, shape))
        self.arrays[ours[1]] = self.tensors.take(f"{theirs}.bias", shape[:1])

    def statistics(self, ours: str, theirs: str, width: int) -> None:
        """Take a norm's mean and variance, under a name of ours with one {}."""
        mean, variance = (self._statistic(theirs, kind) for kind in ("mean", "var"))
        self.arrays[ours.format("mean")] = self.tensors.take(mean, (width,))
        self.arrays[ours.format("variance")] = self.tensors.take_variance(variance, (width,))

    def _statistic(self, theirs: str, kind: str) -> str:
        names = [f"{theirs}.{form.format(kind)}" for form in STATISTICS]
        return next((name for name in names if name in self.tensors), names[0])

    def block(self, index: int, width_in: int, width_out: int) -> None:
        """Take a block: two conditional norms, each with a convolution after it, and a shortcut."""
        ours, theirs = f"blocks.{index}", f"blocks.{index}.0"
        for j, width in enumerate((width_in, width_out)):
            norm = f"{ours}.norms.{j}"
            self.statistics(f"{norm}.{{}}", f"{theirs}.bn{j + 1}", width)
            for their_part, our_part in (("gain", "scale"), ("bias", "offset")):
                part = self._conditional(f"{theirs}.bn{j + 1}.{their_part}", width)
                self.arrays[f"{norm}.{our_part}"] = part
            pair, shape = (f"{ours}.kernels.{j}", f"{ours}.biases.{j}"), (width_out, width, 3, 3)
            self.convolution(pair, f"{theirs}.conv{j + 1}", shape)
        shortcut = f"{ours}.shortcut", f"{ours}.shortcut_bias"
        self.convolution(shortcut, f"{theirs}.conv_sc", (width_out, width_in, 1, 1))

    def _conditional(self, name: str, width: int) -> np.ndarray:
        """Take what a norm computes from its condition: a dense layer, or a row for each class."""
        if self.condition.embedding_dim is None:
            return self.tensors.take(f"{name}.weight", (self.condition.width, width))
        return dense_kernel(self.weight(name, (width, self.condition.width)))

    def attention(self, ours: str, theirs: str, width: int) -> None:
        """Take a block's attention."""
        for their_part, our_part, o, i in attention_layers(width):
            kernel = self.weight(f"{theirs}.{their_part}", (o, i, 1, 1))
            self.arrays[f"{ours}.{our_part}"] = pixel_kernel(kernel)
        self.arrays[f"{ours}.gamma"] = self.tensors.take(f"{theirs}.gamma", ())
