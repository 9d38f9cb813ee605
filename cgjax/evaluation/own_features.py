"""The user's own features of images: foreign code whose output is checked where it enters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from cgjax.errors import UserError, foreign_code
from cgjax.evaluation.image_batches import as_colour_images, at_least_one, images_at_a_time
from cgjax.evaluation.own_code import checked_numbers, load_own

BATCH = 128
"""Small images per call of the function; see `images_at_a_time`."""

TOLERANCE = 0.01
"""How far features of one image may differ between calls, relative to the largest number: by
rounding, which depends on the number of images in a call."""


class OwnFeatures:
    """The user's features, and their classifier's scores of each class if they have one.

    The function takes (n, h, w, 3) float32 images in [-1, 1] and returns (n, f) numbers, or a pair
    of these and (n, k) class scores: logits, or logarithms of probabilities, of at least two
    classes. Each row must be a function of its image alone.

    Args:
      path: the function's import path, `package.module:name`. It may also be a class whose objects,
        made without arguments, are called.
      with_scores: whether a row holds the class scores behind the features; see `split`.

    Raises:
      UserError: no such module or function, or it is not callable.
      ForeignError: the user's module or class raised an exception.
    """

    input: Literal["images", "latents"] = "images"

    def __init__(self, path: str, *, with_scores: bool = False) -> None:
        self.name = path
        self.function = _load(path)
        self._with_scores = with_scores
        self._widths: tuple[int, int] | None = None

    def check(self, height: int, width: int | None = None) -> int:
        """Try it on three random images of a size, before any work is done.

        Args:
          height: of the images.
          width: of the images; the height if it is None.

        Returns:
          The number of features.

        Raises:
          UserError: it returned anything but features and class scores, or an image's features
            depend on the images beside it.
          ForeignError: it raised an exception.
        """
        shape = (3, height, width or height, 3)
        images = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
        among, alone = self.split(self(images)[2:]), self.split(self(images[2:]))
        for found, expected in zip(among, alone, strict=True):
            if (np.abs(found - expected) > TOLERANCE * np.abs(expected).max(initial=0)).any():
                raise UserError(
                    f"features {self.name!r} of one image change with the images beside it, or "
                    "from call to call; expected a function of each image alone (batch norms and "
                    "dropout in inference mode)"
                )
        return alone[0].shape[1]

    def __call__(self, batch: ArrayLike, /) -> Float[np.ndarray, "n d"]:
        """Return float32 features, with class scores behind them if asked for.

        Grey images are repeated to three channels.

        Raises:
          UserError: the function returned something else, or other numbers of columns than before.
          ForeignError: it raised an exception.
        """
        images = at_least_one(as_colour_images(batch))
        size = images_at_a_time(BATCH, *images.shape[1:3])
        return np.concatenate(
            [self._rows(images[i : i + size]) for i in range(0, len(images), size)]
        )

    def split(
        self, rows: Float[np.ndarray, "n d"]
    ) -> tuple[Float[np.ndarray, "n f"], Float[np.ndarray, "n k"]]:
        """Return the features and the class scores of rows; k is 0 where there are none."""
        num_features = self._widths[0] if self._widths else rows.shape[1]
        return rows[:, :num_features], rows[:, num_features:]

    def _rows(self, images: Float[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n d"]:
        subject = f"features {self.name!r}"
        with foreign_code(subject):
            values = self.function(images.copy())  # which it may change
        pair = values if isinstance(values, tuple) else (values, np.zeros((len(images), 0)))
        if len(pair) != 2:
            raise UserError(
                f"{subject}: returned a tuple of {len(pair)}; expected features, or a pair of "
                "features and class scores"
            )
        features = _checked_rows(subject, pair[0], images.shape)
        scores = _checked_rows(f"{subject}, class scores", pair[1], images.shape)
        widths = features.shape[1], scores.shape[1]
        if not widths[0] or (isinstance(values, tuple) and widths[1] < 2):
            raise UserError(
                f"{subject}: returned {widths[0]} features and {widths[1]} class scores; expected "
                "at least one feature, and scores of at least two classes"
            )
        if self._widths not in (None, widths):
            raise UserError(
                f"{subject}: returned {widths[0]} features and {widths[1]} class scores, before "
                f"{self._widths}; expected the same numbers every time"
            )
        self._widths = widths
        return np.concatenate([features, scores], axis=1) if self._with_scores else features


def features_of_rows(path: str) -> Callable[[np.ndarray], Float[np.ndarray, "n f"]]:
    """Return the user's function that gives the rows of a training the features to cluster them by.

    Unlike `OwnFeatures` it takes rows of any shape, all at once.

    Args:
      path: as for `OwnFeatures`.

    Raises:
      UserError: as `OwnFeatures`; when the result is called, it did not return features.
      ForeignError: the user's module raised an exception, or the function did when it was called.
    """
    function = _load(path)

    def features(rows: np.ndarray) -> Float[np.ndarray, "n f"]:
        with foreign_code(f"features {path!r}"):
            values = function(rows.copy())  # it may change them
        subject = f"--config.labels.features={path}"
        found = _checked_rows(subject, values, rows.shape)
        if not found.shape[1]:
            raise UserError(f"{subject}: returned no features; expected at least one")
        return found

    return features


def _load(path: str) -> Callable[[np.ndarray], Any]:
    function = load_own(path, "features")
    if not callable(function):
        raise UserError(f"features {path!r} is {function!r:.60}; expected a function")
    return cast("Callable[[np.ndarray], Any]", function)


def _checked_rows(
    subject: str, values: Any, shape: tuple[int, ...]
) -> Float[np.ndarray, "n columns"]:
    """Return (n, columns) numbers as float32; raise a UserError unless they are finite ones."""
    array = checked_numbers(subject, values, shape, has_columns=True)
    with np.errstate(over="ignore"):  # beyond float32, which is infinite
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise UserError(f"{subject}: returned NaN or infinite values")
    return array
