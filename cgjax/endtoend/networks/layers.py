"""Layers of the end-to-end networks, with PyTorch's initial values and batch norm."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

EPS = 1e-5
MOMENTUM = 0.1
"""Share of the newest batch in the running moments."""


def leaky(x: Array) -> Array:
    """Return x, its negative part times 0.2."""
    return jax.nn.leaky_relu(x, 0.2)


def moved_again(before: Any, after: Any) -> Any:
    """Return running moments after a second pass of the batch that moved them once.

    Args:
        before: a tree of moments before the first pass.
        after: the same after it: (1 - m) before + m batch.
    """
    return jax.tree.map(lambda old, new: (2 - MOMENTUM) * new - (1 - MOMENTUM) * old, before, after)


class Linear(nnx.Module):
    """A dense layer, kernel and bias, where it has one, uniform within 1/sqrt(inputs)."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True, rngs: nnx.Rngs):
        bound = inputs**-0.5
        shape = (inputs, outputs)
        self.kernel = nnx.Param(
            jax.random.uniform(rngs.params(), shape, jnp.float32, -bound, bound)
        )
        self.bias = (
            nnx.Param(jax.random.uniform(rngs.params(), shape[1:], jnp.float32, -bound, bound))
            if bias
            else None
        )

    def __call__(self, x: Float[Array, "n i"]) -> Float[Array, "n o"]:
        """Apply the layer."""
        y = x @ self.kernel[...]
        return y if self.bias is None else y + self.bias[...][None]


class LinearPerLabel(nnx.Module):
    """A dense layer for every label, each with its own kernel, bias and, where wanted, batch norm.

    In train mode rows come in equal groups, those of label 0 first: a batch norm sees its own
    group. Otherwise labels may come in any order.

    Args:
        num_labels: how many layers.
        inputs: of each.
        outputs: of each.
        channels: of the batch norms, each over all outputs that are the same modulo so many (units
            of their own with `outputs`, the channels of maps with fewer); 0 for none.
        rngs: of the initial values.
    """

    def __init__(
        self, num_labels: int, inputs: int, outputs: int, channels: int, *, rngs: nnx.Rngs
    ):
        bound = inputs**-0.5
        shape = (num_labels, inputs, outputs)
        self.kernel = nnx.Param(
            jax.random.uniform(rngs.params(), shape, jnp.float32, -bound, bound)
        )
        self.bias = nnx.Param(
            jax.random.uniform(rngs.params(), shape[::2], jnp.float32, -bound, bound)
        )
        self.norm = BatchNorm((num_labels, channels)) if channels else None
        self.channels = channels

    def __call__(
        self, x: Float[Array, "n i"], labels: Int[Array, " n"], *, train: bool
    ) -> Float[Array, "n o"]:
        """Apply each row's own layer and batch norm."""
        kernel, bias = self.kernel[...], self.bias[...]
        if train:
            groups = x.reshape(len(kernel), -1, x.shape[1])
            made = jnp.einsum("gri,gio->gro", groups, kernel) + bias[:, None]
            made = made.reshape(len(x), -1)
        else:
            # One row after the other, for a kernel of images times the rows is gigabytes.
            made = jax.lax.map(lambda row: row[0] @ kernel[row[1]] + bias[row[1]], (x, labels))
        if self.norm is None:
            return made
        rows = made.reshape(-1, self.channels)
        if train:
            rows = self.norm(rows.reshape(len(kernel), -1, self.channels), train=True)
        else:
            rows = self.norm.by_running(rows, jnp.repeat(labels, len(rows) // len(labels)))
        return rows.reshape(made.shape)


class BatchNorm(nnx.Module):
    """Batch norm over the last axis but one; the running variance is the unbiased one."""

    def __init__(self, shape: int | tuple[int, ...]):
        self.scale = nnx.Param(jnp.ones(shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(shape, jnp.float32))
        self.mean = nnx.BatchStat(jnp.zeros(shape, jnp.float32))
        self.var = nnx.BatchStat(jnp.ones(shape, jnp.float32))

    def __call__(self, x: Float[Array, "*g n w"], *, train: bool) -> Float[Array, "*g n w"]:
        """Normalise by the batch's moments, and move the running ones, or by the running ones."""
        if train:
            num = x.shape[-2]
            mean = jnp.mean(x, axis=-2)
            var = jnp.mean(jnp.square(x - mean[..., None, :]), axis=-2)
            unbiased = var * (num / max(num - 1, 1))
            self.mean[...] = (1 - MOMENTUM) * self.mean[...] + MOMENTUM * mean
            self.var[...] = (1 - MOMENTUM) * self.var[...] + MOMENTUM * unbiased
        else:
            mean, var = self.mean[...], self.var[...]
        scale = self.scale[...] * jax.lax.rsqrt(var + EPS)
        return (x - mean[..., None, :]) * scale[..., None, :] + self.bias[...][..., None, :]

    def by_running(self, x: Float[Array, "n w"], group: Int[Array, " n"]) -> Float[Array, "n w"]:
        """Normalise every row by the running moments of its own group."""
        scale = self.scale[...] * jax.lax.rsqrt(self.var[...] + EPS)
        return (x - self.mean[...][group]) * scale[group] + self.bias[...][group]


class Maxout(nnx.Module):
    """The largest of several dense layers, unit by unit [Goodfellow et al. 2013]."""

    def __init__(self, inputs: int, outputs: int, pieces: int, *, rngs: nnx.Rngs):
        self.linear = Linear(inputs, outputs * pieces, rngs=rngs)
        self.outputs = outputs

    def __call__(self, x: Float[Array, "n i"]) -> Float[Array, "n o"]:
        """Apply the layers; unit j of piece p is column p * outputs + j."""
        made = self.linear(x)
        return jnp.max(made.reshape(len(x), -1, self.outputs), axis=1)


class LabelEmbedding(nnx.Module):
    """A vector of length 1 for every label."""

    def __init__(self, num_labels: int, dim: int, *, rngs: nnx.Rngs):
        self.table = nnx.Param(jax.random.normal(rngs.params(), (num_labels, dim), jnp.float32))

    def __call__(self, labels: Int[Array, " n"]) -> Float[Array, "n d"]:
        """Look labels up."""
        rows = self.table[...]
        return (rows / jnp.linalg.norm(rows, axis=1, keepdims=True))[labels]


def with_label(
    z: Float[Array, "n d"], labels: Int[Array, " n"], embedding: LabelEmbedding | None
) -> Float[Array, "n e"]:
    """Join each latent and its label's vector; without vectors return the latents."""
    return z if embedding is None else jnp.concatenate([z, embedding(labels)], axis=1)
