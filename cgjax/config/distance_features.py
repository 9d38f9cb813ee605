"""The features that distances are measured in: how a setting names them, as in `inception:FILE`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

PIXELS, RANDOM_CNN, LAYER, INCEPTION = "pca_pixels", "random_cnn", "layer", "inception"

ARGUMENTS = {PIXELS: "", RANDOM_CNN: "", LAYER: "NAME", INCEPTION: "FILE"}
"""What follows the colon of each kind; nothing, and no colon, if it is empty."""

OF_IMAGES = (PIXELS, RANDOM_CNN, INCEPTION)
"""The kinds that need images alone, so that a training can use them."""

DIMS = {RANDOM_CNN: 416, INCEPTION: 2048}
"""Dimensions of the features. With fewer images their covariance is singular, and a Frechet
distance meaningless. `pca_pixels` and layers take fewer components instead."""


class Feature(NamedTuple):
    """A feature as a setting names it.

    Attributes:
        kind: one of `ARGUMENTS`.
        argument: the layer's name or the file's path; empty for the other kinds.
    """

    kind: str
    argument: str = ""


def parse_feature(text: Any, kinds: Collection[str] = tuple(ARGUMENTS)) -> Feature | None:
    """Read the name of a feature; None if it is not one of these kinds.

    Example:
        >>> parse_feature("layer:layer2"), parse_feature("layer"), parse_feature("pixels")
        (Feature(kind='layer', argument='layer2'), None, None)
    """
    if not isinstance(text, str):
        return None
    kind, _, argument = text.partition(":")
    is_known = kind in kinds and bool(argument) == bool(ARGUMENTS[kind])
    return Feature(kind, argument) if is_known else None


def kind_of_feature(text: str) -> str:
    """Return the kind of a feature whose name has been checked."""
    return text.partition(":")[0]


def expected_feature(kinds: Collection[str] = tuple(ARGUMENTS)) -> str:
    """Return how features of these kinds are named, for messages.

    Example:
        >>> expected_feature(OF_IMAGES)
        'pca_pixels, random_cnn or inception:FILE'
    """
    *first, last = [f"{kind}:{ARGUMENTS[kind]}".rstrip(":") for kind in kinds]
    return f"{', '.join(first)} or {last}"
