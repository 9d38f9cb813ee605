"""The user's images: found, read, cropped and resized to the form of a generator's images."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Float
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from cgjax.errors import UserError
from cgjax.runtime.files import as_utf8, missing, say_os_error
from cgjax.runtime.png import from_uint8

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
"""The extensions of files that are taken for images, in upper or lower case."""

OPTION = "--images"

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How an image is turned upright, by its EXIF orientation."""

MOST_REASONS = 8
"""How many reasons for skipping files are listed."""


class Photo(NamedTuple):
    """A file that has been checked to be an image.

    Attributes:
        path: the file.
        digest: SHA-256 of its content.
    """

    path: Path
    digest: str


def find_photos(folder: Path, check: Callable[[], None] = lambda: None) -> list[Photo]:
    """Return the images of a folder, sorted by name; each is read once to check it.

    Args:
        folder: where to look.
        check: called before each is read; may raise to stop.

    Raises:
        UserError: as `list_images`; an image cannot be read.
    """
    photos = []
    for path in list_images(folder):
        check()
        photos.append(check_photo(path))
    return photos


def list_images(folder: Path, option: str = OPTION, *, deep: bool = False) -> list[Path]:
    """Return the files of a folder whose extension is that of an image, sorted by name; open none.

    Names that begin with a dot are skipped. Logs how many images there are, and how many files were
    skipped and why.

    Args:
        folder: where to look.
        option: the flag that named it, for messages.
        deep: whether to look in subfolders too.

    Raises:
        UserError: the folder does not exist, cannot be read or has no images.
    """
    try:
        paths = sorted(folder.iterdir())  # raises if there is no folder, which rglob does not
        if deep:
            paths = sorted(folder.rglob("*"))
        logs = {path.parent for path in paths if path.name == "metrics.jsonl"}
        runs = logs & {path.parent for path in paths if path.name == "config.json"}
        reasons = [_why_skipped(path, folder, runs, deep=deep) for path in paths]
    except OSError as error:
        is_missing = isinstance(error, FileNotFoundError)
        cannot = f"cannot read this folder ({say_os_error(error)})"
        reason = missing(folder, "folder") if is_missing else cannot
        raise UserError(f"{option}={folder}: {reason}") from error
    files = [path for path, reason in zip(paths, reasons, strict=True) if reason == ""]
    skipped = _counted(filter(None, reasons))
    logging.info(
        "%s=%s: %d image%s%s",
        *(option, as_utf8(folder), len(files), "s" * (len(files) != 1)),
        f"; skipped: {skipped}" if skipped else "",
    )
    if not files:
        raise UserError(
            f"{option}={folder}: no images in this folder ({skipped or 'it is empty'}); "
            f"expected files that end in {', '.join(EXTENSIONS[:4])} or the like"
        )
    return files


def _counted(reasons: Iterable[str]) -> str:
    """List reasons with their counts, the most frequent first."""
    ordered = sorted(Counter(reasons).items(), key=lambda item: (-item[1], item[0]))
    parts = [f"{count} {reason}" for reason, count in ordered[:MOST_REASONS]]
    others = sum(count for _, count in ordered[MOST_REASONS:])
    return ", ".join([*parts, *([f"{others} others"] if others else [])])


def _why_skipped(path: Path, folder: Path, runs: set[Path], *, deep: bool) -> str | None:
    """Return why a path is skipped; "" for an image, None for a folder that is searched."""
    if any(part.startswith(".") for part in path.relative_to(folder).parts):
        return "hidden"
    if not runs.isdisjoint(path.parents):
        return "of a cgjax run"  # its pictures are not the user's
    is_named = path.suffix.lower() in EXTENSIONS
    if is_named and path.is_file():
        return ""
    if path.is_dir():
        if path.is_symlink():
            return "not searched (a link to a folder)"
        return None if deep else "not searched (a folder)"
    if is_named:
        return "missing (a broken link)"
    return f"of another type ({as_utf8(path.suffix.lower()) or 'no extension'})"


def read_photo(
    path: Path, size: int, channels: int, option: str = OPTION
) -> tuple[Float[np.ndarray, "{size} {size} {channels}"], str]:
    """Read one image as `read_photos` does; return it with the SHA-256 of the file."""
    content = _content(path, option)
    return _scaled(_decoded(content, path, option), size, channels), _digest(content)


def file_digest(path: Path, option: str = OPTION) -> str:
    """Return the SHA-256 of a file's content."""
    return _digest(_content(path, option))


def check_photo(path: Path, option: str = OPTION) -> Photo:
    """Read a file once, to check that it is an image; raises as `read_photos`."""
    content = _content(path, option)
    _decoded(content, path, option)
    return Photo(path, _digest(content))


def read_photos(
    photos: Sequence[Photo], size: int, channels: int, option: str = OPTION
) -> Float[np.ndarray, "n {size} {size} {channels}"]:
    """Read images, crop the central square of each, and resize it.

    Args:
        photos: the files.
        size: height and width of the result.
        channels: 3, or 1 for grey.
        option: the flag that named them, for messages.

    Returns:
        (n, size, size, channels) float32 in [-1, 1].

    Raises:
        UserError: a file has changed since it was found, or cannot be read.
    """
    return np.stack([_scaled(_same(photo, option), size, channels) for photo in photos])


def check_channels(channels: int) -> None:
    """Refuse a generator whose images are neither grey nor RGB.

    Raises:
        UserError: the number of channels is neither 1 nor 3.
    """
    if channels not in (1, 3):
        raise UserError(
            f"{OPTION}: this generator's images have {channels} channels, which photographs do "
            "not; expected 3, or 1"
        )


def _same(photo: Photo, option: str) -> Image.Image:
    """Read a file again; it must not have changed."""
    content = _content(photo.path, option)
    if _digest(content) != photo.digest:
        raise UserError(
            f"{option}: {as_utf8(photo.path)} has changed since it was found; run again"
        )
    return _decoded(content, photo.path, option)


def _content(path: Path, option: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{option}: {say_os_error(error)}") from error


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _in_8_bits(image: Image.Image, kind: str | None) -> Image.Image:
    """Scale a 16-bit image to 8 bits; PIL would clip it at 255.

    Raises:
        ValueError: the range of the pixels is unknown.
    """
    # PIL reads 16-bit PPM and PNG into 32 bits.
    if image.mode.startswith("I;16") or (image.mode == "I" and kind in ("PPM", "PNG")):
        return Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(
            f"the range of its pixels is unknown, mode {image.mode}; save it with 8 bits"
        )
    return image


def _upright(image: Image.Image) -> Image.Image:
    """Turn an image as its EXIF tag says.

    Pillow's own function also writes the other tags anew, and fails if one of them is damaged.
    """
    turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return image.copy() if turn is None else image.transpose(turn)


def _decoded(content: bytes, path: Path, option: str) -> Image.Image:
    """Return a file's first frame in RGB, upright, on white where it is transparent."""
    try:
        with Image.open(io.BytesIO(content)) as opened:
            opened.seek(0)
            image: Image.Image = _in_8_bits(_upright(opened), opened.format)
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            return image.convert("RGB")
    except MemoryError:
        raise
    except Exception as error:  # what a decoder raises for a damaged file is not documented
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):  # its own text names an object in memory
            reason = "its content is of no known image format"
        raise UserError(
            f"{option}: {as_utf8(path)} cannot be read as an image ({reason}); repair or remove it"
        ) from error


def _scaled(image: Image.Image, size: int, channels: int) -> Float[np.ndarray, "s s c"]:
    if channels == 1:
        image = image.convert("L")
    square = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
    return from_uint8(np.asarray(square).reshape(size, size, channels))
