"""What a converter returns, the tables it reads tensors by, and the orders of axes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cgjax.generators.layers import FILTER_TAPS
from converters.networks import Network
from converters.tensors import Tensors

Transform = Callable[[np.ndarray], np.ndarray]


class Companion(NamedTuple):
    """A file that was read along with the checkpoint.

    Attributes:
        path: the file.
        sha256: its hash.
    """

    path: Path
    sha256: str

    @property
    def source(self) -> dict[str, str]:
        """The file's entry in a manifest."""
        return {"name": self.path.name, "sha256": self.sha256}


class Conversion(NamedTuple):
    """A checkpoint in our terms.

    Attributes:
        family: a key of `cgjax.generators.families.FAMILIES`.
        architecture: the network's keyword arguments.
        arrays: every array of the network by dotted path, float32.
        assumed: what neither the tensors nor the user specified, each with the flag that changes
            it.
        companions: the files that were read along with the checkpoint.
    """

    family: str
    architecture: dict[str, Any]
    arrays: dict[str, np.ndarray]
    assumed: tuple[str, ...] = ()
    companions: tuple[Companion, ...] = ()


class Layout(NamedTuple):
    """One published layout of a family's files.

    Attributes:
        name: its name on the command line and in reports.
        description: one line for `--list`.
        fits: whether a state dict, stripped of wrappers' prefixes, is a generator in this layout.
        convert: (network, --set values) -> Conversion.
        is_loose: whether `fits` goes by shapes rather than by names: such a layout is tried only
            where no layout of any family fits by name.
        transposed: whether 4-D weights are those of transposed convolutions, (in, out, h, w).
        parts: a pattern of tensor names that look like the parts of a weight (`norms`) but are left
            alone: this layout's converter reads them itself.
    """

    name: str
    description: str
    fits: Callable[[Mapping[str, Any]], bool]
    convert: Callable[[Network, Mapping[str, str]], Conversion]
    is_loose: bool = False
    transposed: bool = False
    parts: str = ""


class Row(NamedTuple):
    """A row of a layout's table: one of our arrays and the tensor it is made from.

    Attributes:
        ours: the array's dotted path.
        theirs: the tensor's name.
        shape: the tensor's shape.
        scale: a factor that the file's own code applies at run time, folded in here.
        transform: from the tensor's order of axes to ours.
    """

    ours: str
    theirs: str
    shape: tuple[int, ...]
    scale: float = 1.0
    transform: Transform = np.asarray


def layer_rows(
    ours: tuple[str, str],
    theirs: str,
    shape: tuple[int, ...],
    transform: Transform,
    scale: float = 1.0,
    bias_scale: float = 1.0,
) -> tuple[Row, Row]:
    """Return the rows of a layer with a weight and a bias.

    Args:
        ours: our names of the kernel and the bias.
        theirs: the layer's name.
        shape: shape of the weight, outputs first.
        transform: from the weight's order of axes to ours.
        scale: factor of the weight.
        bias_scale: factor of the bias.
    """
    kernel, bias = ours
    return (
        Row(kernel, f"{theirs}.weight", shape, scale, transform),
        Row(bias, f"{theirs}.bias", shape[:1], bias_scale),
    )


def take_rows(tensors: Tensors, rows: Iterable[Row]) -> dict[str, np.ndarray]:
    """Return the arrays of a table; problems with the tensors are collected in `tensors`."""
    arrays = {}
    for row in rows:
        value = tensors.take(row.theirs, row.shape)
        value = value * np.float32(row.scale) if row.scale != 1 else value
        arrays[row.ours] = row.transform(value)
    return arrays


# Stored taps sum to 1, ours to the gain of zero insertion.
_USUAL_TAPS = [tap / 2 for tap in FILTER_TAPS]


def take_filter(tensors: Tensors, pattern: str, gain: float) -> list[float] | None:
    """Return the taps of an upsampling filter, which a file stores once for every layer.

    Args:
        tensors: the file's tensors.
        pattern: matches the names of the copies.
        gain: the sum of a copy's entries.

    Returns:
        The taps along one axis, which sum to 1; None if they are the usual ones, which are built
        in, or if there are none. A filter that is not separable, or differs between layers, is
        noted as a problem.
    """
    names = tensors.names(pattern)
    first_taps: list[float] | None = None
    for i, name in enumerate(names):
        shape = tensors.shape(name, -1)
        is_line = len(shape) == 1  # NVIDIA's code stores one axis of a filter of 8 taps or more
        values = tensors.take(name, shape if is_line else (shape[0], shape[0])) / np.float32(gain)
        values = np.outer(values, values) if is_line else values
        taps = values.sum(axis=1, dtype=np.float64)
        if not np.allclose(np.outer(taps, taps), values, atol=1e-6):
            tensors.note(f"{name} is not the product of a filter that sums to 1 with itself")
        elif i and taps.tolist() != first_taps:
            tensors.note(f"{name} is not the filter of {names[0]}")
        first_taps = taps.tolist() if i == 0 else first_taps
    if first_taps is None or len(first_taps) != len(_USUAL_TAPS):
        return first_taps
    return None if np.allclose(first_taps, _USUAL_TAPS, atol=1e-6) else first_taps


def conv_kernel(weight: np.ndarray) -> np.ndarray:
    """OIHW to HWIO."""
    return weight.transpose(2, 3, 1, 0)


def flipped_kernel(weight: np.ndarray) -> np.ndarray:
    """OIHW to HWIO, rotated by 180 degrees, as a transposed convolution applies its kernel."""
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
