"""What a converter returns, the table that it reads, and the orders of axes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cgjax.generators.layers import FILTER_TAPS
from converters.networks import Network
from converters.tensors import Tensors

Turn = Callable[[np.ndarray], np.ndarray]


class Companion(NamedTuple):
    """A file that was read beside the checkpoint.

    Attributes:
        path: the file.
        sha256: its hash.
    """

    path: Path
    sha256: str

    @property
    def source(self) -> dict[str, str]:
        """What a manifest says of the file."""
        return {"name": self.path.name, "sha256": self.sha256}


class Conversion(NamedTuple):
    """A checkpoint in our terms.

    Attributes:
        family: a key of `cgjax.generators.families.FAMILIES`.
        architecture: the network's keyword arguments.
        arrays: every array of the network by dotted path, float32.
        assumed: what the tensors do not tell and the user did not say, each with the flag that
            changes it.
        companions: the files that were read beside the checkpoint.
    """

    family: str
    architecture: dict[str, Any]
    arrays: dict[str, np.ndarray]
    assumed: tuple[str, ...] = ()
    companions: tuple[Companion, ...] = ()


class Container(NamedTuple):
    """One published layout of a family's files.

    Attributes:
        name: how it is called on the command line and in reports.
        description: one line for `--list`.
        fits: whether a state dict, names without wrappers' prefixes, is this layout's generator.
        convert: (network, --set values) -> Conversion.
        is_loose: whether `fits` goes by shapes rather than by names: such a layout is asked only
            about what no other family's layout fits.
        transposed: whether 4-D weights are those of transposed convolutions, (in, out, h, w).
        parts: a pattern of the tensors' names that are parts of weights (`norms`) in the layout
            itself: its converter reads them.
    """

    name: str
    description: str
    fits: Callable[[Mapping[str, Any]], bool]
    convert: Callable[[Network, Mapping[str, str]], Conversion]
    is_loose: bool = False
    transposed: bool = False
    parts: str = ""


class Row(NamedTuple):
    """One line of a layout's table: an array of ours and the tensor that it is made from.

    Attributes:
        ours: the array's dotted path.
        theirs: the tensor's name.
        shape: the tensor's shape.
        scale: a factor that the file's own code applies at run time, baked in here.
        turn: from the tensor's order of axes to ours.
    """

    ours: str
    theirs: str
    shape: tuple[int, ...]
    scale: float = 1.0
    turn: Turn = np.asarray


# Their taps sum to 1, ours to the gain of zero insertion.
_USUAL_TAPS = [tap / 2 for tap in FILTER_TAPS]


def take_filter(tensors: Tensors, pattern: str, gain: float) -> list[float] | None:
    """Return the taps of an up-sampling filter, of which a file holds one copy a layer.

    Args:
        tensors: the file.
        pattern: of the copies' names.
        gain: what their numbers sum to.

    Returns:
        The taps along one axis, which sum to 1; None for those that our arithmetic has built in,
        or where there are none. A filter that is no product of one along each axis, or another one
        elsewhere, is noted.
    """
    names = tensors.names(pattern)
    found: list[float] | None = None
    for i, name in enumerate(names):
        shape = tensors.shape(name, -1)
        is_line = len(shape) == 1  # NVIDIA's code keeps one axis of a filter of 8 taps or more
        values = tensors.take(name, shape if is_line else (shape[0], shape[0])) / np.float32(gain)
        values = np.outer(values, values) if is_line else values
        taps = values.sum(axis=1, dtype=np.float64)
        if not np.allclose(np.outer(taps, taps), values, atol=1e-6):
            tensors.note(f"{name} is not the product of a filter that sums to 1 with itself")
        elif i and taps.tolist() != found:
            tensors.note(f"{name} is not the filter of {names[0]}")
        found = taps.tolist() if i == 0 else found
    if found is None or len(found) != len(_USUAL_TAPS):
        return found
    return None if np.allclose(found, _USUAL_TAPS, atol=1e-6) else found


def take_rows(tensors: Tensors, rows: Iterable[Row]) -> dict[str, np.ndarray]:
    """Return the arrays of a table; what is wrong with the tensors is collected in `tensors`."""
    arrays = {}
    for row in rows:
        value = tensors.take(row.theirs, row.shape)
        arrays[row.ours] = row.turn(value * np.float32(row.scale) if row.scale != 1 else value)
    return arrays


def conv_kernel(weight: np.ndarray) -> np.ndarray:
    """OIHW to HWIO."""
    return weight.transpose(2, 3, 1, 0)


def flipped_kernel(weight: np.ndarray) -> np.ndarray:
    """OIHW to HWIO, turned by 180 degrees: what a transposed convolution does with its kernel."""
    return conv_kernel(weight[:, :, ::-1, ::-1])


def pixel_kernel(weight: np.ndarray) -> np.ndarray:
    """OIHW of one pixel to [in, out]."""
    return weight[:, :, 0, 0].transpose(1, 0)


def first_kernel(weight: np.ndarray) -> np.ndarray:
    """OIHW over a padded 1x1 map to the dense [in, h, w, out]: it is read spatially flipped."""
    return weight[:, :, ::-1, ::-1].transpose(1, 2, 3, 0)


def channels_last(array: np.ndarray) -> np.ndarray:
    """NCHW to NHWC."""
    return array.transpose(0, 2, 3, 1)


def constant(weight: np.ndarray) -> np.ndarray:
    """1CHW to HWC."""
    return weight[0].transpose(1, 2, 0)


def dense_kernel(weight: np.ndarray) -> np.ndarray:
    """[out, in] to [in, out]."""
    return weight.transpose(1, 0)
