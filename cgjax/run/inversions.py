"""The inversions found so far, by the images' content, so that a killed command resumes."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import logging

from cgjax.inversion.inverter import Inverted
from cgjax.runtime.array_files import write_npz
from cgjax.runtime.files import make_folder


class Inversions:
    """A file of inversions, by the hash of the inverted image.

    It belongs to one encoder and one way to search: a file of another key is ignored, and so is one
    whose content does not match its hash.
    """

    def __init__(self, path: Path, key: str):
        """Read the file, if it exists and has this key.

        Args:
            path: the file.
            key: a hash of everything that inversions depend on.
        """
        self._path, self._key = path, key
        self._rows: dict[str, int] = {}
        self._found: Inverted | None = None
        if path.is_file():
            self._read()

    def missing(self, ids: Sequence[str]) -> list[str]:
        """Return the ids that are not in the file, each once, in their order."""
        return [id_ for id_ in dict.fromkeys(ids) if id_ not in self._rows]

    def add(self, ids: Sequence[str], found: Inverted) -> None:
        """Save the inversions of new images; the file is whole at any time."""
        old, first = self._found, len(self._rows)
        parts = found if old is None else map(np.concatenate, zip(old, found, strict=True))
        self._found = Inverted(*parts)
        self._rows |= {id_: first + i for i, id_ in enumerate(ids)}
        arrays = self._found._asdict()
        digest = _digest(self._key, list(self._rows), arrays)
        make_folder(self._path.parent)
        write_npz(self._path, key=self._key, ids=list(self._rows), digest=digest, **arrays)

    def of(self, ids: Sequence[str]) -> Inverted:
        """Return the inversions of at least one image, all of them in the file."""
        assert self._found is not None
        rows = [self._rows[id_] for id_ in ids]
        return Inverted(*(part[rows] for part in self._found))

    def _read(self) -> None:
        try:
            with np.load(self._path, allow_pickle=False) as arrays:
                ids = [str(id_) for id_ in arrays["ids"]]
                found = {name: arrays[name] for name in Inverted._fields}
                key, digest = str(arrays["key"]), str(arrays["digest"])
            is_intact = digest == _digest(key, ids, found)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            key, is_intact = "", False
        if not is_intact:
            logging.warning("%s is damaged: its inversions are recomputed", self._path)
        elif key == self._key:
            self._rows = {id_: i for i, id_ in enumerate(ids)}
            self._found = Inverted(**found)


def _digest(key: str, ids: Sequence[str], arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(f"{key} {' '.join(ids)}".encode())
    for name in Inverted._fields:
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()
