"""Files of published networks' weights that the user gives: read, and checked tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from cgjax.errors import UserError
from cgjax.runtime.files import missing, user_path


def read_tensors(path: str | Path, how: str) -> dict[str, np.ndarray]:
    """Read a safetensors file.

    Args:
        path: of the file.
        how: what to do instead, for messages.

    Raises:
        UserError: the file does not exist, is not safetensors, or has types that NumPy lacks.
    """
    path = user_path(path)
    if not path.is_file():
        raise UserError(f"{missing(path)}; {how}")
    try:
        return load_file(path)
    except (SafetensorError, OSError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"not a safetensors file ({error}); {how}") from error


def check_tensors(
    tensors: Mapping[str, np.ndarray],
    shapes: Mapping[str, tuple[int, ...]],
    what: str,
    how: str,
    not_negative: tuple[str, str],
) -> None:
    """Check the tensors of these names; others are not read.

    Args:
        tensors: by name.
        shapes: what theirs should be.
        what: they should be, for messages.
        how: what to do instead, for messages.
        not_negative: part of the names of those that cannot be below 0, and what they are.

    Raises:
        UserError: naming those that are missing, of another shape, not finite floats, or below 0.
    """
    wrong = [f"{name} is missing" for name in shapes if name not in tensors]
    for name, shape in shapes.items():
        if name in tensors and (problem := _problem(name, tensors[name], shape, *not_negative)):
            wrong.append(f"{name} {problem}")
    if wrong:
        raise UserError(f"not {what} ({len(wrong)} wrong: {'; '.join(wrong[:4])}); {how}")


def _problem(name: str, tensor: np.ndarray, shape: tuple[int, ...], part: str, word: str) -> str:
    if tensor.shape != shape:
        return f"has shape {tensor.shape}, not {shape}"
    if not jnp.issubdtype(tensor.dtype, jnp.floating):
        return f"holds {tensor.dtype}, not floats"
    if not np.isfinite(tensor).all():
        return "holds NaN or an infinity"
    return f"holds a {word} below 0" if part in name and tensor.min() < 0 else ""
