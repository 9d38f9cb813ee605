"""What training asks of a data set."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from cgjax.evaluation.modes import Expected


class Points(NamedTuple):
    """Rows of a data set and what they truly are.

    Attributes:
        rows: (n, ...) float32.
        classes: (n,) int32, the mode that each was drawn from.
    """

    rows: Float[Array, "*trials n dim"]
    classes: Int[Array, "*trials n"]


@runtime_checkable
class DataSet(Protocol):
    """A law to draw training rows from, or rows that are there."""

    @property
    def num_classes(self) -> int:
        """How many true classes there are."""

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of a row."""

    def draw(self, key: PRNGKeyArray, num: int) -> Points:
        """Draw training rows; the same key gives the same ones."""

    def scores(self, rows: Float[np.ndarray, "n ..."]) -> dict[str, float]:
        """Return how good generated rows are, by name; empty where nothing can be said."""

    def perfect(self, key: PRNGKeyArray, num: int, repeats: int) -> dict[str, Expected]:
        """Return what a perfect sampler scores with as many rows, for the same names."""
