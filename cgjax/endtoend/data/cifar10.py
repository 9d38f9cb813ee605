"""CIFAR-10 as published, in its binary version [Krizhevsky 2009].

A record is a byte for the class, then 1,024 bytes each of red, green and blue.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib

import numpy as np
from jaxtyping import Int, UInt8

from cgjax.endtoend.data.images import FixedImages
from cgjax.errors import UserError
from cgjax.runtime.files import missing, say_os_error, user_path

OPTION = "--config.data.path"

SIDE, CLASSES = 32, 10
RECORD = 1 + 3 * SIDE**2
FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
RECORDS = 10_000
"""Number of images in each file."""


@dataclasses.dataclass(frozen=True)
class Cifar10(FixedImages):
    """CIFAR-10's 50,000 training images.

    Attributes:
        source: the folder with `data_batch_1.bin` to `data_batch_5.bin`.
        flip: whether training mirrors images.
        features: what distances are measured in; see `ImageSet`.
        num_classes: 10.
    """

    source: str
    flip: bool = True
    features: str = "pca_pixels"
    num_classes: int = CLASSES

    def row_shape(self) -> tuple[int, ...]:
        """Return the shape of an image."""
        return (SIDE, SIDE, 3)

    def identity(self) -> str:
        """Return a hash of all records."""
        return _records(self.source)[2]

    @property
    def all_rows(self) -> UInt8[np.ndarray, "n h w c"]:
        """All images.

        Raises:
            UserError: no folder; one of the five files is missing, truncated, a copy of another,
                or not CIFAR-10.
        """
        return _records(self.source)[0]

    @property
    def all_classes(self) -> Int[np.ndarray, " n"]:
        """The true class of each image."""
        return _records(self.source)[1]


@functools.lru_cache(maxsize=1)
def _records(
    source: str,
) -> tuple[UInt8[np.ndarray, "n 32 32 3"], Int[np.ndarray, " n"], str]:
    """Return the images, their classes, and a hash of both."""
    expected = (
        f"expected the folder of CIFAR-10's binary version, with {FILES[0]} to "
        f"{FILES[-1]} (unpack cifar-10-binary.tar.gz)"
    )
    if not source:
        raise UserError(f"{OPTION}: {expected}")
    folder = user_path(source)
    if not folder.is_dir():
        raise UserError(f"{OPTION}: {missing(folder, 'folder')}; {expected}")
    paths = [folder / name for name in FILES]
    absent = [path.name for path in paths if not path.is_file()]
    if absent:
        raise UserError(f"{OPTION}={source}: no {', '.join(absent)} there; {expected}")
    parts: list[UInt8[np.ndarray, "n bytes"]] = []
    for path in paths:
        try:
            content = np.frombuffer(path.read_bytes(), np.uint8)
        except OSError as error:
            raise UserError(f"{OPTION}: {say_os_error(error)}") from error
        if len(content) != RECORDS * RECORD:
            raise UserError(
                f"{OPTION}: {path} has {len(content)} bytes; expected {RECORDS} records of "
                f"{RECORD} bytes: it is damaged or not CIFAR-10's binary version"
            )
        records = content.reshape(-1, RECORD)
        if records[:, 0].max() >= CLASSES:
            raise UserError(
                f"{OPTION}: {path} has the class {records[:, 0].max()}; expected 0 to "
                f"{CLASSES - 1}: it is damaged or not CIFAR-10's binary version"
            )
        for earlier, other in zip(paths, parts, strict=False):
            if np.array_equal(records, other):
                raise UserError(
                    f"{OPTION}: {path} is a copy of {earlier.name}; unpack cifar-10-binary.tar.gz "
                    "again"
                )
        parts.append(records)
    whole = np.concatenate(parts)
    planes = whole[:, 1:].reshape(-1, 3, SIDE, SIDE)
    images = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
    return images, whole[:, 0].astype(np.int32), hashlib.sha256(whole.tobytes()).hexdigest()
