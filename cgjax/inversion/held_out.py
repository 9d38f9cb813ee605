"""How reliable inversions are, measured on generated images, whose latents are known."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

NEIGHBOURS = 50
"""Number of held-out images, those with the nearest margins, that a margin is judged by."""


class Limits(NamedTuple):
    """The largest reconstruction errors of images that the generator can make.

    Both are needed: two smooth images differ little in their pixels, and the encoder does not see
    every detail.

    Attributes:
        errors: limit of `Inverted.errors`.
        features: limit of `Inverted.features`.
    """

    errors: float
    features: float

    def keeps(
        self, errors: Float[np.ndarray, " n"], features: Float[np.ndarray, " n"]
    ) -> Bool[np.ndarray, " n"]:
        """Whether reconstructions are within the limits."""
        return (errors <= self.errors) & (features <= self.features)


NO_LIMITS = Limits(float("inf"), float("inf"))
"""Limits that every reconstruction keeps."""


class HeldOut(NamedTuple):
    """Generated images, inverted like any others.

    Attributes:
        truth: (m, d) float32, their true latents.
        latents: (m, d) float32, the latents found by inversion.
        guesses: (m, d) float32, the encoder's guesses alone.
        errors: (m,) float32, as `Inverted.errors`.
        features: (m,) float32, as `Inverted.features`.
    """

    truth: Float[np.ndarray, "m d"]
    latents: Float[np.ndarray, "m d"]
    guesses: Float[np.ndarray, "m d"]
    errors: Float[np.ndarray, " m"]
    features: Float[np.ndarray, " m"]

    def limits(self, quantile: float) -> Limits:
        """Return limits that at least this share of the held-out images keeps.

        Each of the two limits is exceeded by half of the remaining share.
        """
        each = (1 + quantile) / 2
        return Limits(*(float(np.quantile(part, each)) for part in (self.errors, self.features)))

    def share_below(self, errors: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Return for each error the share of held-out images with a smaller one."""
        return np.searchsorted(np.sort(self.errors), errors) / len(self.errors)


def num_right(
    margins: Float[np.ndarray, " n"],
    known: Float[np.ndarray, " m"],
    is_right: Bool[np.ndarray, " m"],
) -> Int[np.ndarray, " n"]:
    """Return how many of the held-out images with similar margins were assigned correctly.

    Args:
        margins: margins of the images to judge.
        known: margins of the held-out images, from the latents found by inversion.
        is_right: whether each of these was assigned to the cluster of its true latent.

    Returns:
        For each margin, how many of the `NEIGHBOURS` (or m, if fewer) held-out images with the
        nearest margins are right.

    Example:
        >>> known, is_right = np.arange(100.0), np.arange(100) >= 30
        >>> num_right(np.array([0.0, 99.0]), known, is_right).tolist()
        [20, 50]
    """
    num = min(NEIGHBOURS, len(known))
    nearest = np.argsort(np.abs(margins[:, None] - known[None]), axis=1, kind="stable")[:, :num]
    return is_right[nearest].sum(axis=1)
