"""Random keys by name, so that adding a stage does not change the numbers of another."""

from __future__ import annotations

import zlib

import jax
from jaxtyping import PRNGKeyArray


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
