"""What images are assigned to, a run's clusters or a generator's labels, and how reliably.

An image belongs to the group of its inverted latent. Held-out images, whose true latents are known,
tell how often that is right.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from cgjax.inversion.held_out import HeldOut, Limits
from cgjax.numerics.intervals import wilson_interval
from cgjax.regions.clustering import assign_latents
from cgjax.run.run import Run

FOREIGN = "not something this generator makes"


@runtime_checkable
class Groups(Protocol):
    """What images are assigned to: the clusters of a run, or the labels of a generator.

    Attributes:
        names: that people gave them; an empty text for each without a name.
    """

    names: list[str]

    def of(
        self, latents: Float[np.ndarray, "n d"], guesses: Float[np.ndarray, "n d"]
    ) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Return the groups of latents and their margins.

        Args:
            latents: inverted or known.
            guesses: the encoder's latents of the same images.
        """

    def members(self, reliability: Reliability) -> list[Float[np.ndarray, " m"]]:
        """Return the margins of each group's members, ascending."""


class Clusters:
    """The clusters of a run: an image has the cluster and margin of its latent's features."""

    def __init__(self, run: Run):
        """Take the clusters of a run; they must be there."""
        self._run = run
        self.names = [entry["name"] or "" for entry in run.entries]

    def of(
        self, latents: Float[np.ndarray, "n d"], guesses: Float[np.ndarray, "n d"]
    ) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Assign latents as the clustering does; the guesses are not used."""
        return assign_latents(self._run.clustering, self._run.generator, latents)

    def members(self, reliability: Reliability) -> list[Float[np.ndarray, " m"]]:
        """Return the margins of the run's own latents."""
        return sorted_by_group(self._run.clustering.margins, self._run.clustering.labels, self)


class Labels:
    """The labels of a generator: an image has the label of its latent.

    Its margin is the encoder's probability of that label minus that of the likeliest other label.
    """

    def __init__(self, num: int):
        """Take the number of labels; if it is 0, all images are in one group."""
        self._num, self.names = num, [""] * max(1, num)

    def of(
        self, latents: Float[np.ndarray, "n d"], guesses: Float[np.ndarray, "n d"]
    ) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Read the labels from the latents, and the encoder's probabilities from its guesses."""
        if not self._num:
            return np.zeros(len(latents), np.int32), np.ones(len(latents), np.float32)
        labels = latents[:, -self._num :].argmax(axis=1).astype(np.int32)
        others = guesses[:, -self._num :].copy()
        rows = np.arange(len(labels))
        own = others[rows, labels]
        others[rows, labels] = 0
        return labels, own - others.max(axis=1)

    def members(self, reliability: Reliability) -> list[Float[np.ndarray, " m"]]:
        """Return the margins of the held-out images."""
        return sorted_by_group(reliability.margins, reliability.labels, self)


def sorted_by_group(
    margins: Float[np.ndarray, " m"], labels: Int[np.ndarray, " m"], groups: Groups
) -> list[Float[np.ndarray, " _"]]:
    """Return the margins of each group's members, ascending."""
    return [np.sort(margins[labels == c]) for c in range(len(groups.names))]


class Reliability(NamedTuple):
    """How reliably images are assigned to groups, measured with held-out images.

    Attributes:
        held: the held-out images.
        labels: (m,) the groups of the inverted latents.
        margins: (m,) their margins.
        is_right: (m,) whether the true latents are in the same groups.
        encoder_right: (m,) whether the encoder's guesses are in the groups of the true latents.
        limits: an image beyond them counts as not made by the generator.
        num: how many groups there are.
    """

    held: HeldOut
    labels: Int[np.ndarray, " m"]
    margins: Float[np.ndarray, " m"]
    is_right: Bool[np.ndarray, " m"]
    encoder_right: Bool[np.ndarray, " m"]
    limits: Limits
    num: int

    def __str__(self) -> str:
        """Summarise it in two lines, or one if there is only one group."""

        def share(is_right: Bool[np.ndarray, " m"]) -> str:
            low, high = wilson_interval(int(is_right.sum()), len(is_right))
            return f"{is_right.mean():.1%} ({low:.1%} to {high:.1%})"

        right = (
            f"{share(self.is_right)} get the cluster of their true latent, with the encoder alone "
            f"{share(self.encoder_right)}\n"
        )
        return (
            f"of {len(self.is_right)} held-out images of the generator's own, "
            f"{right if self.num > 1 else ''}"
            f"the median of their reconstruction errors is {np.median(self.held.errors):.4f}, of "
            f"encoder_features {np.median(self.held.features):.4f}; an image with more than "
            f"{self.limits.errors:.4f} or {self.limits.features:.4f} is {FOREIGN}"
        )


def reliability_of(groups: Groups, held: HeldOut, quantile: float) -> Reliability:
    """Return how reliably images are assigned to groups.

    Args:
        groups: the groups.
        held: the held-out images.
        quantile: share of the held-out images within the limits.
    """
    true, _ = groups.of(held.truth, held.truth)
    labels, margins = groups.of(held.latents, held.guesses)
    guessed, _ = groups.of(held.guesses, held.guesses)
    limits = held.limits(quantile)
    num = len(groups.names)
    return Reliability(held, labels, margins, labels == true, guessed == true, limits, num)
