"""The tables that tensors are read by, a row for each array of ours."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from converters.axes import Transform
from converters.tensors import Tensors


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
