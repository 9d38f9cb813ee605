"""Names that judges propose for clusters: never applied by themselves, always marked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from cgjax.evaluation.explained import adjusted_eta_squared, attribute_in, chance

UNLIKELY = 0.05
"""How probable groups drawn by lot may be to explain an attribute as well, of all together."""

LEAST = 0.1
"""Share of an attribute's variance that lies between the clusters, below which nothing is said."""

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
"""What less and more of an attribute is called, and its value."""

SIGNED = ("face_mesh.yaw",)
"""Attributes with a middle of their own: a side is a side of zero."""


class Proposal(NamedTuple):
    """A name that a judge proposes.

    Attributes:
        text: as in "turned left, -17 degrees".
        judge: its name.
        attribute: that it saw.
        share: of the attribute's variance that the clusters explain.
    """

    text: str
    judge: str
    attribute: str
    share: float


def propose(
    values: Mapping[str, Float[np.ndarray, " m"]], labels: Int[np.ndarray, " m"], num: int
) -> list[Proposal | None]:
    """Return a name for every cluster, by the attribute that the clusters explain best.

    Args:
        values: of m images by "judge.attribute"; NaN where a judge cannot tell.
        labels: the clusters of the same images.
        num: how many clusters there are.

    Returns:
        For each cluster a proposal; None where no attribute's variance lies to `LEAST` between the
        clusters, where groups drawn by lot would do as well, or where the cluster's mean is not
        told from that of all images.

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
    found: list[Proposal | None] = []
    for c in range(num):
        own = attribute_in(values[best][labels == c])
        is_told = own.low > middle or own.high < middle
        word = more if own.mean > middle else less
        text = f"{word}, {shown.format(own.mean)}"
        found.append(Proposal(text, judge, attribute, shares[best]) if is_told else None)
    return found
