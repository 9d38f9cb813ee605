"""Convert class ids, names or vectors, as a user gives them, to class vectors."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from cgjax.errors import UserError
from cgjax.numerics.arguments import as_float32, as_real, shown

IMAGENET_FILE = Path(__file__).resolve().parent.parent / "assets" / "imagenet_classes.txt"
Names = Sequence[Sequence[str]]
"""The names of each class, the usual one first."""

_ID = re.compile(r"-?\d{1,9}")
"""Text that is a class id."""


@functools.cache
def imagenet_names() -> tuple[tuple[str, ...], ...]:
    """Return the names of the 1,000 ILSVRC classes, in the order every ImageNet model uses."""
    lines = IMAGENET_FILE.read_text(encoding="utf-8").splitlines()
    return tuple(tuple(name.strip() for name in line.split(",")) for line in lines if line)


def find_class(name: str, names: Names) -> int:
    """Find a class by one of its names.

    The usual name of a class wins, then any of its names, then a name that contains the given
    words if only one class has one. Case is ignored, and `_` and `-` count as spaces.

    Example:
        >>> find_class("Golden_Retriever", imagenet_names())
        207

    Raises:
        UserError: an unknown name, or one that fits several classes; lists the candidates.
    """
    query = _normal(name)
    usual = [i for i, known in enumerate(names) if query == _normal(known[0])]
    exact = [i for i, known in enumerate(names) if query in map(_normal, known)]
    near = exact or [
        i for i, known in enumerate(names) if any(_contains(_normal(k), query) for k in known)
    ]
    for candidates in (usual, near):
        if len(candidates) == 1:
            return candidates[0]
    problem = f"fits {len(near)} classes"
    if not near:
        problem = "is not a class name"
        texts = [(t, i) for i, known in enumerate(names) for k in known for t in _texts(_normal(k))]
        similar = difflib.get_close_matches(query, [t for t, _ in texts], n=5, cutoff=0.6)
        near = [i for t in dict.fromkeys(similar) for text, i in texts if text == t]
    listed = ", ".join(f"{i} {names[i][0]}" for i in dict.fromkeys(near[:12]))
    more = f" and {len(near) - 12} more" if len(near) > 12 else ""
    raise UserError(
        f"condition={name!r} {problem}{f': {listed}{more}' if listed else ''}; give an id "
        "or one name"
    )


def _normal(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").replace("-", " ").split())


def _texts(name: str) -> list[str]:
    return [name, *name.split()] if " " in name else [name]


def _contains(name: str, query: str) -> bool:
    return f" {query} " in f" {name} "


def class_vectors(
    condition: Any, num: int, num_classes: int, names: Names = ()
) -> Float[Array, "n c"]:
    """Convert a condition to one class vector per row.

    Args:
        condition: a class id, a name, a list of `num` (or one) ids or names, one class vector, or
            class vectors (num or 1, num_classes).
        num: number of rows.
        num_classes: length of a class vector.
        names: the classes' names, where they have any.

    Returns:
        (num, num_classes) float32.

    Raises:
        UserError: None, an unknown name or id, a wrong shape, numbers that are not real.
    """
    if condition is None:
        raise UserError(
            f"this generator needs a class: give condition=, an id from 0 to {num_classes - 1}"
            f"{', a name' if names else ''} or class vectors (--config.generator.condition=...)"
        )
    if isinstance(condition, np.ndarray) and condition.dtype.kind in "OU":
        condition = condition.tolist()
    if isinstance(condition, str):
        entries: Any = [condition]
    elif isinstance(condition, list | tuple) and any(isinstance(c, str) for c in condition):
        entries = condition
    else:
        kinds = "an id, a name, a list of either, or class vectors"
        values = as_real("the entries of condition", condition, kinds)
        if values.ndim > 1 or (values.ndim == 1 and values.dtype.kind not in "iu"):
            vectors = jnp.asarray(as_float32("class vectors", values))
            return _rows(vectors if vectors.ndim > 1 else vectors[None], num, num_classes)
        entries = np.atleast_1d(np.asarray(values)).tolist()
    ids = [_class_id(entry, num_classes, names) for entry in entries]
    if len(ids) not in (1, num):
        raise UserError(f"condition has {len(ids)} classes for {num} rows; give 1 or {num}")
    one_hot = np.zeros((len(ids), num_classes), np.float32)
    one_hot[np.arange(len(ids)), ids] = 1
    return _rows(jnp.asarray(one_hot), num, num_classes)


def _rows(vectors: Array, num: int, num_classes: int) -> Array:
    if vectors.ndim != 2 or vectors.shape[1] != num_classes or vectors.shape[0] not in (1, num):
        raise UserError(
            f"condition has shape {vectors.shape}; expected ({num} or 1, {num_classes}) class "
            "vectors, an id, or a name"
        )
    return jnp.broadcast_to(vectors, (num, num_classes))


def _class_id(entry: Any, num_classes: int, names: Names) -> int:
    if isinstance(entry, str) and not _ID.fullmatch(entry.strip()):
        if not names:
            raise UserError(f"condition={shown(entry)}: these classes have no names; give an id")
        return find_class(entry, names)
    if not isinstance(entry, str | int | np.integer) or isinstance(entry, bool):
        raise UserError(f"condition={shown(entry)} is neither an id nor a name nor class vectors")
    index = int(entry)
    if not 0 <= index < num_classes:
        raise UserError(f"condition={index} is not a class; ids go from 0 to {num_classes - 1}")
    return index


def check_categories(categories: Sequence[int], latent_dim: int) -> tuple[int, ...]:
    """Return the lengths of the one-hot vectors at the end of a latent.

    Raises:
        UserError: if they are longer than the latent together.
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
        categories: the lengths of the vectors, in order.

    Returns:
        (n, d) float32; z itself where there are no categories.
    """
    if not categories:
        return z
    parts = [z[:, : z.shape[1] - sum(categories)]]
    for i, size in enumerate(categories):
        category_key = jax.random.fold_in(key, i + 1)
        values = jax.random.randint(category_key, (z.shape[0],), 0, size, jnp.int32)
        parts.append(jax.nn.one_hot(values, size, dtype=z.dtype))
    return jnp.concatenate(parts, axis=1)


def names_of(num_classes: int) -> Names:
    """Return ImageNet's class names where there are as many classes, otherwise none."""
    return imagenet_names() if num_classes == len(imagenet_names()) else ()
