"""Mixtures of equal Gaussians in the plane: the ring and the grids whose modes are counted.

    x = mu_m + sd e,    m uniform over the modes, e ~ N(0, I)

[Liu et al. 2020, section 4.2]. The paper's ring has radius 1; its code has 2.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from cgjax.endtoend.data.base import DataSet, Points
from cgjax.errors import UserError
from cgjax.evaluation.modes import PerfectScore, mode_scores, perfect_scores
from cgjax.runtime.keys import named_key


@dataclasses.dataclass(frozen=True)
class Mixture(DataSet):
    """Equal Gaussians around given means.

    Attributes:
        centres: the means, pairs of numbers.
        sd: standard deviation of every Gaussian along each axis.
    """

    centres: tuple[tuple[float, float], ...]
    sd: float

    @property
    def num_classes(self) -> int:
        """Number of Gaussians."""
        return len(self.centres)

    def row_shape(self) -> tuple[int, ...]:
        """Return the shape of a point."""
        return (2,)

    @property
    def means(self) -> Float[np.ndarray, "m 2"]:
        """The means as an array."""
        return np.array(self.centres, np.float64)

    def draw(self, key: PRNGKeyArray, num: int) -> Points:
        """Draw independent points; the same key gives the same points.

        Example:
            >>> ring(1.0).draw(jax.random.key(0), 5).rows.shape
            (5, 2)
        """
        key_mode, key_noise = jax.random.split(key)
        classes = jax.random.randint(key_mode, (num,), 0, self.num_classes, jnp.int32)
        noise = jax.random.normal(key_noise, (num, 2), jnp.float32)
        means = jnp.asarray(self.means, jnp.float32)
        return Points(means[classes] + jnp.float32(self.sd) * noise, classes)

    def images(self, rows: Float[np.ndarray, "n 2"]) -> None:
        """Return None: points are plotted, not shown as images."""
        return

    def scores(self, rows: Float[np.ndarray, "n 2"]) -> dict[str, float]:
        """Return how well generated points cover the modes; see `evaluation.modes`."""
        return mode_scores(rows, self.means, self.sd)._asdict()

    def perfect(self, key: PRNGKeyArray, num: int, repeats: int) -> dict[str, PerfectScore]:
        """Return what a perfect sampler scores with `num` points, over repeated draws."""

        def draw(repeat: int) -> np.ndarray:
            return np.asarray(self.draw(named_key(key, "perfect", repeat), num).rows)

        return perfect_scores(draw, self.means, self.sd, repeats=repeats)


def ring(radius: float = 1.0, num_modes: int = 8) -> Mixture:
    """Return Gaussians of variance 1e-4, evenly spaced on a circle; the paper's radius is 1.

    Raises:
        UserError: a radius that is not above 0.
    """
    if not radius > 0:
        raise UserError(f"--config.data.radius={radius}: expected a number above 0")
    turns = (2 * math.pi * i / num_modes for i in range(num_modes))
    return Mixture(tuple((radius * math.cos(t), radius * math.sin(t)) for t in turns), 0.01)


def grid(side: int = 5) -> Mixture:
    """Return side x side Gaussians of variance 0.0025, two apart, around the origin."""
    ticks = [2.0 * i - (side - 1) for i in range(side)]
    return Mixture(tuple((x, y) for x in ticks for y in ticks), 0.05)
