"""StyleGAN [Karras et al. 2019], in the two forms in which its weights are published.

The equalised learning-rate factors, and the 1 that the genforce form adds to its style scales, are
folded into the stored weights when a checkpoint is converted. The remaining differences:

* `zoo` (pytorch_GAN_zoo, trained from scratch by its authors): no blur after upsampling, no bias on
  the constant, one noise weight per layer, no stored noise, no image layer at 4x4; layers `w`,
  `s0_a0`, `s0_a1`, `s1_a0`, ....
* `genforce` (ports of NVIDIA's weights, also SeFa's): blur, one noise weight per channel, stored
  noise; layers `w`, `layer0`, `layer1`, ....

A layer's activation is the one after its style (AdaIN).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from cgjax.generators.architecture import Count, Doublings, Share, Size, Sizes
from cgjax.generators.conditions import check_categories
from cgjax.generators.layers import (
    blur,
    convolve,
    instance_norm,
    leaky_relu,
    upsample_convolve,
)
from cgjax.generators.progressive import ProgressiveNetwork
from cgjax.generators.staged import State, parameter
from cgjax.generators.style import StyleNetwork

BLUR_TAPS = (0.25, 0.5, 0.25)


class StyleGAN(ProgressiveNetwork, StyleNetwork):
    """StyleGAN's generator."""

    family = "stylegan"

    def __init__(
        self,
        form: Literal["zoo", "genforce"],
        latent_dim: Size,
        style_dim: Size,
        mapping_widths: Sizes,
        depths: Sizes,
        image_channels: Size = 3,
        leak: Share = 0.2,
        tanh: bool = False,
        blend: Share = 0.0,
        extra_doublings: Doublings = 0,
        truncation: float | None = None,
        num_classes: Count = 0,
        const_input: bool = True,
        channel_noise: bool = False,
        categories: Sequence[Size] = (),
    ):
        """Build the network.

        Args:
            form: see the module.
            latent_dim: length of a latent.
            style_dim: length of a style.
            mapping_widths: output widths of the mapping network's layers.
            depths: channels at 4x4, 8x8, ....
            image_channels: 3, or 1.
            leak: slope of the synthesis network's leaky ReLU.
            tanh: whether the image is passed through a tanh.
            blend: weight of the upsampled image of the second-to-last resolution.
            extra_doublings: number of times that the finished image is doubled by nearest
                upsampling.
            truncation: psi where the caller gives none; None for no truncation.
            num_classes: length of a label; 0 for none.
            const_input: whether the synthesis starts from a learned constant or from the style.
            channel_noise: whether noise is one number per channel, weighted by pixel, instead of
                one per pixel, weighted by channel.
            categories: sizes of the one-hot vectors at the end of the latent (the zoo's AC-GANs).
        """
        self.categories = check_categories(categories, latent_dim)
        self.form, self.leak, self.tanh = form, leak, tanh
        self.blend, self.extra_doublings = blend, extra_doublings
        self.image_channels, self.channel_noise = image_channels, channel_noise
        self.image_size = 4 * 2 ** (len(depths) - 1 + extra_doublings)
        # (resolution, is its first convolution) for each layer.
        self.plan = tuple((r, c == 0 and r > 0) for r in range(len(depths)) for c in (0, 1))
        self.noise_shapes = tuple(
            (1, 1, depths[r]) if channel_noise else (4 * 2**r, 4 * 2**r, 1) for r, _ in self.plan
        )
        self.layers = ("w", *self._layer_names())
        self._make_mapping(
            latent_dim,
            style_dim,
            mapping_widths,
            num_styles=len(self.plan),
            default_truncation=truncation,
            has_noise=form == "genforce",
            num_classes=num_classes,
        )
        self._make_synthesis(style_dim, depths, const_input=const_input)
        rgb = depths[1:] if form == "zoo" else depths
        self.to_rgb = nnx.List(parameter(d, image_channels, std=d**-0.5) for d in rgb)
        self.to_rgb_biases = nnx.List(parameter(image_channels) for _ in rgb)
        self.check_blend()

    def _make_synthesis(self, style_dim: int, depths: Sequence[int], *, const_input: bool) -> None:
        """Declare the synthesis network without its image layers."""
        d0 = depths[0]
        self.first = (
            parameter(4, 4, d0, mean=1.0)
            if const_input
            else parameter(style_dim, 4, 4, d0, std=(2 / style_dim) ** 0.5)
        )
        self.kernels = nnx.List(
            parameter(3, 3, depths[r - up], depths[r], std=(2 / (9 * depths[r - up])) ** 0.5)
            for r, up in self.plan[1:]
        )
        # The zoo's constant has no bias.
        self.biases = nnx.List(
            parameter(depths[r]) for r, _ in self.plan[1 if self.form == "zoo" else 0 :]
        )
        self.noise_weights = nnx.List(
            parameter(*self._noise_weight_shape(r, depths), std=0.1) for r, _ in self.plan
        )
        self.style_kernels = nnx.List(
            parameter(style_dim, 2 * depths[r], std=style_dim**-0.5) for r, _ in self.plan
        )
        self.style_biases = nnx.List(parameter(2 * depths[r], mean=1.0) for r, _ in self.plan)

    def _layer_names(self) -> list[str]:
        if self.form == "zoo":
            return [f"s{i // 2}_a{i % 2}" for i in range(len(self.plan))]
        return [f"layer{i}" for i in range(len(self.plan))]

    def _noise_weight_shape(self, resolution: int, depths: Sequence[int]) -> tuple[int, ...]:
        if self.channel_noise:
            return (4 * 2**resolution, 4 * 2**resolution)
        return (1,) if self.form == "zoo" else (depths[resolution],)

    def synthesize(self, index: int, state: State) -> State:
        """Apply one layer: convolution, noise, bias, leaky ReLU, instance norm, style."""
        style = state["styles"][:, index]
        _, upsampling = self.plan[index]
        if self.blend and index == len(self.plan) - 2:
            state = self.with_image_before(state)
        if index > 0:
            kernel = self.kernels[index - 1][...]
            h = (
                upsample_convolve(state["h"], kernel)
                if upsampling
                else convolve(state["h"], kernel)
            )
        elif self.first.ndim == 4:
            h = jnp.einsum("nd,dyxc->nyxc", style, self.first[...])
        else:
            first = self.first[...]
            h = jnp.broadcast_to(first[None], (style.shape[0], *first.shape))
        if upsampling and self.form == "genforce":
            h = blur(h, BLUR_TAPS)
        noise = self.noise_at(index, h.shape[0], state["inputs"])
        if noise is not None:
            weight = self.noise_weights[index][...]
            weight = weight[None, :, :, None] if weight.ndim == 2 else weight[None, None, None]
            h = h + noise * weight
        if self.form == "genforce" or index > 0:
            bias = self.biases[index if self.form == "genforce" else index - 1]
            h = h + bias[...][None, None, None]
        h = instance_norm(leaky_relu(h, self.leak))
        scale, shift = self.style_of(index, style)
        return state | {"h": h * scale[:, None, None] + shift[:, None, None]}

    def style_of(
        self, index: int, style: Float[Array, "n w"]
    ) -> tuple[Float[Array, "n c"], Float[Array, "n c"]]:
        """Return the scale and the shift of a layer's style."""
        y = style @ self.style_kernels[index][...] + self.style_biases[index][...][None]
        half = y.shape[1] // 2
        return y[:, :half], y[:, half:]

    def style_weights(self) -> dict[str, Float[Array, "w m"]]:
        """Return the weights that read the style, by layer."""
        return {
            name: kernel[...]
            for name, kernel in zip(self.layers[1:], self.style_kernels, strict=True)
        }
