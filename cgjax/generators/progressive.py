"""The images of a progressively grown network: an image layer for each resolution."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from cgjax.errors import UserError
from cgjax.generators.layers import convolve, upsample_nearest
from cgjax.generators.staged import StagedNetwork, State


class ProgressiveNetwork(StagedNetwork):
    """Turns the last activation into an image; a family declares the image layers.

    In a checkpoint saved while a resolution was being faded in, the upsampled image of the
    resolution before it is blended in.

    Attributes:
        to_rgb: (channels, image channels) of each image layer, a 1x1 convolution.
        to_rgb_biases: their biases.
        blend: weight of the second-to-last image, after nearest upsampling; 0 where there is none.
        extra_doublings: number of times that the image is doubled by nearest upsampling.
        tanh: whether it is then passed through a tanh.
    """

    to_rgb: nnx.List[nnx.Param[Array]]
    to_rgb_biases: nnx.List[nnx.Param[Array]]
    blend: float
    extra_doublings: int
    tanh: bool

    def check_blend(self) -> None:
        """Check that there is a second-to-last image to blend in.

        Raises:
            UserError: if there is none.
        """
        if self.blend and len(self.to_rgb) < 2:
            raise UserError(
                f"blend={self.blend:g} needs a second-to-last image layer, but there is none"
            )

    def to_image(self, h: Float[Array, "n s s i"], k: int) -> Float[Array, "n s s c"]:
        """Apply image layer number k."""
        bias = self.to_rgb_biases[k][...][None, None, None]
        return convolve(h, self.to_rgb[k][...][None, None]) + bias

    def with_image_before(self, state: State) -> State:
        """Add the second-to-last image, of the activation before the last resolution."""
        return state | {"previous": self.to_image(state["h"], len(self.to_rgb) - 2)}

    def end(self, state: State) -> Float[Array, "n s s c"]:
        """Make the image: the last image layer, then blend, upsample and bound its output."""
        image, before = self.to_image(state["h"], len(self.to_rgb) - 1), state.get("previous")
        if before is not None and self.blend:
            image = self.blend * upsample_nearest(before) + (1 - self.blend) * image
        if self.extra_doublings:
            image = upsample_nearest(image, 2**self.extra_doublings)
        return jnp.tanh(image) if self.tanh else image
