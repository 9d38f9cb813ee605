"""What a user gives, checked where it enters: whole numbers, and arrays of real numbers."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from cgjax.errors import UserError


def is_whole(value: Any, least: int = 1) -> bool:
    """Whether something is a whole number, of Python or NumPy, of at least so much; True is none.

    Example:
        >>> is_whole(np.int64(8)), is_whole(True), is_whole(2.0), is_whole(0)
        (True, False, False, False)
    """
    is_number = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return is_number and int(value) >= least


INT_MAX = 2**31 - 1
"""Arrays are counted in int32."""


def check_whole(name: str, value: Any, *, least: int = 1, hint: str = "") -> int:
    """Return a whole number that fits int32 as Python's.

    Args:
        name: what the user calls it.
        value: what was given.
        least: the least that will do.
        hint: what to type instead; put behind the message.

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


def check_share(name: str, value: Any) -> float:
    """Return a number between 0 and 1, both excluded, as Python's.

    Raises:
        UserError: anything else, NaN for instance.
    """
    is_number = isinstance(value, int | float | np.floating) and 0 < value < 1
    if not is_number:
        raise UserError(f"{name}={shown(value)}: expected a number between 0 and 1, such as 0.05")
    return float(value)


def is_real_number(dtype: Any) -> bool:
    """Return whether numbers of a type can become float32: floating point, integers, booleans."""
    kinds = (jnp.floating, jnp.integer, jnp.bool_)
    return any(jnp.issubdtype(dtype, kind) for kind in kinds)


def as_real(name: str, values: Any, expected: str = "numbers") -> Array | np.ndarray:
    """Return an array of real numbers, of its own type and where it is.

    Args:
        name: what messages call it, in the plural.
        values: an array of JAX, NumPy or PyTorch, or nested lists.
        expected: in words.

    Raises:
        UserError: lists of unequal lengths, text, None, complex numbers.

    Example:
        >>> as_real("latents", [[1.0], [2.0, 3.0]], "(n, 2)")
        Traceback (most recent call last):
        cgjax.errors.UserError: latents are no array (lists of unequal lengths?): expected (n, 2)
    """
    try:
        array = values if isinstance(values, jax.Array) else np.asarray(on_host(values))
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise UserError(
            f"{name} are no array (lists of unequal lengths?): expected {expected}"
        ) from error
    if not is_real_number(array.dtype):
        what = f"{array.dtype} numbers"
        if not jnp.issubdtype(array.dtype, jnp.complexfloating):
            what = shown(values) if np.ndim(array) == 0 else f"of type {array.dtype}"
        raise UserError(f"{name} are {what}: expected {expected}")
    return array


def as_float32(name: str, values: Any, expected: str = "numbers") -> Array | np.ndarray:
    """Return an array of float32 where it is, as `as_real`; what is float32 is not copied.

    Raises:
        UserError: as `as_real`; finite numbers that are too large for float32 too.
    """
    array = as_real(name, values, expected)
    try:
        with np.errstate(over="raise"):
            return array.astype(np.float32, copy=False)
    except FloatingPointError as error:
        raise UserError(
            f"{name} hold numbers too large for float32 (3.4e38): divide them by a constant first"
        ) from error


def on_host(values: Any) -> Any:
    """Return the values of a PyTorch tensor as NumPy's, anything else as it is.

    NumPy has no bfloat16, so floats leave PyTorch as float32, but for float64.
    """
    if not hasattr(values, "detach"):
        return values
    tensor = values.detach().cpu()
    if tensor.is_floating_point() and tensor.element_size() < 8:
        tensor = tensor.float()
    return tensor.numpy()


def shown(value: Any) -> str:
    """Return a value as a message shows it: on one line, and short.

    Example:
        >>> shown("a" * 100)
        "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa..."
    """
    text = " ".join(repr(value).split())
    return text if len(text) <= 40 else f"{text[:36]}..."
