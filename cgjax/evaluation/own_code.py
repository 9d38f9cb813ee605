"""What the user's own judges and features share: how one is imported, and which output is legal."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cgjax.errors import UserError, foreign_code
from cgjax.runtime.imports import load_attribute


def load_own(path: str, what: str) -> Any:
    """Import the user's own function or object; a class is called without arguments.

    Args:
      path: `package.module:name`.
      what: the kind of object, for the messages: "judge", "features".

    Raises:
      UserError: as `load_attribute`.
      ForeignError: the user's module or class raised an exception.
    """
    own = load_attribute(path, what)
    if isinstance(own, type):
        with foreign_code(f"{what} {path!r}", "when it was made without arguments"):
            own = own()
    return own


def checked_numbers(
    subject: str, values: Any, shape: tuple[int, ...], *, has_columns: bool
) -> NDArray[Any]:
    """Check what a user's function returned for some rows, except that it is finite.

    Args:
      subject: what returned it, for the messages.
      values: as returned.
      shape: of the rows that the function was given.
      has_columns: whether it is (n, columns) rather than (n,).

    Returns:
      The numbers, in the type that they have.

    Raises:
      UserError: anything but real numbers for each row.
    """
    wanted = f"({shape[0]}, columns)" if has_columns else f"({shape[0]},)"
    expected = f"for rows of shape {shape}; expected {wanted} real numbers"
    try:
        array = np.asarray(values)
    except Exception as error:
        raise UserError(
            f"{subject}: returned {type(values).__name__}, which is not an array ({error}), "
            f"{expected}"
        ) from error
    has_shape = array.ndim == 1 + has_columns and len(array) == shape[0]
    if not has_shape or array.dtype.kind not in "biuf":
        raise UserError(f"{subject}: returned {array.dtype} {array.shape} {expected}")
    return array
