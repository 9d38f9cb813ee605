"""What the trained samplers share: drawing members, a plain network, a step of Adam."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from cgjax.samplers.base import Members


def draw_members(members: Members, key: PRNGKeyArray, rows: int) -> Float[Array, "k b d"]:
    """Draw `rows` members of every cluster, with replacement; an empty cluster gives zeros."""
    k = members.counts.shape[0]
    u = jax.random.uniform(key, (k, rows), jnp.float32)
    index = jnp.floor(u * members.counts[:, None].astype(jnp.float32)).astype(jnp.int32)
    index = jnp.clip(index, 0, jnp.maximum(members.counts[:, None] - 1, 0))
    return jnp.take_along_axis(members.latents, index[..., None], axis=1)


def num_batches(members: Members, batch: int) -> int:
    """Return the steps that pass once over the largest cluster."""
    return max(1, members.latents.shape[1] // batch)


def init_dense(key: PRNGKeyArray, dims: tuple[int, ...]) -> list[dict[str, Array]]:
    """Return dense layers with biases, uniform within 1/sqrt(inputs)."""
    keys = jax.random.split(key, len(dims) - 1)
    return [
        {
            "kernel": jax.random.uniform(k, (i, o), jnp.float32, -(i**-0.5), i**-0.5),
            "bias": jnp.zeros(o, jnp.float32),
        }
        for k, (i, o) in zip(keys, itertools.pairwise(dims), strict=True)
    ]


def dense(params: list[dict[str, Array]], x: Float[Array, "n i"]) -> Float[Array, "n o"]:
    """Apply dense layers with leaky ReLU (0.2) between them."""
    for i, layer in enumerate(params):
        x = x @ layer["kernel"] + layer["bias"][None]
        if i < len(params) - 1:
            x = jax.nn.leaky_relu(x, 0.2)
    return x


def update(
    adam: optax.GradientTransformation, gradient: Any, moments: Any, params: Any, rate: float
) -> tuple[Any, Any]:
    """Take one step down the gradient; returns parameters and moments."""
    with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an int32 power
        step, moments = adam.update(gradient, moments)
    return optax.apply_updates(params, jax.tree.map(lambda u: -rate * u, step)), moments
