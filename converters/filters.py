"""Upsampling filters, which files hold although they are nearly always the same."""

from __future__ import annotations

import numpy as np

from cgjax.generators.layers import FILTER_TAPS
from converters.tensors import Tensors

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
