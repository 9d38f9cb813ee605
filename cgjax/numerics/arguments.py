"""Checks of a user's arguments: integers, and arrays of real numbers."""

from __future__ import annotations

import math
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from cgjax.errors import UserError


def is_whole(value: Any, least: int = 1) -> bool:
    """Whether a value is an integer and at least `least`; booleans are not.

    Integers of NumPy and JAX count, also as arrays without axes, such as `result.counts[0]`.

    Example:
        >>> is_whole(np.int64(8)), is_whole(True), is_whole(2.0), is_whole(0)
        (True, False, False, False)
    """
    try:
        return not isinstance(value, bool) and operator.index(value) >= least
    except TypeError:
        return False


INT_MAX = 2**31 - 1
"""The largest count: JAX counts in int32."""


def check_whole(name: str, value: Any, *, least: int = 1, hint: str = "") -> int:
    """Return an integer that fits int32 as a Python int.

    Args:
        name: the argument's name.
        value: its value.
        least: the smallest legal value.
        hint: what to type instead; appended to the message.

    Raises:
        UserError: anything else.

    Example:
        >>> check_whole("num", 0)
        Traceback (most recent call last):
        cgjax.errors.UserError: num=0: expected a whole number of at least 1
    """
    if not is_whole(value, least) or value > INT_MAX:
        most = f" and at most {INT_MAX}" if is_whole(value, least) else ""
        raise UserError(
            f"{name}={shown(value)}: expected a whole number of at least {least}{most}"
            f"{f'; {hint}' if hint else ''}"
        )
    return int(value)


def check_share(name: str, value: Any, usual: float) -> float:
    """Return a number between 0 and 1, both excluded, as a Python float.

    Args:
        name: the argument's name.
        value: its value.
        usual: a usual value, for the message.

    Raises:
        UserError: anything else, for example NaN.
    """
    is_number = isinstance(value, int | float | np.floating) and 0 < value < 1
    if not is_number:
        expected = f"expected a number between 0 and 1, such as {usual}"
        raise UserError(f"{name}={shown(value)}: {expected}")
    return float(value)


def is_real_number(dtype: Any) -> bool:
    """Return whether a dtype can become float32: floating point, integers, booleans."""
    kinds = (jnp.floating, jnp.integer, jnp.bool_)
    return any(jnp.issubdtype(dtype, kind) for kind in kinds)


def as_real(name: str, values: Any, expected: str = "numbers") -> Array | np.ndarray:
    """Return an array of real numbers, with its own dtype and on its own device.

    Args:
        name: what messages call it, in the plural.
        values: an array of JAX, NumPy or PyTorch, or nested lists.
        expected: what messages say is expected.

    Raises:
        UserError: lists of unequal lengths, text, None, complex numbers.

    Example:
        >>> as_real("codes", [[1.0], [2.0, 3.0]], "(n, 2)")
        Traceback (most recent call last):
        cgjax.errors.UserError: codes are not an array (lists of unequal lengths?): expected (n, 2)
    """
    try:
        array = values if isinstance(values, jax.Array) else np.asarray(on_host(values))
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise UserError(
            f"{name} are not an array (lists of unequal lengths?): expected {expected}"
        ) from error
    if not is_real_number(array.dtype):
        what = f"{array.dtype} numbers"
        if not jnp.issubdtype(array.dtype, jnp.complexfloating):
            what = shown(values) if np.ndim(array) == 0 else f"of type {array.dtype}"
        raise UserError(f"{name} are {what}: expected {expected}")
    return array


def as_float32(name: str, values: Any, expected: str = "numbers") -> Array | np.ndarray:
    """Return an array as float32 on its own device; a float32 array is not copied.

    Raises:
        UserError: as `as_real`, and for finite numbers that are too large for float32.
    """
    array = as_real(name, values, expected)
    try:
        with np.errstate(over="raise"):
            return array.astype(np.float32, copy=False)
    except FloatingPointError as error:
        raise UserError(
            f"{name} hold numbers too large for float32 (3.4e38): divide them by a constant first"
        ) from error


LEAST_DIFFERENCE = 1e-15
"""Rows that differ less than this have squared distances that float32 rounds to zero, wholly or in
part."""


def check_differences(name: str, points: np.ndarray) -> None:
    """Refuse points whose squared distances float32 cannot hold: they underflow or overflow.

    Args:
        name: what messages call them, in the plural.
        points: (n, d); points that are all equal are fine.

    Raises:
        UserError: they differ by less than `LEAST_DIFFERENCE` in every column, but not by 0; or so
            much that a squared distance may be infinite.

    Example:
        >>> check_differences("rows", np.array([[1e-20], [2e-20]]))
        Traceback (most recent call last):
        cgjax.errors.UserError: rows differ by 1e-20 at most: their squared distances underflow ...
    """
    widths = points.max(axis=0).astype(np.float64) - points.min(axis=0)
    widest = float(widths.max(initial=0.0))
    if widest > math.sqrt(float(np.finfo(np.float32).max) / len(widths)):
        raise UserError(
            f"{name} are too large: their squares overflow float32; divide them by a constant first"
        )
    if 0.0 < widest < LEAST_DIFFERENCE:
        raise UserError(
            f"{name} differ by {widest:.2g} at most: their squared distances underflow float32; "
            "multiply the features by a constant first"
        )


def on_host(values: Any) -> Any:
    """Return a PyTorch tensor as a NumPy array, and anything else unchanged.

    NumPy has no bfloat16, so all floats except float64 are converted to float32.
    """
    if not hasattr(values, "detach"):
        return values
    tensor = values.detach().cpu()
    if tensor.is_floating_point() and tensor.element_size() < 8:
        tensor = tensor.float()
    return tensor.numpy()


def shown(value: Any) -> str:
    """Return a value for a message: on one line, and short.

    Example:
        >>> shown("a" * 100)
        "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa..."
    """
    text = " ".join(repr(value).split())
    return text if len(text) <= 40 else f"{text[:36]}..."
