"""DCGAN [Radford et al. 2016]: transposed convolutions with batch norm, in inference mode.

The batch norms' running statistics are folded into a scale and a shift per channel when a
checkpoint is converted, so a layer is a transposed convolution, an affine map and a ReLU.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from cgjax.generators.conditions import with_categories
from cgjax.generators.layers import transposed_convolve
from cgjax.generators.staged import Inputs, StagedNetwork, State, parameter


class DCGAN(StagedNetwork):
    """The generator of the PyTorch examples, and of the GAN zoo.

    Layers are `layer1` (4x4, after its ReLU), `layer2` (8x8), ...; the output layer is not
    among them.
    """

    family = "dcgan"

    def __init__(
        self,
        latent_dim: int,
        widths: Sequence[int],
        image_channels: int = 3,
        tanh: bool = True,
        categories: Sequence[int] = (),
    ):
        """Build the network.

        Args:
            latent_dim: length of a latent.
            widths: channels of layer1, layer2, ...; each layer doubles the resolution.
            image_channels: 3, or 1.
            tanh: whether the image passes through a tanh.
            categories: sizes of the one-hot vectors that the latent ends in (the zoo's AC-GANs).
        """
        self.latent_dim = latent_dim
        self.layers = tuple(f"layer{i + 1}" for i in range(len(widths)))
        self.image_size = 4 * 2 ** len(widths)
        self.image_channels = image_channels
        self.tanh, self.categories = tanh, tuple(categories)

        self.first = parameter(latent_dim, 4, 4, widths[0], std=0.02)
        self.kernels = nnx.List(
            parameter(4, 4, i, o, std=0.02) for i, o in itertools.pairwise(widths)
        )
        self.scales = nnx.List(parameter(w, mean=1.0) for w in widths)
        self.shifts = nnx.List(parameter(w) for w in widths)
        self.output = parameter(4, 4, widths[-1], image_channels, std=0.02)

    def sample_latents(self, key: PRNGKeyArray, n: int, **keywords: Any) -> Float[Array, "n d"]:
        """Draw n latents, N(0, I), and a random value of every category."""
        return with_categories(key, super().sample_latents(key, n, **keywords), self.categories)

    def begin(self, z: Float[Array, "n d"], inputs: Inputs) -> State:
        """Start from the latent as it is: a DCGAN does not normalise it."""
        return {"h": z}

    def stage(self, index: int, state: State) -> State:
        """Transposed convolution, batch norm as an affine map, ReLU."""
        if index == 0:
            h = jnp.einsum("nd,dyxc->nyxc", state["h"], self.first[...])
        else:
            h = transposed_convolve(state["h"], self.kernels[index - 1][...])
        scale, shift = self.scales[index][...], self.shifts[index][...]
        return {"h": jax.nn.relu(h * scale[None, None, None] + shift[None, None, None])}

    def end(self, state: State) -> Float[Array, "n s s c"]:
        """The last transposed convolution, then tanh."""
        x = transposed_convolve(state["h"], self.output[...])
        return jnp.tanh(x) if self.tanh else x

    def latent_weights(self) -> Float[Array, "d m"]:
        """Return the weight that first touches the latent: a row for each coordinate (SeFa)."""
        return self.first[...].reshape(self.latent_dim, -1)
