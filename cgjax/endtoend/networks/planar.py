"""The networks of the experiments in the plane [Liu et al. 2020; Lin et al. 2018].

Generator: concat(z, E(y) / ||E(y)||), four dense layers of 400 with batch norm and ReLU, a dense
layer of 2. Discriminator: three maxout layers of 200 units and 5 pieces, then one logit per label.
The features for clustering are the last maxout layer's output.

"planar_plain" is ours: the same without batch norms. "planar_modulated" is ours too. The published
generator learns to map every label to one point, whatever the latent; in training only the jitter
of batch norm spreads its points. Here layers are normalised row by row [Ba et al. 2016], and every
unit is scaled by 1 + a s(z), where s is a random wave of the latent z [Rahimi & Recht 2007] that
training cannot change. That is a jitter like batch norm's, which is a tenth for batches of 100.

Products use full float32 precision. A GPU's default, TF32, keeps 11 bits: for a point at 2 that is
an error of a tenth of the ring's standard deviation, which would blur the modes.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import ParamSpec

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from cgjax.endtoend.networks.layers import (
    EPS,
    BatchNorm,
    Linear,
    Maxout,
    first_layer,
    of_first,
)

ROW_DIM = 2

P = ParamSpec("P")


def _in_float32(call: Callable[P, Array]) -> Callable[P, Array]:
    """Run a network's products, and so those of its derivatives, in full float32 precision."""

    @functools.wraps(call)
    def exact(*args: P.args, **kwargs: P.kwargs) -> Array:
        with jax.default_matmul_precision("highest"):
            return call(*args, **kwargs)

    return exact


class _NoNorm(nnx.Module):
    """Takes the place of a batch norm and does nothing."""

    def __call__(self, x: Float[Array, "n w"], *, train: bool) -> Float[Array, "n w"]:
        return x


def _norm(sizes: Planar) -> BatchNorm | _NoNorm:
    return BatchNorm(sizes.width) if sizes.normed else _NoNorm()


class _AfterFirst(nnx.Module):
    """A generator after its first dense layer and batch norm."""

    def __init__(self, sizes: Planar, *, rngs: nnx.Rngs):
        width, later = sizes.width, range(sizes.depth - 1)
        self.layers = nnx.List(Linear(width, width, rngs=rngs) for _ in later)
        self.norms = nnx.List(_norm(sizes) for _ in later)
        self.last = Linear(width, ROW_DIM, rngs=rngs)

    def __call__(self, x: Float[Array, "n w"], *, train: bool) -> Float[Array, "n 2"]:
        x = jax.nn.relu(x)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = jax.nn.relu(norm(layer(x), train=train))
        return self.last(x)


class PlanarGenerator(nnx.Module):
    """Maps (n, d) latents and (n,) labels to (n, 2) points; for `per_label` see `first_layer`."""

    def __init__(self, sizes: Planar, num_labels: int, *, per_label: bool, rngs: nnx.Rngs):
        self.embedding, self.first = first_layer(
            *(num_labels, sizes.latent_dim, sizes.embedding_dim, sizes.width),
            per_label=per_label,
            channels=sizes.width if sizes.normed else 0,
            rngs=rngs,
        )
        self.norm = _NoNorm() if per_label else _norm(sizes)
        self.rest = _AfterFirst(sizes, rngs=rngs)

    @_in_float32
    def __call__(
        self, z: Float[Array, "n d"], labels: Int[Array, " n"], *, train: bool
    ) -> Float[Array, "n 2"]:
        """Generate points."""
        x = of_first(self.first, self.embedding, z, labels, train=train)
        return self.rest(self.norm(x, train=train), train=train)


def waves(z: Float[Array, "n d"], width: int, layer: int) -> Float[Array, "n w"]:
    """Return a fixed random wave of the latent for each unit of a layer.

    sqrt(2) cos(<w, z> + b), with w normal and b uniform, drawn once and for all. For normal latents
    it has mean 0 and standard deviation 1 over units.

    Args:
        z: latents.
        width: units of the layer.
        layer: number of the layer; each layer has different waves.
    """
    with jax.ensure_compile_time_eval():
        key_wave, key_phase = jax.random.split(jax.random.key(layer))
        wave = jax.random.normal(key_wave, (z.shape[1], width), jnp.float32)
        phase = jax.random.uniform(key_phase, (1, width), maxval=2 * jnp.pi, dtype=jnp.float32)
    return 2**0.5 * jnp.cos(z @ wave + phase)


class ModulatedGenerator(nnx.Module):
    """Maps (n, d) latents and (n,) labels to (n, 2) points; latents scale every layer's units.

    A row depends on its own latent and label only, in training too. For `per_label` see
    `first_layer`.
    """

    def __init__(self, sizes: Planar, num_labels: int, *, per_label: bool, rngs: nnx.Rngs):
        width, depth, self.modulation = sizes.width, sizes.depth, sizes.modulation
        self.embedding, self.first = first_layer(
            *(num_labels, sizes.latent_dim, sizes.embedding_dim, width),
            per_label=per_label,
            rngs=rngs,
        )
        self.layers = nnx.List(Linear(width, width, rngs=rngs) for _ in range(depth - 1))
        self.norms = nnx.List(nnx.LayerNorm(width, epsilon=EPS, rngs=rngs) for _ in range(depth))
        self.last = Linear(width, ROW_DIM, rngs=rngs)

    @_in_float32
    def __call__(
        self, z: Float[Array, "n d"], labels: Int[Array, " n"], *, train: bool
    ) -> Float[Array, "n 2"]:
        """Generate points."""
        x = of_first(self.first, self.embedding, z, labels, train=train)
        for number, norm in enumerate(self.norms):
            x = self.layers[number - 1](x) if number else x
            x = jax.nn.relu(norm(x)) * (1 + self.modulation * waves(z, x.shape[1], number))
        return self.last(x)


class PlanarDiscriminator(nnx.Module):
    """Maps (n, pack * 2) rows to features and logits."""

    def __init__(self, sizes: Planar, num_outputs: int, pack: int, *, rngs: nnx.Rngs):
        width = sizes.critic_width
        widths = (pack * ROW_DIM, width, width)
        self.layers = nnx.List(Maxout(inputs, width, sizes.pieces, rngs=rngs) for inputs in widths)
        self.head = Linear(width, num_outputs, rngs=rngs)

    @_in_float32
    def features(self, x: Float[Array, "n i"], *, train: bool) -> Float[Array, "n f"]:
        """Return the last maxout layer's output; `train` has no effect."""
        for layer in self.layers:
            x = layer(x)
        return x

    @_in_float32
    def __call__(self, x: Float[Array, "n i"], *, train: bool) -> Float[Array, "n outputs"]:
        """Return all logits."""
        return self.head(self.features(x, train=train))


@dataclasses.dataclass(frozen=True)
class Planar:
    """The two networks and their sizes.

    Attributes:
        latent_dim: length of z.
        embedding_dim: length of a label's vector.
        width: units of the generator's hidden layers.
        depth: number of those layers.
        critic_width: units of the discriminator's layers.
        pieces: number of dense layers that each maxout unit takes the maximum of.
        normed: whether the generator has batch norms. In training they normalise by the batch's
            moments, which jitters the generated points. The discriminator sees the jitter, so
            points generated with the running moments end up that much too close together.
        modulation: standard deviation of the factors by which latents scale the units of a
            `ModulatedGenerator`, which has no batch norms; 0 for the published generator.
        is_rowwise: see `Architecture`; the discriminator has no batch norms.
    """

    latent_dim: int = 2
    embedding_dim: int = 32
    width: int = 400
    depth: int = 4
    critic_width: int = 200
    pieces: int = 5
    normed: bool = True
    modulation: float = 0.0
    is_rowwise: bool = True

    @property
    def _generator(self) -> type[PlanarGenerator] | type[ModulatedGenerator]:
        return ModulatedGenerator if self.modulation else PlanarGenerator

    def generator(self, num_labels: int, rngs: nnx.Rngs) -> PlanarGenerator | ModulatedGenerator:
        """Return a generator, unconditional if there is only one label."""
        return self._generator(self, num_labels, per_label=False, rngs=rngs)

    def generators(self, num_labels: int, rngs: nnx.Rngs) -> PlanarGenerator | ModulatedGenerator:
        """Return one generator per label, sharing all but their first layer."""
        return self._generator(self, num_labels, per_label=True, rngs=rngs)

    def discriminator(self, num_outputs: int, pack: int, rngs: nnx.Rngs) -> PlanarDiscriminator:
        """Return a discriminator that judges `pack` points together."""
        return PlanarDiscriminator(self, num_outputs, pack, rngs=rngs)
