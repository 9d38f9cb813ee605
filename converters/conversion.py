"""What a converter returns, and the layouts that all of them turn around."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from converters.reading import Checkpoint, is_state_dict, strip_prefix


class Conversion(NamedTuple):
    """A checkpoint in our terms.

    Attributes:
        family: a key of `cgjax.generators.families.FAMILIES`.
        architecture: the network's keyword arguments.
        arrays: every array of the network by dotted path, float32.
    """

    family: str
    architecture: dict[str, Any]
    arrays: dict[str, np.ndarray]


class Container(NamedTuple):
    """One published layout of a family's files.

    Attributes:
        name: how it is called on the command line and in reports.
        description: one line for `--list`.
        recognize: whether a file's content has this layout.
        convert: (checkpoint, --set values) -> Conversion.
    """

    name: str
    description: str
    recognize: Callable[[Checkpoint], bool]
    convert: Callable[[Checkpoint, Mapping[str, str]], Conversion]


def conv_kernel(weight: np.ndarray) -> np.ndarray:
    """OIHW to HWIO."""
    return weight.transpose(2, 3, 1, 0)


def dense_kernel(weight: np.ndarray) -> np.ndarray:
    """[out, in] to [in, out]."""
    return weight.transpose(1, 0)


def state_dicts(checkpoint: Checkpoint) -> list[Mapping[str, Any]]:
    """Return every state dict in the file, at the top or up to two levels down.

    Names come without DataParallel's prefix and without the GAN zoo's infix.
    """
    content = checkpoint.content
    if not isinstance(content, Mapping):
        return []
    places = [content, *content.values()]
    places += [
        v for value in content.values() if isinstance(value, Mapping) for v in value.values()
    ]
    return [
        {name.replace(".module.", "."): v for name, v in strip_prefix(place).items()}
        for place in places
        if is_state_dict(place)
    ]


def has_tensors(checkpoint: Checkpoint, *names: str) -> bool:
    """Whether one of the file's state dicts has all of these names."""
    return any(all(name in state for name in names) for state in state_dicts(checkpoint))
