"""Convert the JAX, NumPy or PyTorch arrays that foreign code returns to float32 JAX arrays.

PyTorch tensors are recognised by their methods: torch is never imported here.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from cgjax.errors import UserError, foreign_code
from cgjax.numerics.arguments import on_host


def finite_rows(whose: str, returned: Any) -> np.ndarray:
    """Return an array from foreign code, on the host and checked to be finite.

    Args:
        whose: the code that returned it, for messages.
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
    """Convert a value returned by foreign code to a float32 JAX array.

    Args:
        value: a JAX, NumPy or PyTorch array (on any device, with or without gradient) of any real
            floating-point type; or another object with `shape`, `dtype` and `__array__`.
        whose: the code that returned it, for messages.
        shape: the expected shape, for messages.

    Returns:
        The array. It shares no memory with `value`, as the owner may reuse its buffer.

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
            kinds = ", ".join(dict.fromkeys(describe_kind(entry) for entry in value[:3]))
            change = f"it holds {kinds or 'nothing'}; return one array, such as jnp.stack(...)"
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
            change = "return real numbers, such as their absolute values"
        returned = f"an array {describe_shape(value.shape)} of {value.dtype}"
        raise UserError(f"{whose} returned {returned}; {expected}: {change}")
    if isinstance(value, jax.Array):
        return value.astype(jnp.float32)
    with np.errstate(over="ignore"):  # overflow gives infinity, which `finite_rows` refuses
        return jnp.asarray(np.array(value, np.float32, order="C"))


def describe_kind(value: Any) -> str:
    """Return the type of a value as a message words it.

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
    """Return a shape as text; its entries may be words.

    Example:
        >>> describe_shape((4, "channels"))
        '(4, channels)'
    """
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
