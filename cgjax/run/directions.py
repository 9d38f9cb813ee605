"""Saving and loading edit directions."""

from __future__ import annotations

import dataclasses
import io
import zipfile
from pathlib import Path

import numpy as np

from cgjax.directions.edits import Directions
from cgjax.errors import UserError
from cgjax.runtime.array_files import write_npz
from cgjax.runtime.files import missing, user_path


def save_directions(directions: Directions, path: str | Path) -> None:
    """Write directions to an .npz of plain arrays (no pickle inside), atomically."""
    write_npz(user_path(path), **vars(directions))


def load_directions(path: str | Path) -> Directions:
    """Read a file of `save_directions`; nothing in it can run.

    Raises:
      UserError: the file is missing, is not such an archive, or its arrays do not match.
    """
    names = [field.name for field in dataclasses.fields(Directions)]
    try:
        content = io.BytesIO(user_path(path).read_bytes())
        with np.load(content, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in names}
    except FileNotFoundError as error:
        raise UserError(f"{missing(user_path(path))}; fit the directions first") from error
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} does not hold saved directions ({error}); fit them again"
        ) from error
    vectors = arrays["vectors"]
    k, d = vectors.shape if vectors.ndim == 2 else (-1, -1)
    shapes = [arrays[name].shape for name in ("strengths", "scales", "mean")]
    if shapes != [(k,), (k,), (d,)]:
        raise UserError(f"{path} holds arrays that do not match; fit the directions again")
    return Directions(
        method=str(arrays["method"]),
        space=str(arrays["space"]),
        layers=tuple(str(layer) for layer in arrays["layers"]),
        **{n: arrays[n].astype(np.float32) for n in ("vectors", "strengths", "scales", "mean")},
    )
