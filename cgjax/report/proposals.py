"""Names that judges propose for clusters: marked as proposals, never applied by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from cgjax.evaluation.explained import adjusted_eta_squared, attribute_in, chance

UNLIKELY = 0.05
"""Largest probability that random groups explain any of the attributes as well."""

LEAST = 0.1
"""Share of an attribute's variance between the clusters below which nothing is proposed."""

WORDS = {
    "face_mesh.yaw": ("turned left", "turned right", "{:+.0f} degrees"),
    "face_mesh.pitch": ("looking up", "looking down", "{:+.0f} degrees"),
    "face_mesh.face": ("no clear face", "a clear face", "face probability {:.2f}"),
    "age_gender.apparent_female": ("apparently male", "apparently female", "{:.2f}"),
    "age_gender.apparent_age": ("apparently younger", "apparently older", "{:.0f} years"),
    "image_statistics.brightness": ("dark", "bright", "brightness {:.2f}"),
    "image_statistics.saturation": ("pale", "colourful", "saturation {:.2f}"),
    "image_statistics.contrast": ("low contrast", "high contrast", "contrast {:.2f}"),
    "image_statistics.left_right": ("brighter on the right", "brighter on the left", "{:+.2f}"),
    "image_statistics.up_down": ("brighter at the bottom", "brighter at the top", "{:+.2f}"),
}
"""What less and more of an attribute is called, and the format of its value."""

SIGNED = ("face_mesh.yaw",)
"""Attributes whose sides are told apart at zero, not at the mean of all images."""


class Proposal(NamedTuple):
    """A name that a judge proposes.

    Attributes:
        text: for example "turned left, -17 degrees".
        judge: the judge's name.
        attribute: the attribute that the judge measures.
        share: share of the attribute's variance that the clusters explain.
    """

    text: str
    judge: str
    attribute: str
    share: float


def propose(
    values: Mapping[str, Float[np.ndarray, " m"]], labels: Int[np.ndarray, " m"], num: int
) -> list[Proposal | None]:
    """Propose a name for every cluster, from the attribute that the clusters explain best.

    Args:
        values: for each "judge.attribute", its values for m images; NaN where a judge cannot tell.
        labels: (m,) the clusters of the same images.
        num: number of clusters.

    Returns:
        A proposal for each cluster. None if the clusters explain less than `LEAST` of every
        attribute's variance, if random groups would explain as much, or if the interval of the
        cluster's mean includes the mean of all images.

    Example:
        >>> seen = {"face_mesh.yaw": np.array([-20.0, -17, -14, 12, 14, 16])}
        >>> [p.text for p in propose(seen, np.array([0, 0, 0, 1, 1, 1]), 2)]
        ['turned left, -17 degrees', 'turned right, +14 degrees']
    """
    shares = {}
    for name, judged in values.items():
        if chance(judged, labels) < UNLIKELY / len(values):
            shares[name] = adjusted_eta_squared(judged, labels)
    best = max(shares, key=shares.__getitem__, default=None)
    if best is None or shares[best] < LEAST:
        return [None] * num
    middle = 0.0 if best in SIGNED else float(np.nanmean(values[best]))
    judge, _, attribute = best.rpartition(".")
    less, more, shown = WORDS.get(
        best, (f"little {attribute}", f"much {attribute}", attribute + " {:.3g}")
    )
    proposals: list[Proposal | None] = []
    for c in range(num):
        mean = attribute_in(values[best][labels == c])
        is_distinct = mean.low > middle or mean.high < middle
        word = more if mean.mean > middle else less
        text = f"{word}, {shown.format(mean.mean)}"
        proposals.append(Proposal(text, judge, attribute, shares[best]) if is_distinct else None)
    return proposals
