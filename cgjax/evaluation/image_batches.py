"""Images on their way to what judges or measures them: checked, in colour, some at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

from cgjax.errors import UserError
from cgjax.generators.batching import in_batches
from cgjax.runtime.png import in_colour

SIDE = 256
"""Images up to this many pixels high and wide are small; see `images_at_a_time`."""


def at_least_one(rows: NDArray[Any]) -> NDArray[Any]:
    """Return the rows, or raise a UserError if there are none."""
    if len(rows) == 0:
        raise UserError("no rows were given; expected at least one")
    return rows


def as_colour_images(images: ArrayLike) -> NDArray[np.float32]:
    """Return finite images of 1 to 4 channels as (n, h, w, 3) float32, as they are displayed."""
    array = np.asarray(images, np.float32)
    if array.ndim != 4 or not 1 <= array.shape[-1] <= 4:
        raise UserError(f"images have shape {array.shape}; expected (n, h, w, channels), 1 to 4")
    if not np.isfinite(array).all():
        raise UserError("the images hold NaN or infinities; expected numbers in [-1, 1]")
    return in_colour(array)


def images_at_a_time(most: int, height: int, width: int) -> int:
    """Return how many images to judge, or to extract features of, in one call.

    `most` of them if they are small, otherwise as many as have the pixels of that many small ones.

    Args:
        most: for small images.
        height: of the images.
        width: of the images.

    >>> [images_at_a_time(1024, side, side) for side in (64, 256, 512, 1024)]
    [1024, 1024, 256, 64]
    """
    return max(1, most * SIDE**2 // max(SIDE**2, height * width))


def in_full_batches(
    function: Callable[[jax.Array], jax.Array], rows: NDArray[np.float32], size: int
) -> NDArray[np.float32]:
    """As `in_batches`, but also pads fewer rows than a batch, so that only one shape compiles."""
    missing = max(0, size - len(rows))
    padded = np.pad(rows, [(0, missing)] + [(0, 0)] * (rows.ndim - 1))
    return in_batches(function, padded, size)[: len(rows)]
