"""The file that edit directions are saved in."""

from __future__ import annotations

import dataclasses
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from cgjax.directions.edits import Directions
from cgjax.errors import UserError
from cgjax.runtime.files import write_atomically


def save_directions(directions: Directions, path: str | Path) -> None:
    """Write an .npz of plain arrays (no pickle inside), whole or not at all."""
    data = io.BytesIO()
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in vars(directions).items()}
    np.savez(data, **arrays)
    write_atomically(path, data.getvalue())


def load_directions(path: str | Path) -> Directions:
    """Read what `save_directions` wrote; nothing in the file can run.

    Raises:
      UserError: the file is missing, is not such an archive, or holds arrays that do not fit.
    """
    names = [field.name for field in dataclasses.fields(Directions)]
    try:
        content = io.BytesIO(Path(path).read_bytes())
        with np.load(content, allow_pickle=False) as archive:
            found = {name: archive[name] for name in names}
    except FileNotFoundError as error:
        raise UserError(f"no file {path}; fit the directions first") from error
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} does not hold saved directions ({error}); fit them again"
        ) from error
    vectors = found["vectors"]
    k, d = vectors.shape if vectors.ndim == 2 else (-1, -1)
    if not found["strengths"].shape == found["scales"].shape == (k,) or found["mean"].shape != (d,):
        raise UserError(f"{path} holds arrays that do not fit each other; fit the directions again")
    return Directions(
        method=str(found["method"]),
        space=str(found["space"]),
        layers=tuple(str(layer) for layer in found["layers"]),
        **{n: found[n].astype(np.float32) for n in ("vectors", "strengths", "scales", "mean")},
    )
