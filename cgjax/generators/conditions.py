"""From what a person says of classes (ids, names, vectors) to class vectors."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cgjax.errors import UserError

IMAGENET_FILE = Path(__file__).resolve().parent.parent / "assets" / "imagenet_classes.txt"
Names = Sequence[Sequence[str]]
"""For each class its names, the usual one first."""


@functools.cache
def imagenet_names() -> tuple[tuple[str, ...], ...]:
    """Return the names of the 1,000 ILSVRC classes, in the order every ImageNet model uses."""
    lines = IMAGENET_FILE.read_text(encoding="utf-8").splitlines()
    return tuple(tuple(name.strip() for name in line.split(",")) for line in lines if line)


def find_class(name: str, names: Names) -> int:
    """Find a class by one of its names.

    An exact name wins (upper and lower case are the same, `_` is a space); else a name that
    contains the words asked for, if only one class has it.

    Example:
        >>> find_class("Golden_Retriever", imagenet_names())
        207

    Raises:
        UserError: unknown, or several classes fit; lists the candidates.
    """
    wanted = _normal(name)
    exact = [i for i, known in enumerate(names) if wanted in map(_normal, known)]
    if len(exact) == 1:
        return exact[0]
    near = exact or [
        i for i, known in enumerate(names) if any(_contains(_normal(k), wanted) for k in known)
    ]
    if len(near) == 1:
        return near[0]
    if not near:
        import difflib

        every = {_normal(k): i for i, known in enumerate(names) for k in known}
        near = [every[k] for k in difflib.get_close_matches(wanted, every, n=5, cutoff=0.5)]
        found = "is no class's name"
    else:
        found = f"fits {len(near)} classes"
    listed = ", ".join(f"{i} {names[i][0]}" for i in dict.fromkeys(near[:12]))
    more = f" and {len(near) - 12} more" if len(near) > 12 else ""
    raise UserError(
        f"condition={name!r} {found}{f': {listed}{more}' if listed else ''}; give an id or one name"
    )


def _normal(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").replace("-", " ").split())


def _contains(known: str, wanted: str) -> bool:
    return f" {wanted} " in f" {known} "


def class_vectors(
    condition: Any, num: int, num_classes: int, names: Names = ()
) -> Float[Array, "n c"]:
    """Turn a condition into one class vector a row.

    Args:
        condition: a class id, a name, a list of `num` (or one) ids or names, one class vector, or
            class vectors (num or 1, num_classes).
        num: rows.
        num_classes: length of a class vector.
        names: the classes' names, where they have any.

    Returns:
        (num, num_classes) float32.

    Raises:
        UserError: None, an unknown name or id, a wrong shape.
    """
    if condition is None:
        raise UserError(
            f"this generator needs a class: give condition=, an id from 0 to {num_classes - 1}"
            f"{', a name' if names else ''} or class vectors (--config.generator.condition=...)"
        )
    if getattr(condition, "ndim", None) == 2:
        return _rows(jnp.asarray(condition, jnp.float32), num, num_classes)
    if isinstance(condition, str) and condition.strip().lstrip("-").isdigit():
        condition = int(condition)
    entries = [condition] if isinstance(condition, str) or np.ndim(condition) == 0 else condition
    if not any(isinstance(entry, str) for entry in entries):
        values = np.asarray(entries)
        if values.ndim == 2:
            return _rows(jnp.asarray(values, jnp.float32), num, num_classes)
        if values.dtype.kind == "f":
            return _rows(jnp.asarray(values[None], jnp.float32), num, num_classes)
    ids = [_class_id(entry, num_classes, names) for entry in entries]
    if len(ids) not in (1, num):
        raise UserError(f"condition has {len(ids)} classes for {num} rows; give 1 or {num}")
    one_hot = np.zeros((len(ids), num_classes), np.float32)
    one_hot[np.arange(len(ids)), ids] = 1
    return _rows(jnp.asarray(one_hot), num, num_classes)


def _rows(vectors: Array, num: int, num_classes: int) -> Array:
    if vectors.shape[1] != num_classes or vectors.shape[0] not in (1, num):
        raise UserError(
            f"condition has shape {vectors.shape}; expected ({num} or 1, {num_classes}) class "
            "vectors, an id, or a name"
        )
    return jnp.broadcast_to(vectors, (num, num_classes))


def _class_id(entry: Any, num_classes: int, names: Names) -> int:
    if isinstance(entry, str):
        if not names:
            raise UserError(f"condition={entry!r}: these classes have no names; give an id")
        return find_class(entry, names)
    if not isinstance(entry, int | np.integer) and not (
        hasattr(entry, "dtype") and np.issubdtype(entry.dtype, np.integer)
    ):
        raise UserError(f"condition={entry!r} is neither an id nor a name nor class vectors")
    if not 0 <= int(entry) < num_classes:
        raise UserError(
            f"condition={int(entry)} is not a class; ids go from 0 to {num_classes - 1}"
        )
    return int(entry)
