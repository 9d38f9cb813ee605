"""What a data set is."""

from __future__ import annotations

import abc
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from cgjax.endtoend.data.on_disk import RowsOnDisk
from cgjax.evaluation.modes import PerfectScore


class Points(NamedTuple):
    """Rows of a data set and their true classes.

    Attributes:
        rows: (n, ...) as stored: float32, uint8 for images, or rows on disk.
        classes: (n,) int32, the true class of each row; zeros if there are no classes.
    """

    rows: Shaped[Array, "*trials n ..."] | RowsOnDisk
    classes: Int[Array, "*trials n"]


class DataSet(abc.ABC):
    """A distribution to draw training rows from, or a fixed set of rows; hashable.

    A subclass overrides what differs from rows that come from no file, go into the networks as they
    are, are pictures, and have no scores.
    """

    @property
    @abc.abstractmethod
    def num_classes(self) -> int:
        """Number of true classes; 1 if none are known."""

    @abc.abstractmethod
    def row_shape(self) -> tuple[int, ...]:
        """Return the shape of a row."""

    def identity(self) -> str:
        """Return the hash of the files or weights that the rows come from; empty without any."""
        return ""

    def available(self, num: int) -> int:
        """Return how many rows a draw of `num` has: fewer if fewer exist, or raise."""
        return num

    @abc.abstractmethod
    def draw(self, key: PRNGKeyArray, num: int) -> Points:
        """Draw training rows; the same key gives the same rows."""

    def prepare(
        self, rows: Shaped[Array, "n ..."], key: PRNGKeyArray | None = None
    ) -> Float[Array, "n ..."]:
        """Return rows as the networks see them; with a key augmented, as in training. Traceable."""
        return rows

    def images(self, rows: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, "n h w c"] | None:
        """Return rows in the networks' form as pictures in [-1, 1]; None for points."""
        return np.asarray(rows)

    def scores(self, rows: Float[np.ndarray, "n ..."]) -> dict[str, float]:
        """Return the scores of generated rows by name; empty if there is nothing to score by."""
        return {}

    def perfect(self, key: PRNGKeyArray, num: int, repeats: int) -> dict[str, PerfectScore]:
        """Return what a perfect sampler scores with `num` rows, under the same names."""
        return {}

    def notes(self, key: PRNGKeyArray, num: int, repeats: int) -> dict[str, Any]:
        """Return what a reader of the scores needs to know, JSON-able: the judge, its accuracy.

        Args as in `perfect`.
        """
        return {}
