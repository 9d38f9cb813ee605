"""BigGAN-deep [Brock et al. 2019], as Hugging Face's pytorch-pretrained-BigGAN computes it.

The latent and the class embedding, concatenated, are the condition that every batch norm reads.
Spectral norms are folded into the weights when a checkpoint is converted. Layers are `gen_z` (the
first dense layer, a vector), `layers_00`, `layers_01`, ...: the residual blocks and, between two of
them, the attention.

The statistics of the batch norms depend on the truncation t: they are stored for t = 0, 0.02, ...,
1. Between two of these the reference interpolates with the two weights swapped, and it looks the
row up in double precision; both are reproduced here, as the published images were made that way.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from cgjax.generators.architecture import Blocks, Bound, Count, Range, Size
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

REDUCTION = 4
"""Channels of a residual block's input, divided by those inside the block."""


class Statistics(nnx.Module):
    """Means and variances of one batch norm, for every stored truncation."""

    def __init__(self, num_stats: int, width: int):
        self.means = buffer(num_stats, width, std=0.1)
        self.variances = buffer(num_stats, width, mean=1.0)

    def normalize(self, x: Array, inputs: Inputs, eps: float) -> Array:
        """Subtract the truncation's mean and divide by its standard deviation."""
        rows, weights = inputs["rows"], inputs["row_weights"]
        mean, variance = (weights @ table[...][rows] for table in (self.means, self.variances))
        return normalize(x, mean, variance, eps)


class ConditionalNorm(nnx.Module):
    """Batch norm whose scale and shift are linear functions of the condition."""

    def __init__(self, num_stats: int, width: int, condition_dim: int):
        self.statistics = Statistics(num_stats, width)
        self.scale = parameter(condition_dim, width, std=0.1 * condition_dim**-0.5)
        self.offset = parameter(condition_dim, width, std=0.1 * condition_dim**-0.5)

    def __call__(self, x: Array, inputs: Inputs, eps: float) -> Array:
        """Normalise, then `modulate`."""
        x = self.statistics.normalize(x, inputs, eps)
        return modulate(x, inputs["condition"], self.scale[...], self.offset[...])


class Block(nnx.Module):
    """A residual block: 1x1, 3x3, 3x3, 1x1, each after a conditional norm and a ReLU."""

    def __init__(self, width_in: int, width_out: int, up: bool, num_stats: int, condition_dim: int):
        self.up, self.width_out = up, width_out
        inner = width_in // REDUCTION
        widths = (width_in, inner, inner, inner)
        self.norms = nnx.List(ConditionalNorm(num_stats, w, condition_dim) for w in widths)
        sizes = ((1, width_in, inner), (3, inner, inner), (3, inner, inner), (1, inner, width_out))
        self.kernels = nnx.List(
            parameter(k, k, i, o, std=(2 / (k * k * i)) ** 0.5) for k, i, o in sizes
        )
        self.biases = nnx.List(parameter(o) for _, _, o in sizes)

    def steps(self, x: Array, inputs: Inputs, eps: float) -> Iterator[tuple[str, Array]]:
        """Yield the name and value of each step; the last, "out", is the block's output."""
        skipped, h = x, x
        for j in range(4):
            h = self.norms[j](h, inputs, eps)
            yield f"bn_{j}", h
            convolution = upsample_convolve if self.up and j == 1 else convolve
            bias = self.biases[j][...][None, None, None]
            h = convolution(jax.nn.relu(h), self.kernels[j][...]) + bias
            yield f"conv_{j}", h
        if skipped.shape[-1] != self.width_out:
            # The reference always drops the second half of the channels, whatever the widths.
            skipped = skipped[..., : skipped.shape[-1] // 2]
        yield "out", h + (upsample_nearest(skipped) if self.up else skipped)

    def __call__(self, x: Array, inputs: Inputs, eps: float) -> Array:
        """Return the block's output."""
        for _, h in self.steps(x, inputs, eps):
            x = h
        return x


class BigGAN(StagedNetwork):
    """BigGAN-deep's generator."""

    family = "biggan"
    resume_needs_latents = True
    truncates_prior = True

    def __init__(
        self,
        latent_dim: Size,
        num_classes: Size,
        width: Size,
        blocks: Blocks,
        attention: Count | None,
        num_stats: Annotated[int, Range(2)] = 51,
        eps: Bound = 1e-4,
        image_channels: Size = 3,
    ):
        """Build the network.

        Args:
            latent_dim: length of a latent, and of the class embedding.
            num_classes: length of a class vector.
            width: channels of the last block's output; the first map has 16 times as many.
            blocks: (upsamples, channels in, channels out) of each residual block.
            attention: the block, counted from 0, that the attention precedes; None for none.
            num_stats: number of truncations for which statistics are stored.
            eps: added to the variances.
            image_channels: number of the last convolution's channels that form the image.
        """
        self.latent_dim, self.num_classes = latent_dim, num_classes
        self.num_stats, self.eps = num_stats, eps
        self.image_channels = image_channels
        self.image_size = 4 * 2 ** sum(bool(up) for up, _, _ in blocks)
        condition = 2 * latent_dim
        self.embedding = parameter(num_classes, latent_dim, std=1.0)
        first = 16 * 16 * width
        self.dense = parameter(condition, first, std=condition**-0.5)
        self.dense_bias = parameter(first)
        modules: list[Block | Attention] = []
        for i, (up, width_in, width_out) in enumerate(blocks):
            if i == attention:
                modules.append(Attention(width_in))
            modules.append(Block(width_in, width_out, bool(up), num_stats, condition))
        self.modules = nnx.List(modules)
        self.layers = ("gen_z", *(f"layers_{i:02d}" for i in range(len(modules))))
        self.final_statistics = Statistics(num_stats, width)
        self.final_scale = parameter(width, mean=1.0)
        self.final_offset = parameter(width)
        self.to_rgb = parameter(3, 3, width, image_channels, std=(9 * width) ** -0.5)
        self.to_rgb_bias = parameter(image_channels)

    def resolve(
        self, num: int, *, condition: Any = None, truncation: Any = None, **others: Any
    ) -> Inputs:
        """Look up the class vectors and the rows of statistics.

        Args:
            num: number of rows.
            condition: class id, name, list of either, or class vectors.
            truncation: t in (0, 1]; None for 1. It selects the statistics only.
            **others: refused.
        """
        self.refuse(**others)
        rows, weights = statistics_rows(check_truncation(truncation), self.num_stats)
        return self.resolve_classes(num, condition, names_of(self.num_classes)) | {
            "rows": jnp.asarray(rows, jnp.int32),
            "row_weights": jnp.asarray(weights, jnp.float32),
        }

    def resolve_resume(self, num: int, index: int, latents: Array | None, w: Any) -> Inputs:
        """Return the latents, which every layer reads."""
        self.refuse(w=w)
        return need_latents(self, index, latents)

    def sample_latents(
        self, key: PRNGKeyArray, n: int, *, truncation: Any = None, **others: Any
    ) -> Float[Array, "n d"]:
        """Draw n latents: a standard normal truncated to [-2, 2], times t."""
        self.refuse(**others)
        return truncated_latents(key, n, self.latent_dim, check_truncation(truncation))

    def begin(self, z: Float[Array, "n d"], inputs: Inputs) -> State:
        """Concatenate the latent and the class embedding."""
        return {"h": z, "inputs": self._with_condition(z, inputs)}

    def _with_condition(self, z: Float[Array, "n d"], inputs: Inputs) -> Inputs:
        embedded = inputs["classes"] @ self.embedding[...]
        return inputs | {"condition": jnp.concatenate([z, embedded], axis=1)}

    def enter(self, h: Float[Array, "n ..."], index: int, inputs: Inputs) -> State:
        """Return the state after a layer."""
        return {"h": h, "inputs": self._with_condition(inputs["latents"], inputs)}

    def stage(self, index: int, state: State) -> State:
        """Apply the dense layer (0), a block, or the attention."""
        inputs, h = state["inputs"], state["h"]
        if index == 0:
            h = inputs["condition"] @ self.dense[...] + self.dense_bias[...][None]
        else:
            if index == 1:
                h = h.reshape(h.shape[0], 4, 4, -1)
            module = self.modules[index - 1]
            h = module(h) if isinstance(module, Attention) else module(h, inputs, self.eps)
        return {"h": h, "inputs": inputs}

    def normalize_last(self, state: State) -> Float[Array, "n s s w"]:
        """Apply the last batch norm, which reads no condition."""
        x = self.final_statistics.normalize(state["h"], state["inputs"], self.eps)
        scale, offset = self.final_scale[...], self.final_offset[...]
        return x * scale[None, None, None] + offset[None, None, None]

    def end(self, state: State) -> Float[Array, "n s s c"]:
        """Apply batch norm, ReLU, the last convolution and tanh."""
        x = convolve(jax.nn.relu(self.normalize_last(state)), self.to_rgb[...])
        return jnp.tanh(x + self.to_rgb_bias[...][None, None, None])

    def latent_weights(self) -> Float[Array, "d m"]:
        """Return the weights that first read the latent, one row per coordinate (SeFa)."""
        return self.dense[...][: self.latent_dim]


def statistics_rows(t: float, num_stats: int) -> tuple[tuple[int, int], tuple[float, float]]:
    """Return the two rows of stored statistics that a truncation mixes, and their weights.

    Computed in double precision, like the reference: on the grid of 0.02 some quotients miss their
    integer by a rounding error, and then the neighbouring row is taken.

    Example:
        >>> statistics_rows(0.4, 51)
        ((20, 20), (1.0, 0.0))
        >>> statistics_rows(0.58, 51)[0]
        (28, 29)
    """
    fraction, start = math.modf(t / (1.0 / (num_stats - 1)))
    row = int(start)
    if fraction == 0:
        return (row, row), (1.0, 0.0)
    return (row, row + 1), (fraction, 1 - fraction)
