"""Arrays of JAX, NumPy or PyTorch, as foreign code returns them, to float32 arrays of JAX.

PyTorch's are known by their methods: torch is never imported here.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from cgjax.errors import UserError, foreign_code
from cgjax.numerics.given import on_host


def finite_rows(whose: str, returned: Any) -> np.ndarray:
    """Return what foreign code returned, on the host.

    Args:
        whose: who returned it.
        returned: an array.

    Raises:
        UserError: NaN or infinities.
    """
    rows = np.asarray(returned)
    if not np.isfinite(rows).all():
        kind = "NaN" if np.isnan(rows).any() else "infinite values"
        raise UserError(f"{whose} returned {kind}; expected finite numbers that fit float32")
    return rows


def to_array(value: Any, whose: str, shape: tuple[Any, ...]) -> Array:
    """Turn what foreign code returned into a float32 array of JAX.

    Args:
        value: an array of JAX, NumPy or PyTorch (on any device, with or without gradient), of any
            real floating type; or another object with `shape`, `dtype` and `__array__`.
        whose: who returned it, for messages.
        shape: what is expected, for messages.

    Returns:
        The array. It shares no memory with `value`, whose owner may use its buffer again.

    Raises:
        UserError: anything else: a list, a number, integers, complex numbers.

    Example:
        >>> to_array(np.ones((2, 3)), "mine:Mine.features", (2, "..."))[0]
        Array([1., 1., 1.], dtype=float32)
    """
    if isinstance(value, jax.Array) and value.dtype == jnp.float32 and value.ndim:
        return value
    expected = f"expected a float32 array {describe_shape(shape)}"
    if not all(hasattr(value, name) for name in ("shape", "dtype", "__array__")):
        change = "return an array"
        if isinstance(value, list | tuple):
            held = ", ".join(dict.fromkeys(describe_kind(entry) for entry in value[:3]))
            change = f"it holds {held or 'nothing'}; return one array, such as jnp.stack(...)"
        elif value is None:
            change = "is its return statement missing?"
        raise UserError(f"{whose} returned {describe_kind(value)}; {expected}: {change}")
    if hasattr(value, "detach"):
        with foreign_code(whose, "when its tensor was read"):
            value = on_host(value)
    if not isinstance(value, jax.Array):
        with foreign_code(whose, "when its array was read"):
            value = np.asarray(value)
    if not value.shape:
        raise UserError(f"{whose} returned a single number; {expected}")
    if not jnp.issubdtype(value.dtype, jnp.floating):
        change = "return x.astype('float32')"
        if value.dtype == np.uint8:
            change = "return x / 127.5 - 1 as float32, if these are pixels from 0 to 255"
        elif jnp.issubdtype(value.dtype, jnp.complexfloating):
            change = "return real numbers, such as its absolute value"
        returned = f"an array {describe_shape(value.shape)} of {value.dtype}"
        raise UserError(f"{whose} returned {returned}; {expected}: {change}")
    if isinstance(value, jax.Array):
        return value.astype(jnp.float32)
    with np.errstate(over="ignore"):  # what overflows float32 is found as infinite
        return jnp.asarray(np.array(value, np.float32, order="C"))


def describe_kind(value: Any) -> str:
    """Return what kind of object something is, as a message says it.

    Example:
        >>> describe_kind([1, 2]), describe_kind(None)
        ('a list', 'None')
    """
    if value is None:
        return "None"
    cls = type(value)
    name = cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__name__}"
    return f"{'an' if name[0].lower() in 'aeio' else 'a'} {name}"


def describe_shape(shape: tuple[Any, ...]) -> str:
    """Return a shape as it is written, whose entries may be words.

    Example:
        >>> describe_shape((4, "channels"))
        '(4, channels)'
    """
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
