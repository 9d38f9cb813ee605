"""The networks for CIFAR-10 of [Liu et al. 2020]: DCGAN's generator, a discriminator without norms.

The discriminator has the shape of that of [Miyato et al. 2018], but no spectral norm: alternating
3 x 3 convolutions of stride 1 and 4 x 4 convolutions of stride 2, leaky ReLU of 0.1, a dense layer.
Its last maps are the features.
"""

from __future__ import annotations

import dataclasses

import jax
from flax import nnx
from jaxtyping import Array, Float

from cgjax.endtoend.networks.convolutions import Convolution, Halving
from cgjax.endtoend.networks.dcgan import Dcgan
from cgjax.endtoend.networks.layers import Linear

LEAK = 0.1


class SnganDiscriminator(nnx.Module):
    """Maps (n, h, w, c) images to (n, outputs) logits."""

    def __init__(self, sizes: Sngan, channels: int, outputs: int, *, rngs: nnx.Rngs):
        first, *wider = sizes.widths
        layers: list[nnx.Module] = [Convolution(channels, first, rngs=rngs)]
        width = first
        for wide in wider:
            layers.append(Halving(width, width, bias=True, rngs=rngs))
            layers.append(Convolution(width, wide, rngs=rngs))
            width = wide
        self.layers = nnx.List(layers)
        side = sizes.rows[0] >> len(wider)
        self.head = Linear(side * side * width, outputs, rngs=rngs)

    def features(self, x: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n f"]:
        """Return the last maps as rows."""
        for layer in self.layers:
            x = jax.nn.leaky_relu(layer(x), LEAK)
        return x.reshape(len(x), -1)

    def __call__(self, x: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n outputs"]:
        """Return all logits."""
        return self.head(self.features(x, train=train))


@dataclasses.dataclass(frozen=True)
class Sngan(Dcgan):
    """The two networks and their sizes; the generator is that of `Dcgan`'s flat form."""

    flat: bool = True
    is_rowwise: bool = True

    def discriminator(self, num_outputs: int, pack: int, rngs: nnx.Rngs) -> SnganDiscriminator:
        """Return a discriminator that judges `pack` images together."""
        return SnganDiscriminator(self, pack * self.rows[2], num_outputs, rngs=rngs)
