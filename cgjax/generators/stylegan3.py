"""StyleGAN3 [Karras et al. 2021], config-t and config-r: alias-free synthesis.

The synthesis starts from Fourier features of a plane, which the style rotates and shifts; every
layer is a modulated convolution and a nonlinearity between resampling filters, so that the features
move with the plane. There is no noise. Layers are `w`, `input`, and the file's own names, made of
number, size and channels: `L0_36_512`, ...; the last one makes the image. Maps are wider than the
image by a fixed margin, so features are large even for small images.

`rotation` and `translation` are inputs of every call: the plane is rotated and shifted before the
style's own transform. `features` at early layers follow them, and so do images: exactly in
config-r, up to the aliasing of the rotation in config-t.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from cgjax.errors import UserError
from cgjax.generators.architecture import Bound, Count, Size, Sizes, check_keywords
from cgjax.generators.layers import EPS, convolve, pixel_norm
from cgjax.generators.resampling import Resampling, filtered_activation
from cgjax.generators.staged import Inputs, State, buffer, parameter
from cgjax.generators.style import StyleNetwork
from cgjax.generators.stylegan3_filters import (
    InputPlan,
    LayerPlan,
    Schedule,
    down_filter,
    plan_layers,
    up_filter,
)
from cgjax.numerics.arguments import shown

GAIN = 2**0.5


class FourierInput(nnx.Module):
    """Sines over a plane, one per channel, mixed by a matrix."""

    def __init__(self, plan: InputPlan, width: int, style_dim: int):
        self.plan = plan
        self.frequencies = buffer(width, 2, std=plan.cutoff / 2)
        self.phases = buffer(width, std=0.3)
        self.transform = buffer(3, 3, mean=_IDENTITY)
        self.affine = parameter(style_dim, 4, std=0.3 * style_dim**-0.5)
        self.affine_bias = parameter(4, mean=(1.0, 0.0, 0.0, 0.0))
        self.mix = parameter(width, width, std=width**-0.5)

    def __call__(
        self, style: Float[Array, "n w"], placed: Float[Array, "n 3 3"] | None
    ) -> Float[Array, "n s s c"]:
        """Return the map, rotated and shifted by the style."""
        matrix = self.transform_of(style, placed)
        frequencies = jnp.einsum("ci,nij->ncj", self.frequencies[...], matrix[:, :2, :2])
        shift = jnp.einsum("ci,ni->nc", self.frequencies[...], matrix[:, :2, 2])
        phases = self.phases[...][None] + shift
        low, high = self.plan.cutoff, self.plan.rate / 2
        length = jnp.sqrt(jnp.sum(jnp.square(frequencies), axis=-1))
        amplitudes = jnp.clip(1 - (length - low) / (high - low), 0, 1)
        size = self.plan.size
        # Half-pixel centres, in image widths.
        centres = (np.arange(size) + 0.5 - size / 2) / self.plan.rate
        line = jnp.asarray(centres, jnp.float32)[None, :, None]
        across = 2 * math.pi * (line * frequencies[:, None, :, 0] + phases[:, None])
        along = 2 * math.pi * line * frequencies[:, None, :, 1]
        # sin(a + b) from the sines of rows and columns, as a product of matrices: XLA would
        # otherwise recompute the sines of a sum of broadcasts for every pixel.
        rows = jnp.stack([jnp.sin(across), jnp.cos(across)]) * amplitudes[None, :, None]
        columns = jnp.stack([jnp.cos(along), jnp.sin(along)])
        waves = jnp.einsum("knxc,knyc->nyxc", rows, columns)
        return waves @ self.mix[...]

    def transform_of(
        self, style: Float[Array, "n w"], placed: Float[Array, "n 3 3"] | None
    ) -> Float[Array, "n 3 3"]:
        """Return the matrix from image coordinates to plane coordinates."""
        t = style @ self.affine[...] + self.affine_bias[...][None]
        t = t / jnp.sqrt(jnp.sum(jnp.square(t[:, :2]), axis=1, keepdims=True))
        cosine, sine, x, y = (t[:, k] for k in range(4))
        zero, one = jnp.zeros_like(x), jnp.ones_like(x)
        rotation = _matrices([[cosine, -sine, zero], [sine, cosine, zero], [zero, zero, one]])
        shift = _matrices([[one, zero, -x], [zero, one, -y], [zero, zero, one]])
        matrix = rotation @ shift @ self.transform[...][None]
        return matrix if placed is None else matrix @ placed


_IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def _matrices(entries: list[list[Array]]) -> Float[Array, "n 3 3"]:
    return jnp.stack([jnp.stack(row, axis=-1) for row in entries], axis=-2)


class Layer(nnx.Module):
    """A modulated convolution and a filtered nonlinearity; the last layer makes the image."""

    def __init__(
        self, plan: LayerPlan, width_in: int, width_out: int, style_dim: int, clamp: float | None
    ):
        self.plan, self.clamp = plan, clamp
        k = plan.kernel
        self.kernel = parameter(k, k, width_in, width_out, std=(k * k * width_in) ** -0.5)
        self.bias = parameter(width_out)
        self.style_kernel = parameter(style_dim, width_in, std=style_dim**-0.5)
        self.style_bias = parameter(width_in, mean=1.0)
        self.gain = buffer(mean=1.0)
        up, down = up_filter(plan), down_filter(plan)
        self.up_filter = buffer(*up.shape, mean=_constants(up.tolist()))
        self.down_filter = buffer(*down.shape, mean=_constants(down.tolist()))

    def __call__(
        self, h: Float[Array, "n h w i"], style: Float[Array, "n d"]
    ) -> Float[Array, "n H W o"]:
        """Return the layer's output."""
        plan, kernel = self.plan, self.kernel[...]
        scales = self.style_of(style)
        if plan.is_image:
            x = convolve(h * (scales * self.gain[...])[:, None, None], kernel)
        else:
            scales = pixel_norm(scales)
            squares = jnp.square(scales) @ jnp.sum(jnp.square(kernel), axis=(0, 1))
            norms = jax.lax.rsqrt(squares + EPS) * self.gain[...]
            x = _convolve_full(h * scales[:, None, None], kernel) * norms[:, None, None]
        x = x + self.bias[...][None, None, None]
        how = Resampling(
            plan.up,
            plan.down,
            plan.padding,
            leak=1.0 if plan.is_image else 0.2,
            gain=1.0 if plan.is_image else GAIN,
            clamp=self.clamp,
        )
        return filtered_activation(x, self.up_filter[...], self.down_filter[...], how)

    def style_of(self, style: Float[Array, "n d"]) -> Float[Array, "n i"]:
        """Return the scales of the input channels."""
        return style @ self.style_kernel[...] + self.style_bias[...][None]


def _constants(values: Any) -> Any:
    """Return nested lists as tuples, as the metadata of a variable must be hashable."""
    return tuple(map(_constants, values)) if isinstance(values, list) else values


def _convolve_full(
    x: Float[Array, "n h w i"], kernel: Float[Array, "k k i o"]
) -> Float[Array, "n H W o"]:
    """Correlate with zero padding k - 1, which enlarges the map by k - 1."""
    side = (kernel.shape[0] - 1) // 2
    return convolve(jnp.pad(x, ((0, 0), (side, side), (side, side), (0, 0))), kernel)


class StyleGAN3(StyleNetwork):
    """StyleGAN3's generator."""

    family = "stylegan3"
    is_nvidia = True
    mapping_gain = GAIN

    def __init__(
        self,
        latent_dim: Size,
        style_dim: Size,
        mapping_widths: Sizes,
        widths: Sizes,
        schedule: dict[str, Any],
        image_channels: Size = 3,
        output_scale: float = 0.25,
        clamp: Bound | None = 256.0,
        truncation: float | None = None,
        num_classes: Count = 0,
        embedding_dim: Size | None = None,
    ):
        """Build the network.

        Args:
            latent_dim: length of a latent.
            style_dim: length of a style.
            mapping_widths: output widths of the mapping network's layers.
            widths: channels of the Fourier features, and of the output of each layer except the one
                that makes the image.
            schedule: keywords of `Schedule`: sizes, rates, cutoffs, filters.
            image_channels: 3, or 1.
            output_scale: factor applied to the last layer's output.
            clamp: bound on the magnitude between the filters; None for none.
            truncation: psi where the caller gives none; None for no truncation.
            num_classes: length of a label; 0 for none.
            embedding_dim: length of a label's embedding; None for `style_dim`.
        """
        check_keywords(Schedule, schedule, "schedule")
        plan, layers = plan_layers(Schedule(**schedule))
        self.image_size, self.image_channels = layers[-1].out_size, image_channels
        self.output_scale = output_scale
        outputs = (*widths[1:], image_channels)
        names = (
            f"L{i}_{p.out_size}_{o}" for i, (p, o) in enumerate(zip(layers, outputs, strict=True))
        )
        self.layers = ("w", "input", *names)
        self.noise_shapes = ()
        self._make_mapping(
            latent_dim,
            style_dim,
            mapping_widths,
            num_styles=len(layers) + 1,
            default_truncation=truncation,
            has_noise=False,
            num_classes=num_classes,
            embedding_dim=embedding_dim or style_dim,
        )
        self.source = FourierInput(plan, widths[0], style_dim)
        self.synthesis = nnx.List(
            Layer(p, i, o, style_dim, clamp)
            for p, i, o in zip(layers, widths, outputs, strict=True)
        )

    def resolve(
        self, num: int, *, rotation: Any = None, translation: Any = None, noise: Any = None,
        **keywords: Any,
    ) -> Inputs:  # fmt: skip
        """Turn the keywords into arrays.

        Args:
            num: number of rows.
            rotation: anticlockwise rotation of the images in degrees, one or one per row; None for
                0.
            translation: (right, down) in image widths, one pair or one per row; None for 0.
            noise: refused, as there is none.
            **keywords: as for every style-based network.
        """
        self.refuse(noise=noise)
        inputs = super().resolve(num, **keywords)
        return inputs | {"placed": placement_matrices(rotation, translation, num)}

    def synthesize(self, index: int, state: State) -> State:
        """Compute the Fourier features (0), or a layer."""
        style = state["styles"][:, index]
        if index == 0:
            return state | {"h": self.source(style, state["inputs"]["placed"])}
        return state | {"h": self.synthesis[index - 1](state["h"], style)}

    def enter(self, h: Float[Array, "n ..."], index: int, inputs: Inputs) -> State:
        """Rebuild the state after a layer: besides h, it only has the styles."""
        if index == 0:
            return super().enter(h, index, inputs)
        w = inputs["w"] if "w" in inputs else self.map_latent(inputs["latents"], inputs)
        return {"h": h, "inputs": inputs, "styles": self.spread(w, inputs)}

    def end(self, state: State) -> Float[Array, "n s s c"]:
        """Scale the last layer's output."""
        return state["h"] * self.output_scale

    def style_weights(self) -> dict[str, Float[Array, "w m"]]:
        """Return the weights that read the style, by layer, without those of the input."""
        return {
            name: layer.style_kernel[...]
            for name, layer in zip(self.layers[2:], self.synthesis, strict=True)
        }


def placement_matrices(rotation: Any, translation: Any, num: int) -> Float[Array, "n 3 3"] | None:
    """Return the matrices from coordinates in the moved image to coordinates in the image.

    Args:
        rotation: degrees anticlockwise, (num or 1,) or a number; None for 0.
        translation: (right, down) in image widths, (num or 1, 2) or a pair; None for 0.
        num: number of rows.

    Returns:
        (num, 3, 3) float32; None if both are None.

    Example:
        >>> matrices = placement_matrices(None, (0.25, 0.0), 1)
        >>> [float(x) for x in matrices[0, :, 2]]
        [-0.25, 0.0, 1.0]

    Raises:
        UserError: if they are not finite numbers, or not one or one per row.
    """
    if rotation is None and translation is None:
        return None
    try:
        angle = np.deg2rad(np.asarray(0.0 if rotation is None else rotation, np.float64)).reshape(
            -1
        )
        shift = np.asarray((0.0, 0.0) if translation is None else translation, np.float64)
        shift = shift.reshape(-1, 2)
    except (TypeError, ValueError) as error:
        raise UserError(_wrong_placement(rotation, translation, num)) from error
    rows = {len(angle), len(shift)} - {1}
    if not (np.isfinite(angle).all() and np.isfinite(shift).all() and rows <= {num}):
        raise UserError(_wrong_placement(rotation, translation, num))
    angle, shift = np.broadcast_to(angle, (num,)), np.broadcast_to(shift, (num, 2))
    moved = np.tile(np.eye(3), (num, 1, 1))
    # Rows count downwards, so an anticlockwise rotation of the image is (c, s; -s, c).
    moved[:, 0, 0] = moved[:, 1, 1] = np.cos(angle)
    moved[:, 0, 1], moved[:, 1, 0] = np.sin(angle), -np.sin(angle)
    moved[:, :2, 2] = shift
    return jnp.asarray(np.linalg.inv(moved), jnp.float32)


def _wrong_placement(rotation: Any, translation: Any, num: int) -> str:
    return (
        f"rotation={shown(rotation)}, translation={shown(translation)}: expected degrees, such as "
        f"30, and (right, down) in image widths, such as (0.1, 0), or {num} of them, one per row"
    )
