"""StyleGAN2 [Karras et al. 2020], config F: genforce's ports, NVIDIA's own networks, rosinality's.

A convolution's kernel is modulated by the style and normalised ("demodulated"). This is computed
without a kernel per row, by scaling the input by the style and the output by the norm.
All forms are the same arithmetic once the converter has folded their scales in; layers are `w`,
`early_layer` (the constant), `layer0`, `layer1`, ... (genforce), `w`, `b4_conv1`, `b8_conv0`,
`b8_conv1`, ... (nvidia), or `w`, `input` (the constant), `conv1`, `convs_00`, `convs_01`, ...
(rosinality). A layer's activation is the one after its leaky ReLU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from cgjax.generators.architecture import Bound, Count, Filled, Size, Sizes
from cgjax.generators.layers import (
    EPS,
    convolve,
    filter_convolve_upsampled,
    leaky_relu,
    upsample_filtered,
)
from cgjax.generators.resampling import double, double_and_convolve
from cgjax.generators.staged import State, parameter
from cgjax.generators.style import StyleNetwork

GAIN = 2**0.5


class StyleGAN2(StyleNetwork):
    """StyleGAN2's generator."""

    family = "stylegan2"
    mapping_gain = GAIN

    def __init__(
        self,
        form: Literal["genforce", "nvidia", "rosinality"],
        latent_dim: Size,
        style_dim: Size,
        mapping_widths: Sizes,
        depths: Sizes,
        image_channels: Size = 3,
        tanh: bool = False,
        skip: bool = True,
        demodulate: bool = True,
        clamp: Bound | None = None,
        truncation: float | None = None,
        num_classes: Count = 0,
        embedding_dim: Size | None = None,
        stored_noise: bool = True,
        filter_taps: Annotated[Sequence[float], Filled()] | None = None,
    ):
        """Build the network.

        Args:
            form: how layers are named, labels embedded, and which psi truncates.
            latent_dim: length of a latent.
            style_dim: length of a style.
            mapping_widths: output widths of the mapping network's layers.
            depths: channels at 4x4, 8x8, ....
            image_channels: 3, or 1.
            tanh: whether the image is passed through a tanh.
            skip: whether every resolution adds to the image, or only the last one makes it.
            demodulate: whether modulated kernels are normalised.
            clamp: bound on the activations' magnitude; None for none.
            truncation: psi where the caller gives none; None for no truncation.
            num_classes: length of a label; 0 for none.
            embedding_dim: length of a label's embedding; None for `latent_dim`.
            stored_noise: whether the file has stored noise.
            filter_taps: taps of the up-sampling filter, which sum to 1; None for (1, 3, 3, 1) / 8.
        """
        self.filter_taps = None if filter_taps is None else tuple(filter_taps)
        self.form, self.tanh, self.skip = form, tanh, skip
        self.is_nvidia = form == "nvidia"
        self.has_input_layer = not self.is_nvidia
        self.demodulate, self.clamp = demodulate, clamp
        self.image_channels = image_channels
        self.image_size = 4 * 2 ** (len(depths) - 1)
        # (resolution, is its first convolution) for each convolution.
        self.plan = ((0, False), *((r, c == 0) for r in range(1, len(depths)) for c in (0, 1)))
        self.noise_shapes = tuple((4 * 2**r, 4 * 2**r, 1) for r, _ in self.plan)
        self.layers = ("w", *self._layer_names())
        self._make_mapping(
            latent_dim,
            style_dim,
            mapping_widths,
            num_styles=len(self.plan) + 1,
            default_truncation=truncation,
            has_noise=stored_noise,
            num_classes=num_classes,
            embedding_dim=embedding_dim,
        )
        self._make_synthesis(style_dim, depths)

    def _make_synthesis(self, style_dim: int, depths: Sequence[int]) -> None:
        """Declare the synthesis network and its image layers."""
        self.const = parameter(4, 4, depths[0], std=1.0)
        widths = tuple((depths[r - up], depths[r]) for r, up in self.plan)
        self.kernels = nnx.List(parameter(3, 3, i, o, std=(9 * i) ** -0.5) for i, o in widths)
        self.biases = nnx.List(parameter(o) for _, o in widths)
        self.noise_strengths = nnx.List(parameter(std=0.1) for _ in widths)
        self.style_kernels = nnx.List(
            parameter(style_dim, i, std=style_dim**-0.5) for i, _ in widths
        )
        self.style_biases = nnx.List(parameter(i, mean=1.0) for i, _ in widths)
        rgb = depths if self.skip else depths[-1:]
        self.to_rgb = nnx.List(parameter(d, self.image_channels, std=d**-0.5) for d in rgb)
        self.to_rgb_biases = nnx.List(parameter(self.image_channels) for _ in rgb)
        self.rgb_style_kernels = nnx.List(parameter(style_dim, d, std=style_dim**-0.5) for d in rgb)
        self.rgb_style_biases = nnx.List(parameter(d, mean=1.0) for d in rgb)

    def _layer_names(self) -> list[str]:
        if self.form == "genforce":
            return ["early_layer", *(f"layer{i}" for i in range(len(self.plan)))]
        if self.form == "rosinality":
            return ["input", "conv1", *(f"convs_{i:02d}" for i in range(len(self.plan) - 1))]
        return [f"b{4 * 2**r}_conv{0 if up else 1}" for r, up in self.plan]

    def synthesize(self, index: int, state: State) -> State:
        """Return the constant, or apply one modulated convolution with noise, bias and ReLU."""
        n = state["styles"].shape[0]
        index -= self.has_input_layer
        if index <= 0:
            const = self.const[...]
            state = state | {"h": jnp.broadcast_to(const[None], (n, *const.shape))}
            if index < 0:
                return state
        r, upsampling = self.plan[index]
        if upsampling and self.skip:
            state = state | {"image": self.double_image(self.add_image(state, r - 1))}
        style = self.style_of(index, state["styles"])
        h = state["h"] * style[:, None, None]
        kernel = self.kernels[index][...]
        if not upsampling:
            h = convolve(h, kernel)
        elif self.filter_taps is None:
            h = filter_convolve_upsampled(h, kernel)
        else:
            h = double_and_convolve(h, kernel, self.filter_taps)
        if self.demodulate:
            squares = jnp.square(style) @ jnp.sum(jnp.square(kernel), axis=(0, 1))
            h = h * jax.lax.rsqrt(squares + EPS)[:, None, None]
        noise = self.noise_at(index, n, state["inputs"])
        if noise is not None:
            h = h + noise * self.noise_strengths[index][...]
        h = leaky_relu(h + self.biases[index][...][None, None, None]) * GAIN
        return state | {"h": self._clamped(h)}

    def _clamped(self, x: Array) -> Array:
        return x if self.clamp is None else jnp.clip(x, -self.clamp, self.clamp)

    def style_of(self, index: int, styles: Float[Array, "n l w"]) -> Float[Array, "n i"]:
        """Return the scales of a convolution's input channels."""
        bias = self.style_biases[index][...][None]
        return styles[:, index] @ self.style_kernels[index][...] + bias

    def rgb_style_of(self, r: int, styles: Float[Array, "n l w"]) -> Float[Array, "n i"]:
        """Return the scales of an image layer's input channels."""
        k = r if self.skip else 0
        bias = self.rgb_style_biases[k][...][None]
        return styles[:, 2 * r + 1] @ self.rgb_style_kernels[k][...] + bias

    def to_image(
        self, h: Float[Array, "n s s i"], r: int, styles: Float[Array, "n l w"]
    ) -> Float[Array, "n s s c"]:
        """Apply the image layer of a resolution."""
        k = r if self.skip else 0
        modulated = h * self.rgb_style_of(r, styles)[:, None, None]
        x = convolve(modulated, self.to_rgb[k][...][None, None])
        return self._clamped(x + self.to_rgb_biases[k][...][None, None, None])

    def double_image(self, image: Float[Array, "n s s c"]) -> Float[Array, "n S S c"]:
        """Return the running image at the next resolution."""
        if self.filter_taps is None:
            return upsample_filtered(image)
        return double(image, self.filter_taps)

    def add_image(self, state: State, r: int) -> Float[Array, "n s s c"]:
        """Return the running image plus the contribution of resolution r, whose activation is h."""
        x = self.to_image(state["h"], r, state["styles"])
        return x + state["image"] if "image" in state else x

    def end(self, state: State) -> Float[Array, "n s s c"]:
        """Make the image."""
        x = self.add_image(state, self.plan[-1][0])
        return jnp.tanh(x) if self.tanh else x

    def style_weights(self) -> dict[str, Float[Array, "w m"]]:
        """Return the weights that read the style, by layer, for all convolutions."""
        layers = self.layers[1 + self.has_input_layer :]
        return {name: kernel[...] for name, kernel in zip(layers, self.style_kernels, strict=True)}
