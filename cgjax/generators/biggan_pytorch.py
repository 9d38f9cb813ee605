"""BigGAN [Brock et al. 2019] as its author's PyTorch code, BigGAN-PyTorch, computes it.

Unlike in BigGAN-deep the blocks are wide, and each block may read its own piece of the latent
(`hierarchical`): the latent is split into one piece for the first dense layer and one for each
block, which is appended to the class embedding in the block's condition. Batch norms have one set
of statistics, so truncation affects the latents only. Spectral norms are folded into the weights
when a checkpoint is converted. Layers are `linear` (the dense layer, a vector), `block0`,
`block1`, ..., each after its attention where it has one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from cgjax.generators.architecture import Bound, Count, Size, Sizes
from cgjax.generators.biggan_parts import (
    Attention,
    check_truncation,
    modulate,
    need_latents,
    normalize,
    truncated_latents,
)
from cgjax.generators.conditions import names_of
from cgjax.generators.layers import convolve, upsample_convolve, upsample_nearest
from cgjax.generators.staged import Inputs, StagedNetwork, State, buffer, parameter


class Norm(nnx.Module):
    """Batch norm with stored statistics; its scale and shift are linear in the condition."""

    def __init__(self, width: int, condition_dim: int):
        self.mean, self.variance = buffer(width, std=0.1), buffer(width, mean=1.0)
        self.scale = parameter(condition_dim, width, std=0.1 * condition_dim**-0.5)
        self.offset = parameter(condition_dim, width, std=0.1 * condition_dim**-0.5)

    def __call__(self, x: Array, condition: Array, eps: float) -> Array:
        """Normalise, then `modulate`."""
        x = normalize(x, self.mean[...], self.variance[...], eps)
        return modulate(x, condition, self.scale[...], self.offset[...])


class Block(nnx.Module):
    """A residual block that doubles the map's size: two 3x3 convolutions after norm and ReLU."""

    def __init__(self, width_in: int, width_out: int, condition_dim: int):
        self.norms = nnx.List(Norm(w, condition_dim) for w in (width_in, width_out))
        self.kernels = nnx.List(
            parameter(3, 3, i, width_out, std=(2 / (9 * i)) ** 0.5) for i in (width_in, width_out)
        )
        self.shortcut = parameter(width_in, width_out, std=width_in**-0.5)
        self.biases = nnx.List(parameter(width_out) for _ in range(2))
        self.shortcut_bias = parameter(width_out)

    def __call__(self, x: Array, condition: Array, eps: float) -> Array:
        """Return the block's output."""
        h = jax.nn.relu(self.norms[0](x, condition, eps))
        h = upsample_convolve(h, self.kernels[0][...]) + self.biases[0][...][None, None, None]
        h = jax.nn.relu(self.norms[1](h, condition, eps))
        h = convolve(h, self.kernels[1][...]) + self.biases[1][...][None, None, None]
        # A 1x1 convolution and nearest upsampling commute; this order is cheaper.
        x = convolve(x, self.shortcut[...][None, None]) + self.shortcut_bias[...][None, None, None]
        return h + upsample_nearest(x)


class BigGANPyTorch(StagedNetwork):
    """BigGAN's generator."""

    family = "biggan_pytorch"
    truncates_prior = True

    def __init__(
        self,
        latent_dim: Size,
        num_classes: Size,
        widths: Sizes,
        embedding_dim: Size | None,
        hierarchical: bool,
        attention: Sequence[Count] = (),
        first_size: Size = 4,
        eps: Bound = 1e-5,
        image_channels: Size = 3,
    ):
        """Build the network.

        Args:
            latent_dim: length of a latent.
            num_classes: length of a class vector.
            widths: channels of the first map and of each block's output.
            embedding_dim: length of a class embedding shared by all blocks; None where every norm
                has its own scale and shift for each class.
            hierarchical: whether every block reads its own piece of the latent.
            attention: the blocks, counted from 0, that are followed by attention.
            first_size: height and width of the first map.
            eps: added to the variances.
            image_channels: 3, or 1.
        """
        blocks = len(widths) - 1
        self.latent_dim, self.num_classes, self.eps = latent_dim, num_classes, eps
        self.image_channels, self.image_size = image_channels, first_size * 2**blocks
        self.first_size, self.attention = first_size, tuple(attention)
        self.piece = latent_dim // (blocks + 1) if hierarchical else latent_dim
        self.hierarchical = self.resume_needs_latents = hierarchical
        self.has_embedding = embedding_dim is not None
        if embedding_dim is not None:
            self.embedding = parameter(num_classes, embedding_dim, std=1.0)
        condition = embedding_dim if embedding_dim is not None else num_classes
        condition += self.piece if hierarchical else 0
        first = first_size**2 * widths[0]
        self.dense = parameter(self.piece, first, std=self.piece**-0.5)
        self.dense_bias = parameter(first)
        self.blocks = nnx.List(Block(i, o, condition) for i, o in itertools.pairwise(widths))
        self.attentions = nnx.List(Attention(widths[i + 1]) for i in self.attention)
        self.layers = ("linear", *(f"block{i}" for i in range(blocks)))
        last = widths[-1]
        self.final_mean, self.final_variance = buffer(last, std=0.1), buffer(last, mean=1.0)
        self.final_scale, self.final_offset = parameter(last, mean=1.0), parameter(last)
        self.to_rgb = parameter(3, 3, last, image_channels, std=(9 * last) ** -0.5)
        self.to_rgb_bias = parameter(image_channels)

    def resolve(
        self, num: int, *, condition: Any = None, truncation: Any = None, **others: Any
    ) -> Inputs:
        """Look up the class vectors.

        Args:
            num: number of rows.
            condition: class id, name, list of either, or class vectors.
            truncation: t in (0, 1]; it affects `sample_latents` only.
            **others: refused.
        """
        self.refuse(**others)
        check_truncation(truncation)
        return self.resolve_classes(num, condition, names_of(self.num_classes))

    def resolve_resume(self, num: int, index: int, latents: Array | None, w: Any) -> Inputs:
        """Return the latents, if the blocks read them."""
        self.refuse(w=w)
        return need_latents(self, index, latents) if self.hierarchical else {}

    def sample_latents(
        self, key: PRNGKeyArray, n: int, *, truncation: Any = None, **others: Any
    ) -> Float[Array, "n d"]:
        """Draw n latents: standard normal, or with t one truncated to [-2, 2], times t."""
        self.refuse(**others)
        if truncation is None:
            return jax.random.normal(key, (n, self.latent_dim), jnp.float32)
        return truncated_latents(key, n, self.latent_dim, check_truncation(truncation))

    def begin(self, z: Float[Array, "n d"], inputs: Inputs) -> State:
        """Split the latent into pieces and embed the class."""
        return {"h": z[:, : self.piece], "conditions": self._conditions(z, inputs)}

    def _conditions(self, z: Array | None, inputs: Inputs) -> list[Array]:
        """Return the condition of each block."""
        classes = inputs["classes"]
        embedded = classes @ self.embedding[...] if self.has_embedding else classes
        if not self.hierarchical or z is None:
            return [embedded] * len(self.blocks)
        pieces = jnp.split(z, len(self.blocks) + 1, axis=1)[1:]
        return [jnp.concatenate([embedded, piece], axis=1) for piece in pieces]

    def enter(self, h: Float[Array, "n ..."], index: int, inputs: Inputs) -> State:
        """Return the state after a layer."""
        return {"h": h, "conditions": self._conditions(inputs.get("latents"), inputs)}

    def stage(self, index: int, state: State) -> State:
        """Apply the dense layer (0), or a block with its attention."""
        h, conditions = state["h"], state["conditions"]
        if index == 0:
            h = h @ self.dense[...] + self.dense_bias[...][None]
        else:
            if index == 1:
                h = h.reshape(h.shape[0], -1, self.first_size, self.first_size)
                h = jnp.transpose(h, (0, 2, 3, 1))
            h = self.blocks[index - 1](h, conditions[index - 1], self.eps)
            if index - 1 in self.attention:
                attend = self.attentions[self.attention.index(index - 1)]
                h = attend(h)
        return state | {"h": h}

    def end(self, state: State) -> Float[Array, "n s s c"]:
        """Apply batch norm, ReLU, the last convolution and tanh."""
        x = normalize(state["h"], self.final_mean[...], self.final_variance[...], self.eps)
        x = x * self.final_scale[...][None, None, None] + self.final_offset[...][None, None, None]
        x = convolve(jax.nn.relu(x), self.to_rgb[...]) + self.to_rgb_bias[...][None, None, None]
        return jnp.tanh(x)

    def latent_weights(self) -> Float[Array, "d m"]:
        """Return the weights that first read the latent, one row per coordinate (SeFa).

        The dense layer reads only the first piece of a hierarchical latent: other rows are zero.
        """
        weight = self.dense[...]
        return jnp.pad(weight, ((0, self.latent_dim - self.piece), (0, 0)))
