"""Layers of the end-to-end networks, with PyTorch's initialisation and batch norm."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

EPS = 1e-5
MOMENTUM = 0.1
"""Weight of the newest batch in the running moments."""


def leaky(x: Array) -> Array:
    """Return x with its negative part multiplied by 0.2."""
    return jax.nn.leaky_relu(x, 0.2)


def moved_again(before: Any, after: Any) -> Any:
    """Return running moments after a second pass of the batch that just moved them.

    Args:
        before: tree of the moments before the first pass.
        after: the same after it, (1 - m) before + m batch.
    """
    return jax.tree.map(lambda old, new: (2 - MOMENTUM) * new - (1 - MOMENTUM) * old, before, after)


def normal(rngs: nnx.Rngs, *shape: int) -> nnx.Param[Array]:
    """Return N(0, 0.02), as DCGAN's kernels start."""
    return nnx.Param(0.02 * jax.random.normal(rngs.params(), shape, jnp.float32))


def uniform(rngs: nnx.Rngs, bound: float, *shape: int) -> nnx.Param[Array]:
    """Return numbers uniform within a bound of 0, as PyTorch's kernels and biases start."""
    return nnx.Param(jax.random.uniform(rngs.params(), shape, jnp.float32, -bound, bound))


class Linear(nnx.Module):
    """A dense layer; kernel and optional bias start uniform within 1/sqrt(inputs) of 0."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True, rngs: nnx.Rngs):
        bound = inputs**-0.5
        self.kernel = uniform(rngs, bound, inputs, outputs)
        self.bias = uniform(rngs, bound, outputs) if bias else None

    def __call__(self, x: Float[Array, "n i"]) -> Float[Array, "n o"]:
        """Apply the layer."""
        y = x @ self.kernel[...]
        return y if self.bias is None else y + self.bias[...][None]


class LinearPerLabel(nnx.Module):
    """A dense layer for every label, each with its own kernel, bias and, optionally, batch norm.

    In train mode rows must come in equal groups, label 0 first: each batch norm sees its own group.
    Otherwise labels may come in any order.

    Args:
        num_labels: number of layers.
        inputs: of each layer.
        outputs: of each layer.
        channels: of each batch norm, which pools outputs that are equal modulo this number:
            `outputs` normalises every unit on its own, fewer the channels of maps; 0 for none.
        rngs: of the initial values.
    """

    def __init__(
        self, num_labels: int, inputs: int, outputs: int, channels: int, *, rngs: nnx.Rngs
    ):
        bound = inputs**-0.5
        self.kernel = uniform(rngs, bound, num_labels, inputs, outputs)
        self.bias = uniform(rngs, bound, num_labels, outputs)
        self.norm = BatchNorm((num_labels, channels)) if channels else None
        self.channels = channels

    def __call__(
        self, x: Float[Array, "n i"], labels: Int[Array, " n"], *, train: bool
    ) -> Float[Array, "n o"]:
        """Apply each row's own layer and batch norm."""
        kernel, bias = self.kernel[...], self.bias[...]
        if train:
            groups = x.reshape(len(kernel), -1, x.shape[1])
            outputs = jnp.einsum("gri,gio->gro", groups, kernel) + bias[:, None]
            outputs = outputs.reshape(len(x), -1)
        else:
            # Row by row: a kernel gathered for every row takes gigabytes for images.
            outputs = jax.lax.map(lambda row: row[0] @ kernel[row[1]] + bias[row[1]], (x, labels))
        if self.norm is None:
            return outputs
        rows = outputs.reshape(-1, self.channels)
        if train:
            rows = self.norm(rows.reshape(len(kernel), -1, self.channels), train=True)
        else:
            rows = self.norm.by_running(rows, jnp.repeat(labels, len(rows) // len(labels)))
        return rows.reshape(outputs.shape)


class BatchNorm(nnx.Module):
    """Batch norm over the second-to-last axis; the running variance is unbiased."""

    def __init__(self, shape: int | tuple[int, ...]):
        self.scale = nnx.Param(jnp.ones(shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(shape, jnp.float32))
        self.mean = nnx.BatchStat(jnp.zeros(shape, jnp.float32))
        self.var = nnx.BatchStat(jnp.ones(shape, jnp.float32))

    def __call__(self, x: Float[Array, "*g n w"], *, train: bool) -> Float[Array, "*g n w"]:
        """Normalise: in train mode by the batch's moments, which update the running ones."""
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
    """The elementwise maximum of several dense layers [Goodfellow et al. 2013]."""

    def __init__(self, inputs: int, outputs: int, pieces: int, *, rngs: nnx.Rngs):
        self.linear = Linear(inputs, outputs * pieces, rngs=rngs)
        self.outputs = outputs

    def __call__(self, x: Float[Array, "n i"]) -> Float[Array, "n o"]:
        """Apply the layers; unit j of piece p is column p * outputs + j."""
        pieces = self.linear(x).reshape(len(x), -1, self.outputs)
        return jnp.max(pieces, axis=1)


class LabelEmbedding(nnx.Module):
    """A unit vector for every label."""

    def __init__(self, num_labels: int, dim: int, *, rngs: nnx.Rngs):
        self.table = nnx.Param(jax.random.normal(rngs.params(), (num_labels, dim), jnp.float32))

    def __call__(self, labels: Int[Array, " n"]) -> Float[Array, "n d"]:
        """Look up the labels' vectors."""
        rows = self.table[...]
        return (rows / jnp.linalg.norm(rows, axis=1, keepdims=True))[labels]


def label_embedding(
    num_labels: int, latent_dim: int, dim: int, *, rngs: nnx.Rngs
) -> tuple[LabelEmbedding | None, int]:
    """Return the labels' vectors, None for one label, and the length of what `with_label` returns.

    Args:
        num_labels: number of labels.
        latent_dim: length of a latent.
        dim: length of a label's vector.
        rngs: of the initial values.
    """
    if num_labels == 1:
        return None, latent_dim
    return LabelEmbedding(num_labels, dim, rngs=rngs), latent_dim + dim


def with_label(
    z: Float[Array, "n d"], labels: Int[Array, " n"], embedding: LabelEmbedding | None
) -> Float[Array, "n e"]:
    """Join each latent with its label's vector; without an embedding return the latents."""
    return z if embedding is None else jnp.concatenate([z, embedding(labels)], axis=1)


def first_layer(
    num_labels: int,
    latent_dim: int,
    dim: int,
    outputs: int,
    *,
    per_label: bool,
    channels: int = 0,
    rngs: nnx.Rngs,
) -> tuple[LabelEmbedding | None, Linear | LinearPerLabel]:
    """Return the labels' vectors and a generator's first layer; see `of_first`.

    Args:
        num_labels: number of labels.
        latent_dim: length of a latent.
        dim: length of a label's vector.
        outputs: of the layer.
        per_label: whether every label has a layer of its own, as in MGAN, instead of a vector.
        channels: of the batch norms of these layers; see `LinearPerLabel`.
        rngs: of the initial values.
    """
    if per_label:
        return None, LinearPerLabel(num_labels, latent_dim, outputs, channels, rngs=rngs)
    embedding, inputs = label_embedding(num_labels, latent_dim, dim, rngs=rngs)
    return embedding, Linear(inputs, outputs, rngs=rngs)


def of_first(
    first: Linear | LinearPerLabel,
    embedding: LabelEmbedding | None,
    z: Float[Array, "n d"],
    labels: Int[Array, " n"],
    *,
    train: bool,
) -> Float[Array, "n o"]:
    """Apply what `first_layer` returned; layers per label train on equal groups, in order."""
    if isinstance(first, LinearPerLabel):
        return first(z, labels, train=train)
    return first(with_label(z, labels, embedding))
