"""DCGAN: the networks for images, with labels [Radford et al. 2016; Liu et al. 2020].

There are two forms. For faces ("dcgan"), after Radford: G is a dense layer to 4 x 4 maps, then
transposed convolutions that double them, with batch norm and ReLU after all but the last, then
tanh; D mirrors it, with leaky ReLU, and batch norm after all but its first convolution. For stacked
digits and CIFAR ("dcgan_flat"), after the code of [Liu et al. 2020]: G's dense layer has neither
batch norm nor ReLU, and its last layer is a 3 x 3 convolution; in D every convolution has a batch
norm.

G gets a label as a unit vector joined to the latent; D has one logit per label. The features for
clustering are D's last maps.
"""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from cgjax.endtoend.networks.base import Discriminator, Generator
from cgjax.endtoend.networks.convolutions import Doubling, Halving
from cgjax.endtoend.networks.layers import (
    BatchNorm,
    Linear,
    LinearPerLabel,
    label_embedding,
    leaky,
    normal,
    with_label,
)
from cgjax.errors import UserError

FIRST = 4
"""Height and width of G's first maps."""


def over_channels(
    norm: BatchNorm, x: Float[Array, "n h w c"], *, train: bool
) -> Float[Array, "n h w c"]:
    """Normalise maps by channel."""
    return norm(x.reshape(-1, x.shape[3]), train=train).reshape(x.shape)


def check_square(rows: tuple[int, ...]) -> None:
    """Refuse rows that repeated doubling of 4 x 4 maps cannot produce.

    Raises:
        UserError: images that are not square, or whose side is not 8, 16, 32, ....
    """
    height, width = rows[:2] if len(rows) == 3 else (0, 0)
    if height != width or height < 2 * FIRST or height & (height - 1):
        raise UserError(
            "--config.network.name: these networks make square images whose side is 8, 16, 32, "
            f"64, ..., but the data's rows are {' x '.join(map(str, rows))} (a folder's images are "
            "resized to --config.data.size)"
        )


class _Same(nnx.Module):
    """A 3x3 convolution to few channels, its kernel N(0, 0.02), with a bias."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        self.kernel = normal(rngs, 3, 3, inputs, outputs)
        self.bias = nnx.Param(jnp.zeros(outputs, jnp.float32))

    def __call__(self, x: Float[Array, "n h w i"]) -> Float[Array, "n h w o"]:
        """Apply the layer: one product, whose nine small results are then shifted into place."""
        n, h, w, i = x.shape
        kernel = self.kernel[...]
        o = kernel.shape[3]
        product = x.reshape(-1, i) @ kernel.transpose(2, 0, 1, 3).reshape(i, -1)
        padded = jnp.pad(product.reshape(n, h, w, 9, o), ((0, 0), (1, 1), (1, 1), (0, 0), (0, 0)))
        taps = [padded[:, a : a + h, b : b + w, 3 * a + b] for a in range(3) for b in range(3)]
        return sum(taps, start=jnp.zeros((), jnp.float32)) + self.bias[...][None, None, None]


class _AfterFirst(nnx.Module):
    """A generator after its first dense layer.

    Args:
        sizes: the networks'.
        first_norm: whether the first maps are batch-normalised.
        rngs: of the initial values.
    """

    def __init__(self, sizes: Dcgan, *, first_norm: bool, rngs: nnx.Rngs):
        widths = sizes.widths[::-1]
        self.flat, self.first_norm = sizes.flat, first_norm
        normed = widths if first_norm else widths[1:]
        self.norms = nnx.List(BatchNorm(width) for width in normed)
        self.ups = nnx.List(
            Doubling(i, o, bias=False, rngs=rngs) for i, o in itertools.pairwise(widths)
        )
        channels = sizes.rows[2]
        self.last = (
            _Same(widths[-1], channels, rngs=rngs)
            if sizes.flat
            else Doubling(widths[-1], channels, bias=False, rngs=rngs)
        )

    def finish(self, first: Float[Array, "n m"], *, train: bool) -> Float[Array, "n h w c"]:
        """Generate images from the first layer's output."""
        x = first.reshape(len(first), FIRST, FIRST, -1)
        norms = iter(self.norms)
        if self.first_norm:
            x = over_channels(next(norms), x, train=train)
        if not self.flat:
            x = jax.nn.relu(x)
        for up, norm in zip(self.ups, norms, strict=True):
            x = jax.nn.relu(over_channels(norm, up(x), train=train))
        return jnp.tanh(self.last(x))


class DcganGenerator(_AfterFirst):
    """Maps (n, i) latents, with labels joined to them, to (n, h, w, c) images in [-1, 1]."""

    def __init__(self, sizes: Dcgan, inputs: int, *, rngs: nnx.Rngs):
        outputs = FIRST * FIRST * sizes.widths[-1]
        self.first = Linear(inputs, outputs, bias=sizes.flat, rngs=rngs)
        super().__init__(sizes, first_norm=not sizes.flat, rngs=rngs)

    def __call__(self, z: Float[Array, "n i"], *, train: bool) -> Float[Array, "n h w c"]:
        """Generate images."""
        return self.finish(self.first(z), train=train)


class DcganGenerators(_AfterFirst):
    """One generator per label, sharing all but their first layer [Hoang et al. 2018]."""

    def __init__(self, sizes: Dcgan, num_labels: int, *, rngs: nnx.Rngs):
        widest = sizes.widths[-1]
        layer = (num_labels, sizes.latent_dim, FIRST * FIRST * widest, 0 if sizes.flat else widest)
        self.first = LinearPerLabel(*layer, rngs=rngs)
        super().__init__(sizes, first_norm=False, rngs=rngs)

    def __call__(
        self, z: Float[Array, "n d"], labels: Int[Array, " n"], *, train: bool
    ) -> Float[Array, "n h w c"]:
        """Generate images; in train mode labels must come in equal groups, in order."""
        return self.finish(self.first(z, labels, train=train), train=train)


class LabelledGenerator(nnx.Module):
    """A generator with a vector for every label; with none if there is only one label."""

    def __init__(self, sizes: Dcgan, num_labels: int, *, rngs: nnx.Rngs):
        self.embedding, inputs = label_embedding(
            num_labels, sizes.latent_dim, sizes.embedding_dim, rngs=rngs
        )
        self.rest = DcganGenerator(sizes, inputs, rngs=rngs)

    def __call__(
        self, z: Float[Array, "n d"], labels: Int[Array, " n"], *, train: bool
    ) -> Float[Array, "n h w c"]:
        """Generate images."""
        return self.rest(with_label(z, labels, self.embedding), train=train)


class DcganBody(nnx.Module):
    """Maps (n, h, w, c) images to (n, outputs) numbers; its last maps are the features.

    Args:
        sizes: the networks'.
        channels: of an image, or of a pack of images.
        outputs: of the last, dense layer.
        norms: whether there are batch norms; a gradient penalty per row allows none.
        rngs: of the initial values.
    """

    def __init__(self, sizes: Dcgan, channels: int, outputs: int, *, norms: bool, rngs: nnx.Rngs):
        widths = (channels, *sizes.widths)
        self.downs = nnx.List(
            Halving(i, o, bias=not norms, rngs=rngs) for i, o in itertools.pairwise(widths)
        )
        begin = 0 if sizes.flat else 1
        self.norms = nnx.List(BatchNorm(o) if norms else None for o in sizes.widths[begin:])
        height, width = (side >> len(sizes.widths) for side in sizes.rows[:2])
        self.head = Linear(height * width * sizes.widths[-1], outputs, rngs=rngs)

    def features(self, x: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n f"]:
        """Return the last maps as rows."""
        norms = [None] * (len(self.downs) - len(self.norms)) + list(self.norms)
        for down, norm in zip(self.downs, norms, strict=True):
            x = down(x)
            x = leaky(x if norm is None else over_channels(norm, x, train=train))
        return x.reshape(len(x), -1)

    def __call__(
        self, x: Float[Array, "n h w c"], *, train: bool = True
    ) -> Float[Array, "n outputs"]:
        """Return all outputs."""
        return self.head(self.features(x, train=train))


@dataclasses.dataclass(frozen=True)
class Dcgan:
    """The two networks and their sizes.

    Attributes:
        rows: (height, width, channels) of an image.
        latent_dim: length of z.
        embedding_dim: length of a label's vector.
        width: channels of the largest maps.
        flat: whether to use the form of [Liu et al. 2020].
        is_rowwise: see `Architecture`; the discriminator has batch norms.
    """

    rows: tuple[int, ...] = (64, 64, 3)
    latent_dim: int = 128
    embedding_dim: int = 256
    width: int = 64
    flat: bool = False
    is_rowwise: bool = False

    def __post_init__(self) -> None:
        """Check the shape of the images.

        Raises:
            UserError: images that are not square, or whose side is not 8, 16, 32, ...
        """
        check_square(self.rows)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of D's maps, the largest maps first; G's in reverse order."""
        num = self.rows[0].bit_length() - FIRST.bit_length() + (1 if self.flat else 0)
        return tuple(self.width << i for i in range(num))

    def generator(self, num_labels: int, rngs: nnx.Rngs) -> Generator:
        """Return a generator, unconditional if there is only one label."""
        return LabelledGenerator(self, num_labels, rngs=rngs)

    def generators(self, num_labels: int, rngs: nnx.Rngs) -> Generator:
        """Return one generator per label, sharing all but their first layer."""
        return DcganGenerators(self, num_labels, rngs=rngs)

    def discriminator(self, num_outputs: int, pack: int, rngs: nnx.Rngs) -> Discriminator:
        """Return a discriminator that judges `pack` images together."""
        return DcganBody(self, pack * self.rows[2], num_outputs, norms=True, rngs=rngs)
