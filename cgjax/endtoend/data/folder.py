"""Images of the user's own: a folder of files of any size, or CIFAR-10 as it is published."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, PRNGKeyArray, UInt8

from cgjax.endtoend.data.base import Points
from cgjax.endtoend.data.images import ImageSet, as_bytes
from cgjax.errors import UserError
from cgjax.runtime.files import say_os_error
from cgjax.runtime.photos import find_photos, read_photos

OPTION = "--config.data.path"

FEWEST = 2
"""Images without which there is nothing to learn from."""

AT_A_TIME = 256
"""Images that are decoded at a time."""

CIFAR_SIDE, CIFAR_CLASSES = 32, 10
CIFAR_RECORD = 1 + 3 * CIFAR_SIDE**2
CIFAR_FILES = "data_batch_*.bin"


class FixedImages(ImageSet):
    """Images that are there; a draw is some of them, in an order of its own."""

    @property
    def all_rows(self) -> UInt8[np.ndarray, "n h w c"]:
        """All of them."""
        raise NotImplementedError

    @property
    def all_classes(self) -> Int[np.ndarray, " n"]:
        """The true class of each."""
        return np.zeros(len(self.all_rows), np.int32)

    def draw(self, key: PRNGKeyArray, num: int) -> Points:
        """Return as many of them, no one twice.

        Raises:
            UserError: more than there are.
        """
        rows = self.all_rows
        if num > len(rows):
            raise UserError(
                f"--config.data.num={num}: expected at most {len(rows)}, the images that are there"
            )
        return self._taken(np.asarray(jax.random.permutation(key, len(rows)))[:num])

    def fresh(self, key: PRNGKeyArray, num: int) -> Points:
        """Draw images with replacement: there may be fewer than wanted."""
        return self._taken(np.asarray(jax.random.randint(key, (num,), 0, len(self.all_rows))))

    def _taken(self, order: Int[np.ndarray, " n"]) -> Points:
        rows = self.all_rows
        return Points(jnp.asarray(rows[order]), jnp.asarray(self.all_classes[order]))


@dataclasses.dataclass(frozen=True)
class FolderImages(FixedImages):
    """Every image in a folder and the folders inside it: its middle square, resized.

    Attributes:
        source: the folder.
        size: height and width that they are resized to.
        flip: whether training mirrors them.
        features: what distances are measured in; see `ImageSet`.
        num_classes: 1: none are known.
    """

    source: str
    size: int = 64
    flip: bool = True
    features: str = "pca_pixels"
    num_classes: int = 1

    def row_shape(self) -> tuple[int, ...]:
        """Of an image, in colour."""
        return (self.size, self.size, 3)

    def identity(self) -> str:
        """A hash of all files' contents."""
        return _content(self.source, self.size)[1]

    @property
    def all_rows(self) -> UInt8[np.ndarray, "n h w c"]:
        """All of them, read once.

        Raises:
            UserError: no folder, no or too few images, one that cannot be read.
        """
        return _content(self.source, self.size)[0]


@functools.lru_cache(maxsize=1)
def _content(source: str, size: int) -> tuple[UInt8[np.ndarray, "n s s 3"], str]:
    if not source:
        raise UserError(f"{OPTION}: expected the folder of your images, with data.name=folder")
    photos = find_photos(Path(source), OPTION, deep=True)
    if len(photos) < FEWEST:
        raise UserError(f"{OPTION}={source}: one image; expected at least {FEWEST}")
    rows = np.empty((len(photos), size, size, 3), np.uint8)
    for i in range(0, len(photos), AT_A_TIME):
        read = read_photos(photos[i : i + AT_A_TIME], size, 3, OPTION)
        rows[i : i + AT_A_TIME] = as_bytes(read)
    told = "".join(photo.digest for photo in photos)
    return rows, hashlib.sha256(told.encode()).hexdigest()


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
        return hashlib.sha256(_records(self.source).tobytes()).hexdigest()

    @property
    def all_rows(self) -> UInt8[np.ndarray, "n h w c"]:
        """All of them.

        Raises:
            UserError: no folder, no such files, a file that is no CIFAR-10.
        """
        planes = _records(self.source)[:, 1:].reshape(-1, 3, CIFAR_SIDE, CIFAR_SIDE)
        return np.ascontiguousarray(planes.transpose(0, 2, 3, 1))

    @property
    def all_classes(self) -> Int[np.ndarray, " n"]:
        """The true class of each."""
        return _records(self.source)[:, 0].astype(np.int32)


@functools.lru_cache(maxsize=1)
def _records(source: str) -> UInt8[np.ndarray, "n record"]:
    wanted = (
        f"expected the folder of CIFAR-10's binary version, with {CIFAR_FILES} in it (unpack "
        "cifar-10-binary.tar.gz)"
    )
    if not source:
        raise UserError(f"{OPTION}: {wanted}")
    paths = sorted(Path(source).glob(CIFAR_FILES))
    if not paths:
        raise UserError(f"{OPTION}={source}: no such file there; {wanted}")
    parts = []
    for path in paths:
        try:
            content = np.frombuffer(path.read_bytes(), np.uint8)
        except OSError as error:
            raise UserError(f"{OPTION}: {say_os_error(error)}") from error
        if not len(content) or len(content) % CIFAR_RECORD:
            raise UserError(
                f"{path} has {len(content)} bytes; expected records of {CIFAR_RECORD}: it is "
                "damaged or not of CIFAR-10's binary version"
            )
        records = content.reshape(-1, CIFAR_RECORD)
        if records[:, 0].max() >= CIFAR_CLASSES:
            raise UserError(
                f"{path} has the class {records[:, 0].max()}; expected 0 to {CIFAR_CLASSES - 1}: "
                "it is damaged or not of CIFAR-10's binary version"
            )
        parts.append(records)
    return np.concatenate(parts)
