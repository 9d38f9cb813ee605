"""An encoder: from images to their latents, and to features that compare images.

As in [Liu et al. 2020, section 4.4.1], a backbone `F: x -> r` with a head `F_z: r -> z`, trained on
the generator's own samples, and a head `F_c: r -> c` for a generator whose label is part of its
latent (`Labelled`). Clusters of a generator need no such head: they are functions of the latent.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

Params = dict[str, Any]
"""The encoder's arrays: a list of convolutions and a dense layer."""

MAX_SIZE = 64
"""Larger images are downsized before encoding: coarse detail is enough to see the latent."""

LAST = 4
"""Maximum height and width of the last activation."""


class Encoder(NamedTuple):
    """The network's shape; hashable, so that it can be a static argument.

    Strided 4x4 convolutions with layer normalisation and leaky ReLU, each halving the image, then
    one dense layer.

    Attributes:
        latent_dim: length of a latent.
        image_size: height and width of the images.
        channels: channels of the images.
        width: channels of the first convolution; they double with each further one, up to eight
            times as many.
        norm: length of every latent if the generator depends only on its direction, else None.
        num_labels: length of the one-hot label at the end of a latent.
    """

    latent_dim: int
    image_size: int
    channels: int
    width: int = 32
    norm: float | None = None
    num_labels: int = 0

    @property
    def widths(self) -> list[int]:
        """Channels of the convolutions.

        >>> Encoder(100, 256, 3).widths
        [32, 64, 128, 256]
        """
        halvings = max(1, math.ceil(math.log2(self._size / LAST)))
        return [self.width * 2 ** min(i, 3) for i in range(halvings)]

    @property
    def _size(self) -> int:
        return min(self.image_size, MAX_SIZE)

    def init(self, key: PRNGKeyArray) -> Params:
        """Return random parameters, by He for the convolutions and by LeCun for the head."""
        layers, channels, size = [], self.channels, self._size
        for i, width in enumerate(self.widths):
            kernel = jax.random.normal(
                jax.random.fold_in(key, i), (4, 4, channels, width), jnp.float32
            )
            layers.append(
                {
                    "kernel": kernel * math.sqrt(2 / (16 * channels)),
                    "bias": jnp.zeros(width, jnp.float32),
                    "scale": jnp.ones(width, jnp.float32),
                }
            )
            channels, size = width, -(-size // 2)
        dim = size * size * channels
        head = jax.random.normal(
            jax.random.fold_in(key, len(layers)), (dim, self.latent_dim), jnp.float32
        )
        return {
            "layers": layers,
            "head": {"kernel": head * dim**-0.5, "bias": jnp.zeros(self.latent_dim, jnp.float32)},
        }

    def features(self, params: Params, images: Float[Array, "n s s c"]) -> Float[Array, "n f"]:
        """Return F(x), the flattened last activation.

        Args:
            params: the encoder's parameters.
            images: (n, image_size, image_size, channels) float32 in [-1, 1].
        """
        x = images
        if self.image_size > MAX_SIZE:
            shape = (x.shape[0], MAX_SIZE, MAX_SIZE, self.channels)
            x = jax.image.resize(x, shape, "linear", antialias=True)
        for layer in params["layers"]:
            x = jax.lax.conv_general_dilated(
                x, layer["kernel"], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = x + layer["bias"][None, None, None]
            mean = jnp.mean(x, axis=(1, 2, 3), keepdims=True)
            variance = jnp.mean(jnp.square(x - mean), axis=(1, 2, 3), keepdims=True)
            x = (x - mean) * jax.lax.rsqrt(variance + 1e-5) * layer["scale"][None, None, None]
            x = jax.nn.leaky_relu(x, 0.2)
        return x.reshape(x.shape[0], -1)

    def latents(self, params: Params, images: Float[Array, "n s s c"]) -> Float[Array, "n d"]:
        """Return the guessed latents, with probabilities as labels; arguments as for `features`."""
        z, logits = self.heads(params, images)
        return jnp.concatenate([z, jax.nn.softmax(logits)], axis=1) if self.num_labels else z

    def heads(
        self, params: Params, images: Float[Array, "n s s c"]
    ) -> tuple[Float[Array, "n e"], Float[Array, "n k"]]:
        """Return F_z(F(x)) and the logits F_c(F(x)); arguments as for `features`."""
        head = params["head"]
        both = self.features(params, images) @ head["kernel"] + head["bias"][None]
        z, logits = jnp.split(both, [self.latent_dim - self.num_labels], axis=1)
        return (z if self.norm is None else to_length(z, self.norm)), logits


def to_length(z: Float[Array, "n d"], norm: float | Array) -> Float[Array, "n d"]:
    """Scale all rows to the same length."""
    length = jnp.sqrt(jnp.sum(jnp.square(z), axis=1, keepdims=True) + 1e-12)
    return z * (norm / length)
