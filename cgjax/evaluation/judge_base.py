"""What a judge is: a function that reads attributes off images."""

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

Judgement = dict[str, NDArray[np.float64]]
"""For each attribute an (n,) array, NaN if the judge cannot tell."""


@runtime_checkable
class Judge(Protocol):
    """Anything that has these three members."""

    @property
    def name(self) -> str:
        """The judge's name in tables."""

    @property
    def attributes(self) -> tuple[str, ...]:
        """The keys of a judgement, in order."""

    def __call__(self, images: ArrayLike, /) -> Judgement:
        """Return (n,) float64 per attribute, NaN if it cannot tell."""
