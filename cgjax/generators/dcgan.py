"""DCGAN [Radford et al. 2016]: transposed convolutions with batch norm, in inference mode.

The batch norms' running statistics are folded into a scale and a shift per channel when a
checkpoint is converted, so a layer is a transposed convolution, an affine map and a ReLU.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from cgjax.generators.conditions import class_vectors, with_categories
from cgjax.generators.layers import leaky_relu, transposed_convolve
from cgjax.generators.staged import Inputs, StagedNetwork, State, parameter

DOUBLING = (4, 2, 1, 0)
"""Kernel, stride, padding and output padding of the transposed convolution that doubles a map."""


class DCGAN(StagedNetwork):
    """The generator of the PyTorch examples, of the GAN zoo, and of those that people derive.

    Layers are `layer1` (4x4 where the first kernel is, after its ReLU), `layer2`, ...; the output
    layer is not among them. A class-conditional network takes `condition`: its class vector is
    concatenated to the latent, or picks the first layer.
    """

    family = "dcgan"

    def __init__(
        self,
        latent_dim: int,
        widths: Sequence[int],
        image_channels: int = 3,
        tanh: bool = True,
        categories: Sequence[int] = (),
        first_size: int = 4,
        stages: Sequence[Sequence[int]] = (),
        leak: float = 0.0,
        output_bias: bool = False,
        num_classes: int = 0,
        class_names: Sequence[str] = (),
        plain_first: bool = False,
        per_class: bool = False,
    ):
        """Build the network.

        Args:
            latent_dim: length of a latent, without a class vector.
            widths: channels of layer1, layer2, ....
            image_channels: 3, or 1.
            tanh: whether the image passes through a tanh.
            categories: sizes of the one-hot vectors that the latent ends in (the zoo's AC-GANs).
            first_size: height and width of layer1.
            stages: for each later layer and the output, its kernel's size, stride, padding and
                output padding as PyTorch counts them; empty where each doubles the size with a 4x4
                kernel.
            leak: slope of the activation below 0.
            output_bias: whether the output layer has a bias.
            num_classes: length of a class vector; 0 for none.
            class_names: the classes' names, where they have any.
            plain_first: whether layer1 is dense and no more: it has a bias of its own at every
                place and channel, and neither batch norm nor activation.
            per_class: whether each class has a first layer of its own, with a bias; its rows are
                those of the latent and then the bias, class after class.
        """
        self.latent_dim = latent_dim
        self.layers = tuple(f"layer{i + 1}" for i in range(len(widths)))
        self.stages = tuple(tuple(s) for s in stages) or (DOUBLING,) * len(widths)
        self.image_size = functools.reduce(grown, self.stages, first_size)
        self.image_channels = image_channels
        self.tanh, self.leak, self.categories = tanh, leak, tuple(categories)
        self.num_classes, self.class_names = num_classes, tuple(class_names)

        outputs = [*widths[1:], image_channels]
        kernels = [
            parameter(stage[0], stage[0], i, o, std=0.02)
            for stage, i, o in zip(self.stages, widths, outputs, strict=True)
        ]
        self.per_class = per_class and num_classes > 0
        inputs = num_classes * (latent_dim + 1) if self.per_class else latent_dim + num_classes
        first = inputs, first_size, first_size, widths[0]
        self.first = parameter(*first, std=0.02)
        self.kernels = nnx.List(kernels[:-1])
        self.plain_first = plain_first
        self.first_bias = parameter(*first[1:]) if plain_first else None
        normed = widths[1:] if plain_first else widths
        self.scales = nnx.List(parameter(w, mean=1.0) for w in normed)
        self.shifts = nnx.List(parameter(w) for w in normed)
        self.output = kernels[-1]
        self.output_bias = parameter(image_channels) if output_bias else None

    def resolve(self, num: int, *, condition: Any = None, **others: Any) -> Inputs:
        """Turn a condition into class vectors, where the network has classes."""
        self.refuse(**others)
        if not self.num_classes:
            self.refuse(condition=condition)
            return {}
        names = tuple((name,) for name in self.class_names)
        return {"classes": class_vectors(condition, num, self.num_classes, names)}

    def sample_latents(self, key: PRNGKeyArray, n: int, **keywords: Any) -> Float[Array, "n d"]:
        """Draw n latents, N(0, I), and a random value of every category; no class."""
        self.refuse(**keywords)
        z = jax.random.normal(key, (n, self.latent_dim), jnp.float32)
        return with_categories(key, z, self.categories)

    def begin(self, z: Float[Array, "n d"], inputs: Inputs) -> State:
        """Start from the latent as it is: a DCGAN does not normalise it."""
        if self.per_class:
            # Of a one-hot class vector, (z, 1) in the place of its class and zeros elsewhere.
            classes, ones = inputs["classes"], jnp.ones((len(z), 1), z.dtype)
            outer = classes[:, :, None] * jnp.concatenate([z, ones], axis=1)[:, None, :]
            return {"h": outer.reshape(len(z), -1)}
        return {"h": jnp.concatenate([z, inputs["classes"]], axis=1) if self.num_classes else z}

    def stage(self, index: int, state: State) -> State:
        """Transposed convolution, batch norm as an affine map, ReLU; or a plain first layer."""
        if index == 0:
            h = jnp.einsum("nd,dyxc->nyxc", state["h"], self.first[...])
        else:
            h = spread(state["h"], self.kernels[index - 1][...], self.stages[index - 1])
        if index == 0 and self.first_bias is not None:
            return {"h": h + self.first_bias[...][None]}
        norm = index - 1 if self.plain_first else index
        scale, shift = self.scales[norm][...], self.shifts[norm][...]
        h = h * scale[None, None, None] + shift[None, None, None]
        return {"h": leaky_relu(h, self.leak) if self.leak else jax.nn.relu(h)}

    def end(self, state: State) -> Float[Array, "n s s c"]:
        """The last transposed convolution, then tanh."""
        x = spread(state["h"], self.output[...], self.stages[-1])
        if self.output_bias is not None:
            x = x + self.output_bias[...][None, None, None]
        return jnp.tanh(x) if self.tanh else x

    def latent_weights(self) -> Float[Array, "d m"]:
        """Return the weight that first touches the latent: a row for each coordinate (SeFa).

        Of first layers for each class all of them, side by side.
        """
        first = self.first[...]
        if self.per_class:
            own = first.reshape(self.num_classes, self.latent_dim + 1, -1)
            first = own[:, : self.latent_dim].transpose(1, 0, 2)
        return first[: self.latent_dim].reshape(self.latent_dim, -1)


def grown(size: int, stage: Sequence[int]) -> int:
    """Return the size of a map after a stage (kernel, stride, padding, output padding).

    Example:
        >>> grown(7, (4, 2, 1, 0))
        14
    """
    kernel, stride, padding, extra = stage
    return (size - 1) * stride - 2 * padding + kernel + extra


def spread(
    x: Float[Array, "n h w i"], kernel: Float[Array, "k k i o"], stage: Sequence[int]
) -> Float[Array, "n H W o"]:
    """PyTorch's ConvTranspose2d with a square kernel, indexed as PyTorch indexes it (no flip).

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
