"""Compute the features of latents, all in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from cgjax.errors import UserError
from cgjax.features.spaces import RAW, Space, fit_space, num_fit_rows
from cgjax.generators.batching import in_batches
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.runtime.memory import empty_aligned


def size_to_cluster(
    generator: ConditionedGenerator, num_rows: int, settings: Mapping[str, Any]
) -> float:
    """Return how many MB the features to cluster take.

    Args:
        generator: the generator and its layer.
        num_rows: of features.
        settings: the config's `cluster`.

    Raises:
        UserError: more than `memory_mb`, for a method that holds all of them in memory.
    """
    shape = generator.feature_shape
    dim = shape[-1] if settings["space"] == "pooled" else math.prod(shape)
    size_mb = 4 * num_rows * dim / 2**20
    for name, streamed in (("trimmed", 0), ("backend", "jax")):
        if size_mb > settings["memory_mb"] and settings[name] != streamed:
            raise UserError(
                f"the features of {num_rows} latents at {generator.layer} take {size_mb:.0f} MB "
                f"and {name}={settings[name]} holds them in memory; raise "
                f"--config.cluster.memory_mb or use --config.cluster.{name}={streamed}"
            )
    return size_mb


def features_in(
    generator: ConditionedGenerator,
    latents: Float[np.ndarray, "n d"],
    space: Space = RAW,
    on_rows: Callable[[int], None] | None = None,
) -> Float[np.ndarray, "n g"]:
    """Return the features of all latents in a space, in memory.

    Args:
        generator: the generator and its layer.
        latents: (n, d) float32.
        space: the space that they are mapped to.
        on_rows: called after every batch with the number of rows done; may raise to stop.

    Returns:
        (n, g) float32, aligned to 64 bytes, which JAX on a CPU uses without a copy: a copy of a
        run's largest array would double its memory.
    """
    dim = space.output_dim or math.prod(generator.feature_shape)

    def mapped(z: Array) -> Array:
        return space(generator.features(z))

    out = empty_aligned((len(latents), dim))
    return in_batches(mapped, latents, generator.batch, out=out, on_rows=on_rows)


def space_at(
    generator: ConditionedGenerator, latents: Float[np.ndarray, "n d"], name: str
) -> Space:
    """Fit a space to the features of the first latents.

    Args:
        generator: the generator and its layer.
        latents: (n, d) float32; the first `num_fit_rows` are encoded, none for "raw".
        name: the space's name.
    """
    if name == "raw":
        return RAW
    shape = generator.feature_shape
    rows = generator.all_features(latents[: num_fit_rows(len(latents), math.prod(shape))])
    return fit_space(name, rows, num_channels=shape[-1])
