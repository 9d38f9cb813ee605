"""The user's own images: a folder of files of any size."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8

from cgjax.endtoend.data.images import FixedImages
from cgjax.endtoend.data.on_disk import CHANNELS, RowsOnDisk, check_grain
from cgjax.errors import UserError
from cgjax.runtime.files import user_path
from cgjax.runtime.log import Progress
from cgjax.runtime.photos import Photo, check_photo, file_digest, list_images, read_photo
from cgjax.runtime.png import as_uint8

OPTION = "--config.data.path"

FEWEST = 2
"""Minimum number of images."""

T = TypeVar("T")


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
            return _of_all(photo.digest for photo in self._contents.photos)
        return self._contents.images[1]

    @property
    def is_on_disk(self) -> bool:
        """Whether the images stay on disk."""
        return len(self._contents.files) * math.prod(self.row_shape()) > self.memory_mb * 2**20

    @property
    def num_images(self) -> int:
        """Number of images; reads none.

        Raises:
            UserError: no folder, no or too few images; more than fit in memory, without grain.
        """
        if self.is_on_disk:
            check_grain(OPTION)
        return len(self._contents.files)

    @property
    def all_rows(self) -> UInt8[np.ndarray, "n h w c"] | RowsOnDisk:
        """All images; those in memory are read once.

        Raises:
            UserError: no folder, no or too few images, one that cannot be read.
        """
        if self.is_on_disk:
            return RowsOnDisk(self._contents.photos, self.size, OPTION)
        return self._contents.images[0]

    def check_images(self) -> None:
        """Decode every image once, and keep none; raises as `all_rows`."""
        self._contents.check()

    @property
    def _contents(self) -> FolderContents:
        return contents_of(self.source, self.size)


@functools.lru_cache(maxsize=1)
def contents_of(source: str, size: int) -> FolderContents:
    """Return what a folder contains, the same object for all data sets of it."""
    return FolderContents(source, size)


class FolderContents:
    """The images of a folder; each property looks into the folder once, on first use."""

    def __init__(self, source: str, size: int):
        """Take the folder, and the height and width that images are resized to."""
        self._source, self._size = source, size

    @functools.cached_property
    def files(self) -> tuple[Path, ...]:
        """The files; opens none."""
        if not self._source:
            raise UserError(f"{OPTION}: expected the folder of your images, with data.name=folder")
        paths = list_images(user_path(self._source), OPTION, deep=True)
        if len(paths) < FEWEST:
            raise UserError(
                f"{OPTION}={self._source}: contains one image; expected at least {FEWEST}"
            )
        return tuple(paths)

    @functools.cached_property
    def photos(self) -> tuple[Photo, ...]:
        """The files and their hashes; decodes none."""
        return tuple(self._read(lambda _, path: Photo(path, file_digest(path, OPTION))))

    def check(self) -> None:
        """Decode every file once, and keep none.

        Raises:
            UserError: one is not an image.
        """
        for _ in self._read(lambda _, path: check_photo(path, OPTION)):
            pass

    @functools.cached_property
    def images(self) -> tuple[UInt8[np.ndarray, "n s s 3"], str]:
        """The images, and a hash of their files' contents."""
        shape = (len(self.files), self._size, self._size, CHANNELS)
        rows = np.empty(shape, np.uint8)

        def read(i: int, path: Path) -> str:
            image, digest = read_photo(path, self._size, CHANNELS, OPTION)
            rows[i] = as_uint8(image)
            return digest

        return rows, _of_all(self._read(read))

    def _read(self, read: Callable[[int, Path], T]) -> Iterator[T]:
        """Read every file, in parallel; yield what is returned in order, and log the progress."""
        progress = Progress("data: files read", len(self.files))
        threads = ThreadPoolExecutor()
        try:
            contents = threads.map(read, range(len(self.files)), self.files)
            for done, content in enumerate(contents, start=1):
                yield content
                progress.update(done)
        finally:  # after Ctrl-C too, which must not wait for the files that are left
            threads.shutdown(cancel_futures=True)


def _of_all(digests: Iterable[str]) -> str:
    content = hashlib.sha256()
    for digest in digests:
        content.update(digest.encode())
    return content.hexdigest()
