"""Random keys by name, so that adding a stage does not change the numbers of another."""

from __future__ import annotations

import zlib
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from cgjax.errors import UserError


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
    """Check that a user gave one random key, typed or not.

    Raises:
        UserError: anything else, a seed for instance.

    Example:
        >>> check_key(jax.random.key(0))
        >>> check_key(0)
        Traceback (most recent call last):
        cgjax.errors.UserError: key=0: expected a random key, such as jax.random.key(0)
    """
    is_key = isinstance(key, jax.Array) and (
        key.shape == ()
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
        else key.ndim == 1 and key.dtype == jnp.uint32
    )
    if not is_key:
        shown = f" of shape {key.shape}" if isinstance(key, jax.Array) else f"={key!r}"
        raise UserError(f"key{shown}: expected a random key, such as jax.random.key(0)")
