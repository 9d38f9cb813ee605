"""The user's own judges: foreign code whose output is checked."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cgjax.errors import UserError, foreign_code
from cgjax.evaluation.image_batches import as_colour_images
from cgjax.evaluation.judge_base import Judge, Judgement
from cgjax.evaluation.own_code import checked_numbers


class OwnJudge:
    """A function or judge from the user.

    A function takes (n, h, w, 3) float32 images in [-1, 1] and returns an (n,) array, an attribute
    with the function's name; or, if it has a tuple `attributes`, a dictionary with an array for
    each. NaN means that it cannot tell. An object with the members of `Judge` keeps its own name.

    Args:
      function: the function or judge.
      path: its import path, `package.module:name`.

    Raises:
      UserError: it is not callable, or its `attributes` are not distinct names.

    >>> judge = OwnJudge(lambda images: images[..., 0].mean(axis=(1, 2)), "mine:redness")
    >>> judge(np.ones((2, 4, 4, 3)))
    {'redness': array([1., 1.])}
    """

    def __init__(self, function: Any, path: str) -> None:
        if not callable(function):
            raise UserError(f"judge {path!r} is {function!r:.60}; expected a function or a judge")
        self.function, self.path = function, path
        with foreign_code(f"judge {path!r}"):
            self.name = str(function.name) if isinstance(function, Judge) else path
            self._is_declared = hasattr(function, "attributes")
            names = function.attributes if self._is_declared else (path.rpartition(":")[2],)
        self.attributes: tuple[str, ...] = _names(names, path)

    def __call__(self, images: ArrayLike, /) -> Judgement:
        """Judge (n, h, w, c) images in [-1, 1], and check what came back.

        Raises:
          UserError: attributes other than declared, or anything but (n,) real numbers for one.
          ForeignError: the function raised an exception.
        """
        colour = as_colour_images(images)
        with foreign_code(f"judge {self.path!r}"):
            judged = self.function(colour.copy())  # which it may change
        if not isinstance(judged, Mapping):
            judged = {self.attributes[0]: judged}
        if set(judged) != set(self.attributes):
            hint = "" if self._is_declared else "; set function.attributes = (names...)"
            raise UserError(
                f"judge {self.path!r} returned {sorted(map(str, judged))}; "
                f"expected {list(self.attributes)}{hint}"
            )
        return {name: self._numbers(name, judged[name], colour.shape) for name in self.attributes}

    def _numbers(self, name: str, values: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
        subject = f"judge {self.path!r}, {name!r}"
        array = checked_numbers(subject, values, shape, has_columns=False)
        if np.isinf(array).any():
            raise UserError(f"{subject}: returned infinities; return NaN if it cannot tell")
        return array.astype(np.float64)


def _names(names: Any, path: str) -> tuple[str, ...]:
    if (
        isinstance(names, tuple | list)
        and names
        and all(isinstance(name, str) and name for name in names)
        and len(set(names)) == len(names)
    ):
        return tuple(names)
    raise UserError(
        f"judge {path!r} has attributes = {names!r:.60}; expected distinct names, such as "
        "('low', 'high')"
    )
