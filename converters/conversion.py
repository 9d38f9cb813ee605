"""What a converter returns, and the layouts that all of them turn around."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from converters.reading import Checkpoint


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
