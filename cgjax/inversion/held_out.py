"""How sure an inversion is, from images of the generator's own whose latents are known."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

NEIGHBOURS = 50
"""Held-out images with the nearest margins, by which a margin is judged."""


class Limits(NamedTuple):
    """How poor a reconstruction of an image may be that the generator makes.

    Both count: of a smooth image any smooth one differs by little in its pixels, and the encoder
    does not see every detail.

    Attributes:
        errors: of `Found.errors`.
        features: of `Found.features`.
    """

    errors: float
    features: float

    def keeps(
        self, errors: Float[np.ndarray, " n"], features: Float[np.ndarray, " n"]
    ) -> Bool[np.ndarray, " n"]:
        """Whether reconstructions are good enough."""
        return (errors <= self.errors) & (features <= self.features)


NO_LIMITS = Limits(float("inf"), float("inf"))
"""Everything is good enough."""


class HeldOut(NamedTuple):
    """Images of the generator's own, inverted like anybody's.

    Attributes:
        truth: (m, d) float32 latents that made them.
        latents: (m, d) float32 latents that were found.
        guesses: (m, d) float32, the encoder's alone.
        errors: (m,) float32, as `Found.errors`.
        features: (m,) float32, as `Found.features`.
    """

    truth: Float[np.ndarray, "m d"]
    latents: Float[np.ndarray, "m d"]
    guesses: Float[np.ndarray, "m d"]
    errors: Float[np.ndarray, " m"]
    features: Float[np.ndarray, " m"]

    def limits(self, quantile: float) -> Limits:
        """Return the limits that at least this share of the generator's own images keeps.

        Each of the two is left to half of the others, as far as this sample tells.
        """
        each = (1 + quantile) / 2
        return Limits(*(float(np.quantile(part, each)) for part in (self.errors, self.features)))

    def share_below(self, errors: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Return of each error the share of the held-out images that have a lesser one."""
        return np.searchsorted(np.sort(self.errors), errors) / len(self.errors)


def num_right(
    margins: Float[np.ndarray, " n"],
    known: Float[np.ndarray, " m"],
    is_right: Bool[np.ndarray, " m"],
) -> Int[np.ndarray, " n"]:
    """Return how many of the held-out images with margins like these were assigned rightly.

    Args:
        margins: of the images in question.
        known: of the held-out images, from the latents that were found.
        is_right: whether these were assigned as their true latents are.

    Returns:
        Of each margin, how many of the `NEIGHBOURS` (or m, if that is less) with the nearest
        margins are right.

    Example:
        >>> known, is_right = np.arange(100.0), np.arange(100) >= 30
        >>> num_right(np.array([0.0, 99.0]), known, is_right).tolist()
        [20, 50]
    """
    num = min(NEIGHBOURS, len(known))
    nearest = np.argsort(np.abs(margins[:, None] - known[None]), axis=1, kind="stable")[:, :num]
    return is_right[nearest].sum(axis=1)
