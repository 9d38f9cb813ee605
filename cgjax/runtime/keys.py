"""Random keys by name, so that adding a stage does not change the random numbers of others."""

from __future__ import annotations

import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from cgjax.errors import UserError
from cgjax.numerics.arguments import shown


def named_key(key: PRNGKeyArray, *names: str | int) -> PRNGKeyArray:
    """Fold names and numbers into a key, in order.

    Example:
        >>> a = named_key(jax.random.key(0), "fit", "imle", 3)
        >>> bool((a == named_key(jax.random.key(0), "fit", "imle", 3)).all())
        True
    """
    for name in names:
        number = name if isinstance(name, int) else zlib.crc32(name.encode())
        key = jax.random.fold_in(key, number)
    return key


def check_key(key: Any) -> None:
    """Check that a user passed one random key, typed or raw.

    Raises:
        UserError: anything else, for example a seed.

    Example:
        >>> check_key(jax.random.key(0))
        >>> check_key(0)
        Traceback (most recent call last):
        cgjax.errors.UserError: key=0: expected a random key, such as jax.random.key(0)
    """
    keys = as_keys(key)
    if keys is None or keys.shape:
        given = f" of shape {key.shape}" if isinstance(key, jax.Array) else f"={shown(key)}"
        raise UserError(f"key{given}: expected a random key, such as jax.random.key(0)")


def as_keys(value: Any) -> Array | None:
    """Return random keys, typed or raw, as typed ones; None for anything else.

    Args:
        value: keys (...) as `jax.random.key` makes them, or (..., 2) uint32 as
            `jax.random.PRNGKey` does, in an array of JAX or NumPy; or anything.

    Example:
        >>> as_keys(jax.random.PRNGKey(0)) == jax.random.key(0)
        Array(True, dtype=bool)
    """
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return value
    try:
        is_array = isinstance(value, jax.Array | np.ndarray)
        return jax.random.wrap_key_data(jnp.asarray(value)) if is_array else None
    except (TypeError, ValueError):  # another dtype or shape
        return None
