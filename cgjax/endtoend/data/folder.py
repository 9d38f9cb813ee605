"""The user's own images: a folder of files of any size, or CIFAR-10 as published."""

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
from cgjax.evaluation.extractors import Projected
from cgjax.evaluation.modes import PerfectScore, over_repeats
from cgjax.numerics.pca import fit_pca
from cgjax.runtime.files import say_os_error
from cgjax.runtime.keys import named_key
from cgjax.runtime.photos import Photo, file_digest, list_images, read_photo
from cgjax.runtime.png import as_uint8

OPTION = "--config.data.path"

FEWEST = 2
"""Minimum number of images."""

CIFAR_SIDE, CIFAR_CLASSES = 32, 10
CIFAR_RECORD = 1 + 3 * CIFAR_SIDE**2
CIFAR_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
CIFAR_RECORDS = 10_000
"""Number of images in each file."""


class FixedImages(ImageSet):
    """A fixed set of images; a draw takes some of them in random order."""

    @property
    def all_rows(self) -> UInt8[np.ndarray, "n h w c"] | RowsOnDisk:
        """All images."""
        raise NotImplementedError

    @property
    def all_classes(self) -> Int[np.ndarray, " n"]:
        """The true class of each image."""
        return np.zeros(len(self.all_rows), np.int32)

    @property
    def num_images(self) -> int:
        """Number of images."""
        return len(self.all_rows)

    def available(self, num: int) -> int:
        """Return `num`, or the number of images if there are fewer."""
        return min(num, self.num_images)

    def draw(self, key: PRNGKeyArray, num: int) -> Points:
        """Return `num` different images, or all if there are fewer."""
        rows = self.all_rows
        order = np.asarray(jax.random.permutation(key, len(rows)))[:num]
        drawn = rows.take(order) if isinstance(rows, RowsOnDisk) else jnp.asarray(rows[order])
        return Points(drawn, jnp.asarray(self.all_classes[order]))

    def compared(self, num: int) -> int:
        """Return `num`, but at most half of the images: no image is compared with itself."""
        return min(num, self.num_images // 2)

    def perfect(self, key: PRNGKeyArray, num: int, repeats: int) -> dict[str, PerfectScore]:
        """Return what the images score against each other: two halves, over random splits.

        Generated images are compared with one half, in components fitted to that half alone. The
        same is done here with the other half, since images seem farther apart in components that
        are fitted to them.
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
        """Return the features of the distances, the number of images, and what is compared."""
        compared = self.compared(num)
        return {
            **super().notes(key, num, repeats),
            "images": self.num_images,
            "perfect sampler": f"{compared} of the images, compared with {compared} others",
            "compared": f"{compared} generated images with {compared} of the images",
        }


@dataclasses.dataclass(frozen=True)
class FolderImages(FixedImages):
    """The centre square, resized, of every image in a folder and its subfolders.

    Attributes:
        source: the folder.
        size: height and width that images are resized to.
        flip: whether training mirrors images.
        features: what distances are measured in; see `ImageSet`.
        memory_mb: images that need more than this stay on disk and are read whenever needed.
        num_classes: 1, as none are known.
    """

    source: str
    size: int = 64
    flip: bool = True
    features: str = "pca_pixels"
    memory_mb: int = 4096
    num_classes: int = 1

    def row_shape(self) -> tuple[int, ...]:
        """Return the shape of an image, in colour."""
        return (self.size, self.size, CHANNELS)

    def identity(self) -> str:
        """Return a hash of all files' contents."""
        if self.is_on_disk:
            return _of_all(photo.digest for photo in _contents(self.source))
        return _read(self.source, self.size)[1]

    @property
    def is_on_disk(self) -> bool:
        """Whether the images stay on disk."""
        return len(_files(self.source)) * math.prod(self.row_shape()) > self.memory_mb * 2**20

    @property
    def num_images(self) -> int:
        """Number of images; reads none.

        Raises:
            UserError: no folder, no or too few images; more than fit in memory, without grain.
        """
        if self.is_on_disk:
            check_grain(OPTION)
        return len(_files(self.source))

    @property
    def all_rows(self) -> UInt8[np.ndarray, "n h w c"] | RowsOnDisk:
        """All images; those in memory are read once.

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
        raise UserError(f"{OPTION}={source}: contains one image; expected at least {FEWEST}")
    return tuple(paths)


@functools.lru_cache(maxsize=1)
def _read(source: str, size: int) -> tuple[UInt8[np.ndarray, "n s s 3"], str]:
    """Return a folder's images, and a hash of their files' contents."""
    paths = _files(source)
    rows, digests = np.empty((len(paths), size, size, CHANNELS), np.uint8), []
    for row, path in zip(rows, paths, strict=True):
        image, digest = read_photo(path, size, CHANNELS, OPTION)
        row[:] = as_uint8(image)
        digests.append(digest)
    return rows, _of_all(digests)


@functools.lru_cache(maxsize=1)
def _contents(source: str) -> tuple[Photo, ...]:
    """Return the files and their hashes; reads every file in parallel, decodes none."""
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
    """CIFAR-10's 50,000 training images [Krizhevsky 2009], from its binary version.

    A record is a byte for the class, then 1,024 bytes each of red, green and blue.

    Attributes:
        source: the folder with `data_batch_1.bin` to `data_batch_5.bin`.
        flip: whether training mirrors images.
        features: what distances are measured in; see `ImageSet`.
        num_classes: 10.
    """

    source: str
    flip: bool = True
    features: str = "pca_pixels"
    num_classes: int = CIFAR_CLASSES

    def row_shape(self) -> tuple[int, ...]:
        """Return the shape of an image."""
        return (CIFAR_SIDE, CIFAR_SIDE, 3)

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
        f"expected the folder of CIFAR-10's binary version, with {CIFAR_FILES[0]} to "
        f"{CIFAR_FILES[-1]} (unpack cifar-10-binary.tar.gz)"
    )
    if not source:
        raise UserError(f"{OPTION}: {expected}")
    paths = [Path(source).expanduser() / name for name in CIFAR_FILES]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise UserError(f"{OPTION}={source}: no {', '.join(missing)} there; {expected}")
    parts: list[UInt8[np.ndarray, "n bytes"]] = []
    for path in paths:
        try:
            content = np.frombuffer(path.read_bytes(), np.uint8)
        except OSError as error:
            raise UserError(f"{OPTION}: {say_os_error(error)}") from error
        if len(content) != CIFAR_RECORDS * CIFAR_RECORD:
            raise UserError(
                f"{OPTION}: {path} has {len(content)} bytes; expected {CIFAR_RECORDS} records of "
                f"{CIFAR_RECORD} bytes: it is damaged or not CIFAR-10's binary version"
            )
        records = content.reshape(-1, CIFAR_RECORD)
        if records[:, 0].max() >= CIFAR_CLASSES:
            raise UserError(
                f"{OPTION}: {path} has the class {records[:, 0].max()}; expected 0 to "
                f"{CIFAR_CLASSES - 1}: it is damaged or not CIFAR-10's binary version"
            )
        for earlier, other in zip(paths, parts, strict=False):
            if np.array_equal(records, other):
                raise UserError(
                    f"{OPTION}: {path} is a copy of {earlier.name}; unpack cifar-10-binary.tar.gz "
                    "again"
                )
        parts.append(records)
    whole = np.concatenate(parts)
    planes = whole[:, 1:].reshape(-1, 3, CIFAR_SIDE, CIFAR_SIDE)
    images = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
    return images, whole[:, 0].astype(np.int32), hashlib.sha256(whole.tobytes()).hexdigest()
