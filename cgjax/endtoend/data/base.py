"""The interface of a data set."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

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


@runtime_checkable
class DataSet(Protocol):
    """A distribution to draw training rows from, or a fixed set of rows; hashable."""

    @property
    def num_classes(self) -> int:
        """Number of true classes; 1 if none are known."""

    def row_shape(self) -> tuple[int, ...]:
        """Return the shape of a row."""

    def identity(self) -> str:
        """Return the hash of the files or weights that the rows come from; empty without any."""

    def available(self, num: int) -> int:
        """Return how many rows a draw of `num` has: fewer if fewer exist, or raise."""

    def draw(self, key: PRNGKeyArray, num: int) -> Points:
        """Draw training rows; the same key gives the same rows."""

    def prepare(
        self, rows: Shaped[Array, "n ..."], key: PRNGKeyArray | None = None
    ) -> Float[Array, "n ..."]:
        """Return rows as the networks see them; with a key augmented, as in training. Traceable."""

    def images(self, rows: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, "n h w c"] | None:
        """Return rows in the networks' form as pictures in [-1, 1]; None for points."""

    def scores(self, rows: Float[np.ndarray, "n ..."]) -> dict[str, float]:
        """Return the scores of generated rows by name; empty if there is nothing to score by."""

    def perfect(self, key: PRNGKeyArray, num: int, repeats: int) -> dict[str, PerfectScore]:
        """Return what a perfect sampler scores with `num` rows, under the same names."""

    def notes(self, key: PRNGKeyArray, num: int, repeats: int) -> dict[str, Any]:
        """Return what a reader of the scores needs to know, JSON-able: the judge, its accuracy.

        Args as in `perfect`.
        """


class PlainRows(DataSet):
    """A data set whose rows come from no file, go into the networks as they are, and need no judge.

    A subclass with scores of its own overrides `scores` and `perfect`.
    """

    def identity(self) -> str:
        """Return nothing: the config describes the data completely."""
        return ""

    def prepare(
        self, rows: Float[Array, "n d"], key: PRNGKeyArray | None = None
    ) -> Float[Array, "n d"]:
        """Return the rows unchanged."""
        return rows

    def scores(self, rows: Float[np.ndarray, "n ..."]) -> dict[str, float]:
        """Return nothing."""
        return {}

    def perfect(self, key: PRNGKeyArray, num: int, repeats: int) -> dict[str, PerfectScore]:
        """Return nothing."""
        return {}

    def notes(self, key: PRNGKeyArray, num: int, repeats: int) -> dict[str, Any]:
        """Return nothing: there is no judge."""
        return {}
