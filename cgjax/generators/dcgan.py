"""DCGAN [Radford et al. 2016]: transposed convolutions with batch norm, in inference mode.

The running statistics of the batch norms are folded into a scale and a shift per channel when a
checkpoint is converted, so a layer is a transposed convolution, an affine map and a ReLU.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Annotated

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from cgjax.generators.architecture import Count, FixedList, Share, Size, Sizes
from cgjax.generators.conditions import check_categories
from cgjax.generators.dense_first import DenseFirst
from cgjax.generators.layers import leaky_relu, transposed_convolve
from cgjax.generators.staged import State, parameter

DOUBLING = (4, 2, 1, 0)
"""Kernel, stride, padding and output padding of a transposed convolution that doubles the size."""


class DCGAN(DenseFirst):
    """The generator of the PyTorch examples and the GAN zoo, and variants derived from them.

    Layers are `layer1` (after its ReLU; 4x4 where the first kernel is 4x4), `layer2`, ...; the
    output layer is not included. A class-conditional network takes `condition`: its class vector is
    appended to the latent, or selects the first layer.
    """

    family = "dcgan"

    def __init__(
        self,
        latent_dim: Size,
        widths: Sizes,
        image_channels: Size = 3,
        tanh: bool = True,
        categories: Sequence[Size] = (),
        first_size: Size = 4,
        stages: Sequence[Annotated[Sequence[int], FixedList((Size, Size, Count, Count))]] = (),
        leak: Share = 0.0,
        output_bias: bool = False,
        num_classes: Count = 0,
        class_names: Sequence[str] = (),
        plain_first: bool = False,
        per_class: bool = False,
    ):
        """Build the network.

        Args:
            latent_dim: length of a latent, without a class vector.
            widths: channels of layer1, layer2, ....
            image_channels: 3, or 1.
            tanh: whether the image is passed through a tanh.
            categories: sizes of the one-hot vectors at the end of the latent (the zoo's AC-GANs).
            first_size: height and width of layer1.
            stages: for each later layer and the output: kernel size, stride, padding and output
                padding, as in PyTorch; empty where each doubles the size with a 4x4 kernel.
            leak: slope of the activation below 0.
            output_bias: whether the output layer has a bias.
            num_classes: length of a class vector; 0 for none.
            class_names: the classes' names, where they have any.
            plain_first: whether layer1 is only a dense layer, with a bias for every pixel and
                channel, without batch norm or activation.
            per_class: whether each class has its own first layer, see `DenseFirst`.
        """
        maps = (first_size, first_size, widths[0])
        super().__init__(
            latent_dim, maps, num_classes, class_names, per_class=per_class, bias=plain_first
        )
        self.layers = tuple(f"layer{i + 1}" for i in range(len(widths)))
        self.stages = tuple(tuple(s) for s in stages) or (DOUBLING,) * len(widths)
        self.image_size = functools.reduce(output_size, self.stages, first_size)
        self.image_channels = image_channels
        self.tanh, self.leak = tanh, leak
        self.categories = check_categories(categories, latent_dim)

        outputs = [*widths[1:], image_channels]
        kernels = [
            parameter(stage[0], stage[0], i, o, std=0.02)
            for stage, i, o in zip(self.stages, widths, outputs, strict=True)
        ]
        self.kernels = nnx.List(kernels[:-1])
        self.plain_first = plain_first
        normed = widths[1:] if plain_first else widths
        self.scales = nnx.List(parameter(w, mean=1.0) for w in normed)
        self.shifts = nnx.List(parameter(w) for w in normed)
        self.output = kernels[-1]
        self.output_bias = parameter(image_channels) if output_bias else None

    def stage(self, index: int, state: State) -> State:
        """Apply transposed convolution, affine map and ReLU; or a plain first layer."""
        if index == 0:
            h = self.first_maps(state)
        else:
            h = stage_convolution(state["h"], self.kernels[index - 1][...], self.stages[index - 1])
        if index == 0 and self.plain_first:
            return {"h": h}
        norm = index - 1 if self.plain_first else index
        scale, shift = self.scales[norm][...], self.shifts[norm][...]
        h = h * scale[None, None, None] + shift[None, None, None]
        return {"h": leaky_relu(h, self.leak) if self.leak else jax.nn.relu(h)}

    def end(self, state: State) -> Float[Array, "n s s c"]:
        """Apply the last transposed convolution, then tanh."""
        x = stage_convolution(state["h"], self.output[...], self.stages[-1])
        if self.output_bias is not None:
            x = x + self.output_bias[...][None, None, None]
        return jnp.tanh(x) if self.tanh else x


def output_size(size: int, stage: Sequence[int]) -> int:
    """Return a map's size after a stage (kernel, stride, padding, output padding).

    Example:
        >>> output_size(7, (4, 2, 1, 0))
        14
    """
    kernel, stride, padding, extra = stage
    return (size - 1) * stride - 2 * padding + kernel + extra


def stage_convolution(
    x: Float[Array, "n h w i"], kernel: Float[Array, "k k i o"], stage: Sequence[int]
) -> Float[Array, "n H W o"]:
    """Compute PyTorch's ConvTranspose2d with a square kernel, indexed as in PyTorch (no flip).

    Args:
        x: (n, h, w, i) float32.
        kernel: (k, k, i, o).
        stage: k, stride, padding, output padding.
    """
    if tuple(stage) == DOUBLING:
        return transposed_convolve(x, kernel)
    size, stride, padding, extra = stage
    side = size - 1 - padding
    return jax.lax.conv_general_dilated(
        x,
        kernel[::-1, ::-1],
        (1, 1),
        [(side, side + extra)] * 2,
        lhs_dilation=(stride, stride),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
