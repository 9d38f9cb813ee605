"""What training asks of a data set."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from cgjax.endtoend.data.on_disk import RowsOnDisk
from cgjax.evaluation.modes import PerfectScore


class Points(NamedTuple):
    """Rows of a data set and what they truly are.

    Attributes:
        rows: (n, ...) float32, or uint8 of images: as they are kept; or where they are.
        classes: (n,) int32, the true class of each; zeros where there are no classes.
    """

    rows: Shaped[Array, "*trials n ..."] | RowsOnDisk
    classes: Int[Array, "*trials n"]


@runtime_checkable
class DataSet(Protocol):
    """A law to draw training rows from, or rows that are there; hashable."""

    @property
    def num_classes(self) -> int:
        """How many true classes there are; 1 where none are known."""

    def row_shape(self) -> tuple[int, ...]:
        """The shape of a row."""

    def identity(self) -> str:
        """Return a hash of the files or weights that the rows come from; empty without any."""

    def available(self, num: int) -> int:
        """Return how many rows a draw of `num` has: fewer where there are fewer, or an error."""

    def draw(self, key: PRNGKeyArray, num: int) -> Points:
        """Draw training rows; the same key gives the same ones."""

    def prepare(
        self, rows: Shaped[Array, "n ..."], key: PRNGKeyArray | None = None
    ) -> Float[Array, "n ..."]:
        """Return what the networks see; with a key augmented, as in training. Compiled."""

    def images(self, rows: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, "n h w c"] | None:
        """Return rows as the networks see or make them as pictures in [-1, 1]; None for points."""

    def scores(self, rows: Float[np.ndarray, "n ..."]) -> dict[str, float]:
        """Return how good generated rows are, by name; empty where nothing can be said."""

    def perfect(self, key: PRNGKeyArray, num: int, repeats: int) -> dict[str, PerfectScore]:
        """Return what a perfect sampler scores with as many rows, for the same names."""

    def notes(self, key: PRNGKeyArray, num: int, repeats: int) -> dict[str, Any]:
        """Return what a reader of the scores has to know, for JSON: the judge, and how good it is.

        Takes what `perfect` takes.
        """
