"""The 1,797 handwritten digits of 8 x 8 pixels that scikit-learn ships; works offline."""

from __future__ import annotations

import dataclasses
import importlib

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from cgjax.endtoend.data.base import DataSet, Points
from cgjax.errors import UserError

NUM = 1797
SIDE = 8
LARGER = 6


@dataclasses.dataclass(frozen=True)
class Digits8(DataSet):
    """The digits as vectors of 64 grey values from 0 to 1."""

    num_classes: int = 10

    def row_shape(self) -> tuple[int, ...]:
        """Return the shape of a vector."""
        return (SIDE * SIDE,)

    def available(self, num: int) -> int:
        """Return `num`.

        Raises:
            UserError: more digits than exist.
        """
        if num > NUM:
            raise UserError(
                f"--config.data.num={num}: expected at most {NUM} with data.name=digits8"
            )
        return num

    def draw(self, key: PRNGKeyArray, num: int) -> Points:
        """Return `num` of the digits in random order.

        Raises:
            UserError: more digits than exist; scikit-learn is not installed.
        """
        num = self.available(num)
        try:
            digits = importlib.import_module("sklearn.datasets").load_digits()
        except ImportError as error:
            raise UserError(
                "--config.data.name=digits8 needs scikit-learn, which cannot be imported "
                f"({error}); type: pip install 'cgjax[digits]'"
            ) from error
        order = np.asarray(jax.random.permutation(key, NUM))[:num]
        rows = (digits.data[order] / 16).astype(np.float32)
        return Points(jnp.asarray(rows), jnp.asarray(digits.target[order], jnp.int32))

    def images(self, rows: Float[np.ndarray, "n 64"]) -> Float[np.ndarray, "n h w 1"]:
        """Return dark digits on white, each pixel enlarged to a visible square."""
        return as_images(rows).repeat(LARGER, axis=1).repeat(LARGER, axis=2)


def as_images(rows: Float[Array | np.ndarray, "n 64"]) -> Float[np.ndarray, "n 8 8 1"]:
    """Return vectors as dark digits on white, in [-1, 1]."""
    grey = np.clip(np.asarray(rows, np.float32), 0, 1)
    return 1 - 2 * grey.reshape(-1, SIDE, SIDE, 1)
