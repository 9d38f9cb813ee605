"""The mapping networks of all StyleGANs but the GAN zoo's."""

from __future__ import annotations

import math
from collections.abc import Callable

from converters.axes import dense_kernel
from converters.rows import Row, layer_rows
from converters.tensors import Tensors

RATE = 0.01
"""The usual learning-rate factor of a mapping network."""


def fan_in_scale(fan_in: int) -> float:
    """Return the run-time scale 1 / sqrt(fan_in)."""
    return 1 / math.sqrt(fan_in)


def mapping_rows(
    tensors: Tensors,
    name: str,
    rate: float,
    scale: Callable[[int], float] = fan_in_scale,
    first: int = 0,
) -> tuple[list[int], list[Row]]:
    """Return the widths of a mapping network, its input's first, and its rows.

    Args:
        tensors: the file's tensors.
        name: the layers' name with one {}.
        rate: the learning-rate factor, which scales weights and biases.
        scale: the weights' run-time scale by their fan-in.
        first: the first layer's number.
    """
    widths = [tensors.shape(f"{name.format(first)}.weight", 2)[1]]
    rows: list[Row] = []
    for i in range(tensors.count(f"{name}.weight") - first):
        layer, width_in = name.format(first + i), widths[-1]
        widths.append(tensors.shape(f"{layer}.weight", 2)[0])
        ours, shape = (f"mapping.{i}", f"mapping_biases.{i}"), (widths[-1], width_in)
        rows += layer_rows(ours, layer, shape, dense_kernel, rate * scale(width_in), rate)
    return widths, rows
