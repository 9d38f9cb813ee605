"""Images of the user's own as a generator makes them: found, read, cropped, resized."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Float
from PIL import Image, ImageOps

from cgjax.errors import UserError
from cgjax.runtime.files import as_utf8, say_os_error
from cgjax.runtime.png import from_bytes

KINDS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
"""How the names of files end that are taken for images, in any case."""

OPTION = "--images"


MOST_REASONS = 8
"""Reasons why files were left out that are told."""


class Photo(NamedTuple):
    """A file that was seen to be an image.

    Attributes:
        path: the file.
        digest: SHA-256 of its content.
    """

    path: Path
    digest: str


def find_photos(folder: Path, option: str = OPTION, *, deep: bool = False) -> list[Photo]:
    """Return the images of a folder, by name; each is read once to see that it can be.

    What begins with a dot is left out.

    Args:
        folder: where to look.
        option: the flag that named it, for messages.
        deep: whether to look in folders inside it too.

    Raises:
        UserError: no folder, none that can be read, no images in it, one that cannot be read.
    """
    return [_checked(path, option) for path in list_images(folder, option, deep=deep)]


def list_images(folder: Path, option: str = OPTION, *, deep: bool = False) -> list[Path]:
    """Return the files of a folder whose names are images', by name; opens none.

    Says in the log how many they are, and what was left out and why.

    Takes and raises what `find_photos` does.
    """
    try:
        paths = sorted(folder.iterdir())  # rglob would find nothing where there is no folder
        if deep:
            paths = sorted(folder.rglob("*"))
        logs = {path.parent for path in paths if path.name == "metrics.jsonl"}
        runs = logs & {path.parent for path in paths if path.name == "config.json"}
        whys = [_why_left_out(path, folder, runs, deep=deep) for path in paths]
    except OSError as error:
        raise UserError(f"{option}={folder}: no folder to read ({say_os_error(error)})") from error
    files = [path for path, why in zip(paths, whys, strict=True) if why == ""]
    told = _counted(why for why in whys if why)
    logging.info(
        "%s=%s: %d image%s%s",
        *(option, as_utf8(folder), len(files), "s" * (len(files) != 1)),
        f"; left out: {told}" if told else "",
    )
    if not files:
        raise UserError(
            f"{option}={folder}: no images in this folder ({told or 'it is empty'}); expected "
            f"files that end in {', '.join(KINDS[:4])} or the like"
        )
    return files


def _counted(whys: Iterable[str]) -> str:
    """Return how often what was said, the most frequent first."""
    ordered = sorted(Counter(whys).items(), key=lambda item: (-item[1], item[0]))
    told = [f"{count} {why}" for why, count in ordered[:MOST_REASONS]]
    others = sum(count for _, count in ordered[MOST_REASONS:])
    return ", ".join([*told, *([f"{others} others"] if others else [])])


def _why_left_out(path: Path, folder: Path, runs: set[Path], *, deep: bool) -> str | None:
    """Return why something in a folder is no image to take: empty for one, None for a way to it."""
    if any(part.startswith(".") for part in path.relative_to(folder).parts):
        return "hidden"
    if not runs.isdisjoint(path.parents):
        return "of a run of ours"  # pictures that it drew are none of the user's
    is_named = path.suffix.lower() in KINDS
    if is_named and path.is_file():
        return ""
    if path.is_dir():
        if path.is_symlink():
            return "not looked into (a link to a folder)"
        return None if deep else "not looked into (a folder)"
    if is_named:
        return "not there (a link to nothing)"
    return f"of another kind ({as_utf8(path.suffix.lower()) or 'no ending'})"


def read_photo(
    path: Path, size: int, channels: int, option: str = OPTION
) -> tuple[Float[np.ndarray, "{size} {size} {channels}"], str]:
    """Read one image as `read_photos` does, and return the SHA-256 of its content with it."""
    content = _content(path, option)
    return _scaled(_decoded(content, path, option), size, channels), _digest(content)


def file_digest(path: Path, option: str = OPTION) -> str:
    """Return the SHA-256 of a file's content."""
    return _digest(_content(path, option))


def read_photos(
    photos: Sequence[Photo], size: int, channels: int, option: str = OPTION
) -> Float[np.ndarray, "n {size} {size} {channels}"]:
    """Read images, crop their middle square, and resize it.

    Args:
        photos: the files.
        size: height and width wanted.
        channels: 3, or 1 for grey.
        option: the flag that named them, for messages.

    Returns:
        (n, size, size, channels) float32 in [-1, 1].

    Raises:
        UserError: as `find_photos`, for files that have changed.
    """
    return np.stack([_scaled(_same(photo, option), size, channels) for photo in photos])


def check_channels(channels: int) -> None:
    """Refuse a generator whose images are no colours.

    Raises:
        UserError: for anything but one channel or three.
    """
    if channels not in (1, 3):
        raise UserError(
            f"{OPTION}: this generator's images have {channels} channels, which photographs do "
            "not; expected 3, or 1"
        )


def _checked(path: Path, option: str) -> Photo:
    content = _content(path, option)
    _decoded(content, path, option)
    return Photo(path, _digest(content))


def _same(photo: Photo, option: str) -> Image.Image:
    """Read a file that must be what it was: its digest is what is kept of it."""
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
    """Return an image of 16 bits in 8, which PIL would clip at 255.

    Raises:
        ValueError: numbers whose range nobody says.
    """
    # PIL reads these two into 32 bits, of which they fill 16.
    if image.mode.startswith("I;16") or (image.mode == "I" and kind in ("PPM", "PNG")):
        return Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(
            f"its pixels are numbers of no known range, mode {image.mode}; save it with 8 bits"
        )
    return image


def _decoded(content: bytes, path: Path, option: str) -> Image.Image:
    """Return a file's first frame, upright, in RGB; what is transparent is white."""
    try:
        with Image.open(io.BytesIO(content)) as opened:
            opened.seek(0)
            image: Image.Image = _in_8_bits(ImageOps.exif_transpose(opened), opened.format)
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{option}: {as_utf8(path)} cannot be read as an image ({reason}); repair or remove it"
        ) from error


def _scaled(image: Image.Image, size: int, channels: int) -> Float[np.ndarray, "s s c"]:
    if channels == 1:
        image = image.convert("L")
    square = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
    return from_bytes(np.asarray(square).reshape(size, size, channels))
