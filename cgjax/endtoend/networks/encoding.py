"""ClusterGAN's networks: a generator from (z_n, one of K) and the encoder that recovers both.

There are dense networks for vectors, the paper's networks for MNIST [Mukherjee et al. 2019, and its
code], and DCGAN's for larger images, for which the paper has none. In the first two kernels start
as N(0, 0.02) and biases at 0.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from cgjax.endtoend.networks.convolutions import Doubling, Halving
from cgjax.endtoend.networks.dcgan import Dcgan, DcganBody, DcganGenerator, over_channels
from cgjax.endtoend.networks.layers import BatchNorm, leaky, normal
from cgjax.errors import UserError


class _Dense(nnx.Module):
    """A dense layer whose kernel starts as N(0, 0.02)."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        self.kernel = normal(rngs, inputs, outputs)
        self.bias = nnx.Param(jnp.zeros(outputs, jnp.float32))

    def __call__(self, x: Float[Array, "n i"]) -> Float[Array, "n o"]:
        return x @ self.kernel[...] + self.bias[...][None]


class _Body(nnx.Module):
    """Maps rows to numbers: dense layers, for images after convolutions of stride 2."""

    def __init__(
        self,
        rows: tuple[int, ...],
        channels: tuple[int, ...],
        widths: tuple[int, ...],
        rngs: nnx.Rngs,
    ):
        sizes = (rows[-1], *channels)
        self.convolutions = nnx.List(
            Halving(i, o, bias=True, rngs=rngs) for i, o in itertools.pairwise(sizes)
        )
        flat = math.prod(n >> len(channels) for n in rows[:-1]) * sizes[-1]
        self.layers = nnx.List(
            _Dense(i, o, rngs=rngs) for i, o in itertools.pairwise((flat, *widths))
        )

    def __call__(self, x: Float[Array, "n ..."]) -> Float[Array, "n o"]:
        for convolution in self.convolutions:
            x = leaky(convolution(x))
        x = x.reshape(len(x), -1)
        *hidden, last = self.layers
        for layer in hidden:
            x = leaky(layer(x))
        return last(x)


class EncodingGenerator(nnx.Module):
    """G and E: maps (n, d) latents and (n,) labels to rows, and rows to (n, d + K) codes."""

    def __init__(self, generate: nnx.Module, encoder: nnx.Module, num_labels: int):
        self.rest, self.encoder, self.num_labels = generate, encoder, num_labels

    def __call__(
        self, z: Float[Array, "n d"], labels: Int[Array, " n"], *, train: bool
    ) -> Float[Array, "n ..."]:
        """Generate rows."""
        one_hot = jax.nn.one_hot(labels, self.num_labels, dtype=jnp.float32)
        generate: Callable[..., Array] = self.rest
        return generate(jnp.concatenate([z, one_hot], axis=1), train=train)

    def encode(self, x: Float[Array, "n ..."], *, train: bool) -> Float[Array, "n e"]:
        """Return z_n_hat and the logits of z_c_hat, side by side."""
        encode: Callable[..., Array] = self.encoder
        return encode(x)


class _Critic(nnx.Module):
    """D: maps rows to one number."""

    def __init__(self, body: nnx.Module):
        self.body = body

    def features(self, x: Float[Array, "n ..."], *, train: bool) -> Float[Array, "n f"]:
        """Return the rows themselves: this network's features are not clustered."""
        return x.reshape(len(x), -1)

    def __call__(self, x: Float[Array, "n ..."], *, train: bool) -> Float[Array, "n o"]:
        return self.body(x)


class _DenseGenerator(nnx.Module):
    """Dense layers with leaky ReLU, the last one linear."""

    def __init__(self, inputs: int, widths: tuple[int, ...], *, rngs: nnx.Rngs):
        self.body = _Body((inputs,), (), widths, rngs)

    def __call__(self, x: Float[Array, "n i"], *, train: bool) -> Float[Array, "n o"]:
        return self.body(x)


class _ImageGenerator(nnx.Module):
    """Two dense layers and two transposed convolutions of stride 2, with batch norm, then sigmoid.

    The sigmoid is scaled to the range of images here, [-1, 1].
    """

    def __init__(self, inputs: int, rows: tuple[int, ...], *, rngs: nnx.Rngs):
        height, width, channels = rows
        self.small = (height // 4, width // 4, 128)
        flat = math.prod(self.small)
        self.first, self.second = _Dense(inputs, 1024, rngs=rngs), _Dense(1024, flat, rngs=rngs)
        self.third = Doubling(128, 64, bias=True, rngs=rngs)
        self.last = Doubling(64, channels, bias=True, rngs=rngs)
        self.norms = nnx.List(BatchNorm(width) for width in (1024, flat, 64))

    def __call__(self, x: Float[Array, "n i"], *, train: bool) -> Float[Array, "n h w c"]:
        one, two, three = self.norms
        x = jax.nn.relu(one(self.first(x), train=train))
        x = jax.nn.relu(two(self.second(x), train=train)).reshape(len(x), *self.small)
        x = jax.nn.relu(over_channels(three, self.third(x), train=train))
        return 2 * jax.nn.sigmoid(self.last(x)) - 1


@dataclasses.dataclass(frozen=True)
class Encoding:
    """The three networks and their sizes.

    Attributes:
        rows: shape of a row: (length,) of a vector, or (height, width, channels) of an image whose
            sides are multiples of four.
        latent_dim: length of z_n.
        width: units of the two hidden dense layers for vectors.
        is_rowwise: see `Architecture`; D has no batch norms.
    """

    rows: tuple[int, ...] = (64,)
    latent_dim: int = 30
    width: int = 256
    is_rowwise: bool = True

    def __post_init__(self) -> None:
        """Check the shape of images.

        Raises:
            UserError: images whose sides are not multiples of four.
        """
        if len(self.rows) > 1 and any(side % 4 for side in self.rows[:2]):
            raise UserError(
                "--config.network.name=encoding makes images whose sides are multiples of four, "
                f"but the data's rows are {' x '.join(map(str, self.rows))}"
            )

    def _body(self, outputs: int, rngs: nnx.Rngs) -> _Body:
        if len(self.rows) == 1:
            return _Body(self.rows, (), (self.width, self.width, outputs), rngs)
        return _Body(self.rows, (64, 128), (1024, outputs), rngs)

    def generator(self, num_labels: int, rngs: nnx.Rngs) -> EncodingGenerator:
        """Return G with E."""
        inputs = self.latent_dim + num_labels
        if len(self.rows) == 1:
            widths = (self.width, self.width, *self.rows)
            generator: nnx.Module = _DenseGenerator(inputs, widths, rngs=rngs)
        else:
            generator = _ImageGenerator(inputs, self.rows, rngs=rngs)
        return EncodingGenerator(generator, self._body(inputs, rngs), num_labels)

    def generators(self, num_labels: int, rngs: nnx.Rngs) -> EncodingGenerator:
        """Refuse.

        Raises:
            UserError: always; MGAN has no such networks.
        """
        raise UserError(
            "--config.train.method=mgan: these networks are ClusterGAN's; type another "
            "--config.network.name"
        )

    def discriminator(self, num_outputs: int, pack: int, rngs: nnx.Rngs) -> _Critic:
        """Return D."""
        return _Critic(self._body(num_outputs, rngs))


@dataclasses.dataclass(frozen=True)
class EncodingDcgan(Dcgan):
    """DCGAN's G; D and E are its D without batch norms. `latent_dim` is the length of z_n."""

    is_rowwise: bool = True

    def generator(self, num_labels: int, rngs: nnx.Rngs) -> EncodingGenerator:
        """Return G with E."""
        inputs = self.latent_dim + num_labels
        generator = DcganGenerator(self, inputs, rngs=rngs)
        encoder = DcganBody(self, self.rows[2], inputs, norms=False, rngs=rngs)
        return EncodingGenerator(generator, encoder, num_labels)

    def discriminator(self, num_outputs: int, pack: int, rngs: nnx.Rngs) -> _Critic:
        """Return D."""
        return _Critic(DcganBody(self, self.rows[2], num_outputs, norms=False, rngs=rngs))
