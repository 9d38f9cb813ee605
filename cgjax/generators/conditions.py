"""From what a person says of classes (ids, names, vectors) to class vectors."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

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

    A class's usual name wins, then any of its names (upper and lower case are the same, `_` and
    `-` are spaces), then names that contain the words asked for, if only one class has one.

    Example:
        >>> find_class("Golden_Retriever", imagenet_names())
        207

    Raises:
        UserError: unknown, or several classes fit; lists the candidates.
    """
    wanted = _normal(name)
    usual = [i for i, known in enumerate(names) if wanted == _normal(known[0])]
    exact = [i for i, known in enumerate(names) if wanted in map(_normal, known)]
    near = exact or [
        i for i, known in enumerate(names) if any(_contains(_normal(k), wanted) for k in known)
    ]
    for candidates in (usual, near):
        if len(candidates) == 1:
            return candidates[0]
    found = f"fits {len(near)} classes"
    if not near:
        found = "is not a class name"
        texts = [(t, i) for i, known in enumerate(names) for k in known for t in _texts(_normal(k))]
        alike = difflib.get_close_matches(wanted, [t for t, _ in texts], n=5, cutoff=0.6)
        near = [i for t in dict.fromkeys(alike) for text, i in texts if text == t]
    listed = ", ".join(f"{i} {names[i][0]}" for i in dict.fromkeys(near[:12]))
    more = f" and {len(near) - 12} more" if len(near) > 12 else ""
    raise UserError(
        f"condition={name!r} {found}{f': {listed}{more}' if listed else ''}; give an id or one name"
    )


def _normal(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").replace("-", " ").split())


def _texts(known: str) -> list[str]:
    return [known, *known.split()] if " " in known else [known]


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
    if np.ndim(condition) and not any(isinstance(entry, str) for entry in entries):
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


def check_categories(categories: Sequence[int], latent_dim: int) -> tuple[int, ...]:
    """Return the lengths of the one-hot vectors that a latent ends in.

    Raises:
        UserError: if they are longer than the latent.
    """
    if sum(categories) > latent_dim:
        raise UserError(f"categories={list(categories)} are longer than latent_dim={latent_dim}")
    return tuple(categories)


def with_categories(
    key: PRNGKeyArray, z: Float[Array, "n d"], categories: Sequence[int]
) -> Float[Array, "n d"]:
    """Replace the end of latents by one random one-hot vector for each category.

    Args:
        key: the key that the latents were drawn with.
        z: (n, d) float32.
        categories: the vectors' lengths, in order.

    Returns:
        (n, d) float32; z itself where there are no categories.
    """
    if not categories:
        return z
    noise = z.shape[1] - sum(categories)
    parts = [z[:, :noise]]
    for i, size in enumerate(categories):
        drawn = jax.random.randint(
            jax.random.fold_in(key, i + 1), (z.shape[0],), 0, size, jnp.int32
        )
        parts.append(jax.nn.one_hot(drawn, size, dtype=z.dtype))
    return jnp.concatenate(parts, axis=1)
