"""Features of latents, all in memory."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cgjax.generators.base import PretrainedGenerator
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.runtime.memory import empty_aligned


def feature_dim(
    generator: ConditionedGenerator, latents: Float[np.ndarray, "n d"]
) -> tuple[int, ...]:
    """Return the shape of one latent's activation."""

    def features(z: Array) -> Array:
        return generator.gen.features(z, generator.layer, **generator.keywords)

    if isinstance(generator.gen, PretrainedGenerator):
        # Nothing is computed, and a batch's own forward pass need not be traced again.
        shape = (generator.batch, latents.shape[1])
        one = jax.eval_shape(features, jax.ShapeDtypeStruct(shape, jnp.float32))
    else:
        one = features(jnp.asarray(latents[:1]))
    return tuple(one.shape[1:])


def all_features(
    generator: ConditionedGenerator,
    latents: Float[np.ndarray, "n d"],
    on_rows: Callable[[int], None],
) -> Float[np.ndarray, "n f"]:
    """Return the features of all latents, in memory.

    Args:
        generator: the generator and its layer.
        latents: (n, d) float32.
        on_rows: called after every batch with the number of rows done; may raise to stop.

    Returns:
        (n, f) float32 at a multiple of 64 bytes, which JAX takes on a CPU as it is: a copy of the
        largest array of a run would double its memory.
    """
    features = empty_aligned((len(latents), math.prod(feature_dim(generator, latents))))
    return generator.all_features(latents, out=features, on_rows=on_rows)
