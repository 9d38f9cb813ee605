"""Images of the user's own: a folder of files of any size, or CIFAR-10 as it is published."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Int, PRNGKeyArray, UInt8

from cgjax.endtoend.data.base import Points
from cgjax.endtoend.data.images import (
    ImageSet,
    distances,
    drawn,
    reference_key,
    reference_of,
)
from cgjax.endtoend.data.on_disk import CHANNELS, RowsOnDisk, check_grain
from cgjax.errors import UserError
from cgjax.evaluation.features import Projected
from cgjax.evaluation.modes import PerfectScore, over_repeats
from cgjax.numerics.pca import fit_pca
from cgjax.runtime.files import say_os_error
from cgjax.runtime.keys import named_key
from cgjax.runtime.photos import Photo, file_digest, list_images, read_photo
from cgjax.runtime.png import as_bytes

OPTION = "--config.data.path"

FEWEST = 2
"""Images without which there is nothing to learn from."""

CIFAR_SIDE, CIFAR_CLASSES = 32, 10
CIFAR_RECORD = 1 + 3 * CIFAR_SIDE**2
CIFAR_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
CIFAR_RECORDS = 10_000
"""Images in each of the files."""


class FixedImages(ImageSet):
    """Images that are there; a draw is some of them, in an order of its own."""

    @property
    def all_rows(self) -> UInt8[np.ndarray, "n h w c"] | RowsOnDisk:
        """All of them."""
        raise NotImplementedError

    @property
    def all_classes(self) -> Int[np.ndarray, " n"]:
        """The true class of each."""
        return np.zeros(len(self.all_rows), np.int32)

    @property
    def num_images(self) -> int:
        """How many there are."""
        return len(self.all_rows)

    def available(self, num: int) -> int:
        """Return `num`, or how many there are where they are fewer."""
        return min(num, self.num_images)

    def draw(self, key: PRNGKeyArray, num: int) -> Points:
        """Return as many of them, no one twice; all where there are fewer."""
        rows = self.all_rows
        order = np.asarray(jax.random.permutation(key, len(rows)))[:num]
        some = rows.some(order) if isinstance(rows, RowsOnDisk) else jnp.asarray(rows[order])
        return Points(some, jnp.asarray(self.all_classes[order]))

    def compared(self, num: int) -> int:
        """Return `num`, or half of them: no image is compared with itself."""
        return min(num, self.num_images // 2)

    def perfect(self, key: PRNGKeyArray, num: int, repeats: int) -> dict[str, PerfectScore]:
        """Return what they score themselves: halves of twice as many, over random splits.

        Generated images are compared with one such half, in components that are fitted to it alone;
        so are the other halves here, for images that components are fitted to seem more apart.
        """
        num = self.compared(num)
        features, _ = reference_of(self, num)
        base = features.extractor if isinstance(features, Projected) else features
        pool = base(drawn(self, reference_key(), 2 * num))

        def score(repeat: int) -> dict[str, float]:
            order = jax.random.permutation(named_key(key, "perfect", repeat), 2 * num)
            reference, others = (pool[half] for half in np.asarray(order).reshape(2, num))
            if isinstance(features, Projected):
                pca = fit_pca(reference, len(features.pca.components))
                reference, others = pca.project(reference), pca.project(others)
            return distances(features, others, reference)

        return over_repeats(score, repeats)

    def notes(self, key: PRNGKeyArray, num: int, repeats: int) -> dict[str, Any]:
        """Say what the distances are measured in, how many there are, and what is perfect."""
        compared = self.compared(num)
        return {
            **super().notes(key, num, repeats),
            "images": self.num_images,
            "perfect sampler": f"{compared} of the images, beside {compared} others",
            "compared": f"{compared} generated images with as many of the images",
        }


@dataclasses.dataclass(frozen=True)
class FolderImages(FixedImages):
    """Every image in a folder and the folders inside it: its middle square, resized.

    Attributes:
        source: the folder.
        size: height and width that they are resized to.
        flip: whether training mirrors them.
        features: what distances are measured in; see `ImageSet`.
        memory_mb: more than this are not held in memory but read from their files each time.
        num_classes: 1: none are known.
    """

    source: str
    size: int = 64
    flip: bool = True
    features: str = "pca_pixels"
    memory_mb: int = 4096
    num_classes: int = 1

    def row_shape(self) -> tuple[int, ...]:
        """Of an image, in colour."""
        return (self.size, self.size, CHANNELS)

    def identity(self) -> str:
        """A hash of all files' contents."""
        if self.is_on_disk:
            return _of_all(photo.digest for photo in _contents(self.source))
        return _read(self.source, self.size)[1]

    @property
    def is_on_disk(self) -> bool:
        """Whether the images stay there."""
        return len(_files(self.source)) * math.prod(self.row_shape()) > self.memory_mb * 2**20

    @property
    def num_images(self) -> int:
        """How many there are; reads none.

        Raises:
            UserError: no folder, no or too few images; without grain, more than memory holds.
        """
        if self.is_on_disk:
            check_grain(OPTION)
        return len(_files(self.source))

    @property
    def all_rows(self) -> UInt8[np.ndarray, "n h w c"] | RowsOnDisk:
        """All of them, in memory read once.

        Raises:
            UserError: no folder, no or too few images, one that cannot be read.
        """
        if self.is_on_disk:
            return RowsOnDisk(_contents(self.source), self.size, OPTION)
        return _read(self.source, self.size)[0]


@functools.lru_cache(maxsize=1)
def _files(source: str) -> tuple[Path, ...]:
    if not source:
        raise UserError(f"{OPTION}: expected the folder of your images, with data.name=folder")
    paths = list_images(Path(source).expanduser(), OPTION, deep=True)
    if len(paths) < FEWEST:
        raise UserError(f"{OPTION}={source}: one image; expected at least {FEWEST}")
    return tuple(paths)


@functools.lru_cache(maxsize=1)
def _read(source: str, size: int) -> tuple[UInt8[np.ndarray, "n s s 3"], str]:
    """Return a folder's images, and a hash of their files' contents."""
    paths = _files(source)
    rows, digests = np.empty((len(paths), size, size, CHANNELS), np.uint8), []
    for row, path in zip(rows, paths, strict=True):
        image, digest = read_photo(path, size, CHANNELS, OPTION)
        row[:] = as_bytes(image)
        digests.append(digest)
    return rows, _of_all(digests)


@functools.lru_cache(maxsize=1)
def _contents(source: str) -> tuple[Photo, ...]:
    """Return the files and their hashes; decodes none; by several threads, for it reads it all."""
    paths = _files(source)
    logging.info("data: reading the %d files of %s once", len(paths), source)
    with ThreadPoolExecutor() as threads:
        return tuple(threads.map(lambda path: Photo(path, file_digest(path, OPTION)), paths))


def _of_all(digests: Iterable[str]) -> str:
    content = hashlib.sha256()
    for digest in digests:
        content.update(digest.encode())
    return content.hexdigest()


@dataclasses.dataclass(frozen=True)
class Cifar10(FixedImages):
    """CIFAR-10's 50,000 training images [Krizhevsky 2009], of its binary version.

    A record is a byte for the class, then 1,024 bytes each of red, green and blue.

    Attributes:
        source: the folder of `data_batch_1.bin` and the others.
        flip: whether training mirrors them.
        features: what distances are measured in; see `ImageSet`.
        num_classes: 10.
    """

    source: str
    flip: bool = True
    features: str = "pca_pixels"
    num_classes: int = CIFAR_CLASSES

    def row_shape(self) -> tuple[int, ...]:
        """Of an image."""
        return (CIFAR_SIDE, CIFAR_SIDE, 3)

    def identity(self) -> str:
        """A hash of all records."""
        return _records(self.source)[2]

    @property
    def all_rows(self) -> UInt8[np.ndarray, "n h w c"]:
        """All of them.

        Raises:
            UserError: no folder, one of the five files missing, cut off or there twice, a file
                that is no CIFAR-10.
        """
        return _records(self.source)[0]

    @property
    def all_classes(self) -> Int[np.ndarray, " n"]:
        """The true class of each."""
        return _records(self.source)[1]


@functools.lru_cache(maxsize=1)
def _records(
    source: str,
) -> tuple[UInt8[np.ndarray, "n 32 32 3"], Int[np.ndarray, " n"], str]:
    """Return the images, their classes, and a hash of both."""
    wanted = (
        f"expected the folder of CIFAR-10's binary version, with {CIFAR_FILES[0]} to "
        f"{CIFAR_FILES[-1]} in it (unpack cifar-10-binary.tar.gz)"
    )
    if not source:
        raise UserError(f"{OPTION}: {wanted}")
    paths = [Path(source).expanduser() / name for name in CIFAR_FILES]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise UserError(f"{OPTION}={source}: no {', '.join(missing)} there; {wanted}")
    parts: list[UInt8[np.ndarray, "n bytes"]] = []
    for path in paths:
        try:
            content = np.frombuffer(path.read_bytes(), np.uint8)
        except OSError as error:
            raise UserError(f"{OPTION}: {say_os_error(error)}") from error
        if len(content) != CIFAR_RECORDS * CIFAR_RECORD:
            raise UserError(
                f"{OPTION}: {path} has {len(content)} bytes; expected {CIFAR_RECORDS} records of "
                f"{CIFAR_RECORD}: it is damaged or not of CIFAR-10's binary version"
            )
        records = content.reshape(-1, CIFAR_RECORD)
        if records[:, 0].max() >= CIFAR_CLASSES:
            raise UserError(
                f"{OPTION}: {path} has the class {records[:, 0].max()}; expected 0 to "
                f"{CIFAR_CLASSES - 1}: it is damaged or not of CIFAR-10's binary version"
            )
        for known, other in zip(paths, parts, strict=False):
            if np.array_equal(records, other):
                raise UserError(
                    f"{OPTION}: {path} holds what {known.name} does; unpack cifar-10-binary.tar.gz "
                    "again"
                )
        parts.append(records)
    whole = np.concatenate(parts)
    planes = whole[:, 1:].reshape(-1, 3, CIFAR_SIDE, CIFAR_SIDE)
    images = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
    return images, whole[:, 0].astype(np.int32), hashlib.sha256(whole.tobytes()).hexdigest()
