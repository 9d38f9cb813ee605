"""A tiny generator with a planted attribute, so that a test knows the true cluster.

Its images are discs left or right of the centre: the side is the sign of the first latent
coordinate, and everything else (height, tint, exact position) depends on the others.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from cgjax.generators.base import PretrainedGenerator
from cgjax.generators.staged import Inputs, StagedNetwork, State

SIZE = 16


class PlantedDiscs(StagedNetwork):
    """Layers `layer1` (n, 1, 1, 4): the disc's parameters; `layer2` (n, 16, 16, 1): its mask."""

    family = "planted"
    layers = ("layer1", "layer2")
    latent_dim = 6
    image_size = SIZE
    image_channels = 3

    def __init__(self) -> None:
        self.colour = nnx.Param(jnp.array([[0.9, 0.2, -0.4], [-0.3, 0.6, 0.8]], jnp.float32))

    def begin(self, z: Float[Array, "n d"], inputs: Inputs) -> State:
        """Start from the latent."""
        return {"h": z}

    def stage(self, index: int, state: State) -> State:
        """Place the disc, then draw it."""
        h = state["h"]
        if index == 0:
            side = jnp.tanh(8.0 * h[:, 0])  # two modes with a thin bridge between them
            place = jnp.stack([side, 0.2 * h[:, 1], 0.3 * h[:, 2], 0.3 * h[:, 3]], axis=1)
            return {"h": place[:, None, None, :]}
        p = h[:, 0, 0]
        grid = jnp.linspace(-1.0, 1.0, SIZE, dtype=jnp.float32)
        x = grid[None, None, :] - 0.5 * p[:, 0, None, None]
        y = grid[None, :, None] - 0.5 * p[:, 1, None, None]
        disc = jax.nn.sigmoid(24.0 * (0.35 - jnp.sqrt(x * x + y * y + 1e-6)))
        tint = 1.0 + 0.1 * jnp.tanh(p[:, 2])
        return {"h": (disc * tint[:, None, None])[..., None]}

    def end(self, state: State) -> Float[Array, "n s s c"]:
        """Colour the mask."""
        ink, paper = self.colour[...]
        mask = jnp.clip(state["h"], 0.0, 1.0)
        return mask * ink[None, None, None] + (1 - mask) * paper[None, None, None]


def make_planted() -> PretrainedGenerator:
    """Return the generator; usable as `--config.generator.name=cgjax.testing.planted:make_planted`.

    Example:
        >>> gen = make_planted()
        >>> gen.features(jnp.ones((2, 6), jnp.float32), "layer2").shape
        (2, 16, 16, 1)
    """
    return PretrainedGenerator(PlantedDiscs())


def true_side(z: Float[Array | np.ndarray, "n d"]) -> Int[Array, " n"]:
    """Return the planted attribute: 1 where the disc is on the right, else 0."""
    return (jnp.asarray(z)[:, 0] > 0).astype(jnp.int32)
