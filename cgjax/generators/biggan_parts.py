"""What the two BigGANs have in common: norms, attention, truncated latents."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from cgjax.errors import UserError
from cgjax.generators.staged import Inputs, StagedNetwork, parameter
from cgjax.numerics.arguments import shown


def normalize(
    x: Float[Array, "n h w c"], mean: Float[Array, " c"], variance: Float[Array, " c"], eps: float
) -> Float[Array, "n h w c"]:
    """Subtract a mean and divide by a standard deviation."""
    return (x - mean[None, None, None]) * jax.lax.rsqrt(variance + eps)[None, None, None]


def modulate(
    x: Float[Array, "n h w c"],
    condition: Float[Array, "n e"],
    scale: Float[Array, "e c"],
    offset: Float[Array, "e c"],
) -> Float[Array, "n h w c"]:
    """Scale by 1 + scale(condition), shift by offset(condition)."""
    return x * (1 + condition @ scale)[:, None, None] + (condition @ offset)[:, None, None]


class Attention(nnx.Module):
    """Self-attention over the pixels, with keys and values pooled 2x2."""

    def __init__(self, width: int):
        def kernel(i: int, o: int) -> nnx.Param[Array]:
            return parameter(i, o, std=i**-0.5)

        self.query, self.key = kernel(width, width // 8), kernel(width, width // 8)
        self.value, self.out = kernel(width, width // 2), kernel(width // 2, width)
        self.gamma = parameter(mean=1.0)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        """Return x + gamma * attention(x)."""
        n, h, w, c = x.shape
        query = (x @ self.query[...]).reshape(n, h * w, -1)
        key = _pool(x @ self.key[...]).reshape(n, h * w // 4, -1)
        value = _pool(x @ self.value[...]).reshape(n, h * w // 4, -1)
        scores = jax.nn.softmax(jnp.einsum("nqc,nkc->nqk", query, key), axis=-1)
        attended = jnp.einsum("nqk,nkc->nqc", scores, value) @ self.out[...]
        return x + self.gamma[...] * attended.reshape(n, h, w, c)


def _pool(x: Float[Array, "n h w c"]) -> Float[Array, "n hh ww c"]:
    """Max-pool 2x2."""
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))


def need_latents(network: StagedNetwork, index: int, latents: Array | None) -> Inputs:
    """Return the latents as inputs, where resuming from a layer needs them.

    Raises:
        UserError: if there are no latents.
    """
    if latents is None:
        raise UserError(
            f"resuming {network.family} from {network.layers[index]!r} needs latents=z, the "
            "latents of the activation: every block reads them"
        )
    return {"latents": latents}


def check_truncation(truncation: Any) -> float:
    """Return the truncation t; 1 if None is given.

    Raises:
        UserError: if it is not a number in (0, 1].
    """
    try:
        t = 1.0 if truncation is None else float(truncation)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"truncation={shown(truncation)}: expected a number in (0, 1]") from error
    if not 0 < t <= 1:
        raise UserError(f"truncation={shown(truncation)} is not in (0, 1]; for example 0.4")
    return t


def truncated_latents(key: PRNGKeyArray, n: int, dim: int, t: float) -> Float[Array, "n d"]:
    """Draw n latents: a standard normal truncated to [-2, 2], times t."""
    return t * jax.random.truncated_normal(key, -2.0, 2.0, (n, dim), jnp.float32)
