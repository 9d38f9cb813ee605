"""The features that distances are measured in: how a setting names them, as in `inception:FILE`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from cgjax.runtime.imports import is_import_path

PIXELS, RANDOM_CNN, LAYER, INCEPTION = "pca_pixels", "random_cnn", "layer", "inception"
OWN = "package.module:function"

FORMS = {
    PIXELS: "pca_pixels",
    RANDOM_CNN: "random_cnn",
    LAYER: "layer:NAME",
    INCEPTION: "inception:FILE",
    OWN: OWN,
}
"""How each kind is written. What follows the colon is the argument; of the user's own function it
is the whole text."""

OF_IMAGES = (PIXELS, RANDOM_CNN, INCEPTION, OWN)
"""The kinds that need images alone, so that a training can use them."""

DIMS = {RANDOM_CNN: 416, INCEPTION: 2048}
"""Dimensions of the features. With fewer images their covariance is singular, and a Frechet
distance meaningless. `pca_pixels` and layers take fewer components instead."""


class Feature(NamedTuple):
    """A feature as a setting names it.

    Attributes:
        kind: one of `FORMS`.
        argument: the layer's name, the file's or the function's path; empty for the other kinds.
    """

    kind: str
    argument: str = ""


def parse_feature(text: Any, kinds: Collection[str] = tuple(FORMS)) -> Feature | None:
    """Read the name of a feature; None if it is not one of these kinds.

    Example:
        >>> parse_feature("layer:layer2"), parse_feature("layer"), parse_feature("pixels")
        (Feature(kind='layer', argument='layer2'), None, None)
        >>> parse_feature("mine:features").kind == OWN, parse_feature("mine:features").argument
        (True, 'mine:features')
    """
    if not isinstance(text, str):
        return None
    kind = kind_of_feature(text)
    argument = text if kind == OWN else text.partition(":")[2]
    is_known = kind in kinds and bool(argument) == (":" in FORMS[kind])
    return Feature(kind, argument) if is_known else None


def kind_of_feature(text: str) -> str:
    """Return the kind of a feature whose name has been checked."""
    kind = text.partition(":")[0]
    return OWN if kind not in FORMS and is_import_path(text) else kind


def expected_feature(kinds: Collection[str] = tuple(FORMS)) -> str:
    """Return how features of these kinds are named, for messages.

    Example:
        >>> expected_feature(OF_IMAGES)
        'pca_pixels, random_cnn, inception:FILE or package.module:function'
    """
    *first, last = [FORMS[kind] for kind in kinds]
    return f"{', '.join(first)} or {last}"
