"""What the two BigGANs have in common: spectral norms and attention."""

from __future__ import annotations

import numpy as np

from converters.tensors import Tensors


def attention_layers(width: int) -> tuple[tuple[str, str, int, int], ...]:
    """Return (their name, our name, channels out, channels in) of an attention's convolutions."""
    return (
        ("theta", "query", width // 8, width),
        ("phi", "key", width // 8, width),
        ("g", "value", width // 2, width),
        ("o", "out", width, width // 2),
    )


def spectrally_normalized(
    tensors: Tensors, name: str, weight: np.ndarray, u: np.ndarray, v: np.ndarray | None, eps: float
) -> np.ndarray:
    """Return W / sigma, sigma = u . (W v) with W as (out, rest), in double precision.

    Args:
        tensors: the file's tensors, where a sigma of 0 is noted as a problem.
        name: the weight's name.
        weight: W, outputs first.
        u: (out,), as stored.
        v: (rest,), as stored; None to take one power iteration from u.
        eps: least norm that u and v are divided by in the iteration.
    """
    matrix, u = weight.reshape(len(weight), -1).astype(np.float64), u.astype(np.float64)
    if v is None:
        v = _unit(matrix.T @ u, eps)
        u = _unit(matrix @ v, eps)
    sigma = float(u @ matrix @ v.astype(np.float64))
    if sigma == 0 or not np.isfinite(sigma):
        tensors.note(f"{name} has a spectral norm of {sigma}")
        sigma = 1.0
    return (weight / sigma).astype(np.float32)


def _unit(x: np.ndarray, eps: float) -> np.ndarray:
    return x / max(float(np.linalg.norm(x)), eps)
