"""The residual generator of [Mescheder et al. 2018], as Self-Conditioned GAN uses it for ImageNet.

    block(x) = shortcut(x) + 0.1 conv(f(conv(f(x)))),    f a leaky ReLU with slope 0.2

with 3 x 3 convolutions, the smaller of input and output channels as hidden channels, and a 1 x 1
shortcut without bias where input and output channels differ. There are no norms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from cgjax.generators.architecture import Blocks, Count, Range, Size
from cgjax.generators.dense_first import DenseFirst
from cgjax.generators.layers import convolve, leaky_relu, upsample_convolve, upsample_nearest
from cgjax.generators.staged import State, parameter

BRANCH = 0.1
"""Weight of a block's two convolutions relative to its shortcut."""


class Block(nnx.Module):
    """A residual block, optionally after nearest upsampling x2."""

    def __init__(self, inputs: int, outputs: int, *, doubles: bool):
        hidden = min(inputs, outputs)
        self.doubles = doubles
        self.first = parameter(3, 3, inputs, hidden, std=(2 / (9 * inputs)) ** 0.5)
        self.first_bias = parameter(hidden)
        self.second = parameter(3, 3, hidden, outputs, std=(2 / (9 * hidden)) ** 0.5)
        self.second_bias = parameter(outputs)
        self.shortcut = parameter(inputs, outputs, std=inputs**-0.5) if inputs != outputs else None

    def __call__(self, x: Float[Array, "n h w i"]) -> Float[Array, "n H W o"]:
        """Apply the block."""
        widen = upsample_convolve if self.doubles else convolve
        branch = widen(leaky_relu(x), self.first[...]) + self.first_bias[...][None, None, None]
        branch = convolve(leaky_relu(branch), self.second[...])
        branch = branch + self.second_bias[...][None, None, None]
        if self.shortcut is not None:
            x = convolve(x, self.shortcut[...][None, None])
        # A 1x1 convolution and nearest upsampling commute; this order is cheaper.
        return (upsample_nearest(x) if self.doubles else x) + BRANCH * branch


class ResNet(DenseFirst):
    """A dense layer, residual blocks, a convolution.

    Layers are `block1`, `block2`, ...: the maps after each block. A class-conditional network takes
    `condition`: its class vector is appended to the latent, or selects the first layer.
    """

    family = "residual"

    def __init__(
        self,
        latent_dim: Size,
        blocks: Blocks,
        image_channels: Size = 3,
        first_size: Size = 4,
        num_classes: Count = 0,
        class_names: Sequence[str] = (),
        per_class: bool = False,
        output_kernel: Annotated[int, Range(1, 99)] = 3,
        doubles_last: bool = False,
    ):
        """Build the network.

        Args:
            latent_dim: length of a latent, without a class vector.
            blocks: for each block: whether maps are doubled before it, channels in, channels out.
            image_channels: 3, or 1.
            first_size: height and width of the first maps.
            num_classes: length of a class vector; 0 for none.
            class_names: the classes' names, where they have any.
            per_class: whether each class has its own first layer, see `DenseFirst`.
            output_kernel: height and width of the last convolution's kernel.
            doubles_last: whether maps are doubled before that convolution.
        """
        maps = (first_size, first_size, blocks[0][1])
        super().__init__(
            latent_dim,
            maps,
            num_classes,
            class_names,
            per_class=per_class,
            bias=not per_class,
        )
        self.layers = tuple(f"block{i + 1}" for i in range(len(blocks)))
        self.image_channels = image_channels
        self.doubles_last = doubles_last
        doublings = [*(bool(doubles) for doubles, _, _ in blocks), doubles_last]
        self.image_size = first_size << sum(doublings)
        self.blocks = nnx.List(Block(i, o, doubles=bool(doubles)) for doubles, i, o in blocks)
        last = blocks[-1][2]
        kernel = output_kernel, output_kernel, last, image_channels
        self.output = parameter(*kernel, std=(output_kernel**2 * last) ** -0.5)
        self.output_bias = parameter(image_channels)

    def stage(self, index: int, state: State) -> State:
        """Apply a block; the first block follows the dense layer."""
        return {"h": self.blocks[index](state["h"] if index else self.first_maps(state))}

    def end(self, state: State) -> Float[Array, "n s s c"]:
        """Apply leaky ReLU, the last convolution and tanh."""
        x = leaky_relu(state["h"])
        x = convolve(upsample_nearest(x) if self.doubles_last else x, self.output[...])
        return jnp.tanh(x + self.output_bias[...][None, None, None])
