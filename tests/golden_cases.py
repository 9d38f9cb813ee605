"""The numeric fixtures of the reference networks, and how to compare with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

GOLDEN = Path(__file__).parent / "golden"


class Golden(NamedTuple):
    """One fixture: its checkpoint file, its arrays and its meta.json."""

    checkpoint: Path
    arrays: dict[str, np.ndarray]
    meta: dict[str, Any]


def load_golden(name: str) -> Golden:
    """Read a fixture's folder."""
    folder = GOLDEN / name
    meta = json.loads((folder / "meta.json").read_text())
    arrays = dict(np.load(folder / "golden.npz"))
    return Golden(folder / meta["checkpoint"], arrays, meta)


def error(ours: Any, reference: np.ndarray) -> float:
    """Return max|a - b| / max(1, max|b|), NCHW references turned to our NHWC."""
    if reference.ndim == 4:
        reference = reference.transpose(0, 2, 3, 1)
    ours = np.asarray(ours)
    assert ours.shape == reference.shape, (ours.shape, reference.shape)
    return float(np.abs(ours - reference).max() / max(1.0, np.abs(reference).max()))


# The fixtures' bound (shared notes on the formats): rounding of float32 is 3e-5 at the worst, any
# wrong scale, order or flip is of order 1.
TOLERANCE = 1e-4
