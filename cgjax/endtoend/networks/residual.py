"""Residual networks for ImageNet and Places [Liu et al. 2020], after [Mescheder et al. 2018].

    block(x) = shortcut(x) + 0.1 conv(f(conv(f(x)))),    f leaky ReLU of 0.2

with 3 x 3 convolutions, min(inputs, outputs) hidden channels, and a 1 x 1 shortcut without bias if
the two differ. There are no norms. The generator has two blocks at every size, with nearest
neighbour upsampling between sizes; the discriminator mirrors it, with 3 x 3 average pooling of
stride 2. Its last maps are the features.
"""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from cgjax.endtoend.networks.convolutions import Convolution
from cgjax.endtoend.networks.dcgan import FIRST, check_square
from cgjax.endtoend.networks.layers import Linear, first_layer, leaky, of_first

WIDEST = 16
"""Channels of the smallest maps, as a multiple of those of the largest."""

BRANCH = 0.1


class Block(nnx.Module):
    """One residual block; keeps the maps' size."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        hidden = min(inputs, outputs)
        self.first = Convolution(inputs, hidden, rngs=rngs)
        self.second = Convolution(hidden, outputs, rngs=rngs)
        self.shortcut = (
            Convolution(inputs, outputs, side=1, bias=False, rngs=rngs)
            if inputs != outputs
            else None
        )

    def __call__(self, x: Float[Array, "n h w i"]) -> Float[Array, "n h w o"]:
        """Apply the block."""
        branch = self.second(leaky(self.first(leaky(x))))
        return (x if self.shortcut is None else self.shortcut(x)) + BRANCH * branch


class ResidualGenerator(nnx.Module):
    """Maps (n, d) latents and (n,) labels to (n, h, w, c) images in [-1, 1].

    For `per_label` see `first_layer`.
    """

    def __init__(self, sizes: Residual, num_labels: int, *, per_label: bool, rngs: nnx.Rngs):
        self.embedding, self.first = first_layer(
            *(num_labels, sizes.latent_dim, sizes.embedding_dim, FIRST * FIRST * sizes.widths[0]),
            per_label=per_label,
            rngs=rngs,
        )
        self.doubles = tuple(doubles for doubles, _, _ in sizes.blocks)
        self.blocks = nnx.List(Block(i, o, rngs=rngs) for _, i, o in sizes.blocks)
        self.last = Convolution(sizes.widths[-1], sizes.rows[2], rngs=rngs)

    def __call__(
        self, z: Float[Array, "n d"], labels: Int[Array, " n"], *, train: bool
    ) -> Float[Array, "n h w c"]:
        """Generate images."""
        x = of_first(self.first, self.embedding, z, labels, train=train)
        x = x.reshape(len(x), FIRST, FIRST, -1)
        for doubles, block in zip(self.doubles, self.blocks, strict=True):
            if doubles:
                x = x.repeat(2, axis=1).repeat(2, axis=2)
            x = block(x)
        return jnp.tanh(self.last(leaky(x)))


class ResidualDiscriminator(nnx.Module):
    """Maps (n, h, w, c) images to (n, outputs) logits."""

    def __init__(self, sizes: Residual, channels: int, outputs: int, *, rngs: nnx.Rngs):
        widths = sizes.widths[::-1]
        self.first = Convolution(channels, widths[0], rngs=rngs)
        sides = itertools.pairwise((*widths, widths[-1]))
        self.blocks = nnx.List(
            Block(i, o, rngs=rngs) for a, b in sides for i, o in ((a, a), (a, b))
        )
        self.head = Linear(FIRST * FIRST * widths[-1], outputs, rngs=rngs)

    def features(self, x: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n f"]:
        """Return the last maps as rows."""
        x = self.first(x)
        for i, block in enumerate(self.blocks):
            if i and i % 2 == 0:
                x = averaged(x)
            x = block(x)
        return leaky(x).reshape(len(x), -1)

    def __call__(self, x: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n outputs"]:
        """Return all logits."""
        return self.head(self.features(x, train=train))


def averaged(x: Float[Array, "n h w c"]) -> Float[Array, "n p q c"]:
    """Halve maps by means over 3 x 3 pixels; the zero padding counts.

    >>> (9 * averaged(jnp.ones((1, 4, 4, 1)))).round()[0, :, :, 0].tolist()
    [[4.0, 6.0], [6.0, 9.0]]
    """
    window, strides, padding = (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0))
    # A Python number, not an array: JAX cannot differentiate a sum that starts at a traced zero.
    return jax.lax.reduce_window(x, 0.0, jax.lax.add, window, strides, padding) / 9


@dataclasses.dataclass(frozen=True)
class Residual:
    """The two networks and their sizes.

    Attributes:
        rows: (height, width, channels) of an image.
        latent_dim: length of z.
        embedding_dim: length of a label's vector.
        width: channels of the largest maps.
        is_rowwise: see `Architecture`; there are no norms.
    """

    rows: tuple[int, ...] = (128, 128, 3)
    latent_dim: int = 256
    embedding_dim: int = 256
    width: int = 64
    is_rowwise: bool = True

    def __post_init__(self) -> None:
        """Check the shape of the images.

        Raises:
            UserError: images that are not square, or whose side is not 8, 16, 32, ...
        """
        check_square(self.rows)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels at every size, the smallest maps first."""
        num = (self.rows[0] // FIRST).bit_length()
        return tuple(self.width * min(WIDEST, 1 << (num - 1 - i)) for i in range(num))

    @property
    def blocks(self) -> tuple[tuple[bool, int, int], ...]:
        """Each of the generator's blocks: whether maps are doubled before it, inputs, outputs."""
        # The first two sizes have the same number of channels.
        sides = itertools.pairwise((self.widths[0], *self.widths))
        return tuple(
            block
            for size, (a, b) in enumerate(sides)
            for block in ((size > 0, a, b), (False, b, b))
        )

    def generator(self, num_labels: int, rngs: nnx.Rngs) -> ResidualGenerator:
        """Return a generator, unconditional if there is only one label."""
        return ResidualGenerator(self, num_labels, per_label=False, rngs=rngs)

    def generators(self, num_labels: int, rngs: nnx.Rngs) -> ResidualGenerator:
        """Return one generator per label, sharing all but their first layer."""
        return ResidualGenerator(self, num_labels, per_label=True, rngs=rngs)

    def discriminator(self, num_outputs: int, pack: int, rngs: nnx.Rngs) -> ResidualDiscriminator:
        """Return a discriminator that judges `pack` images together."""
        return ResidualDiscriminator(self, pack * self.rows[2], num_outputs, rngs=rngs)
