"""Images in [-1, 1] as pixels and as PNG files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from jaxtyping import Float, Num, UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo


def in_colour(images: Num[np.ndarray, "*n h w c"]) -> Num[np.ndarray, "*n h w 3"]:
    """Return the three channels that are shown and judged.

    With one or two channels the first is repeated. With more the first three are taken: a fourth
    holds transparency or depth and is not a colour.

    Example:
        >>> in_colour(np.zeros((8, 16, 16, 4), np.float32)).shape
        (8, 16, 16, 3)
    """
    return np.repeat(images[..., :1], 3, axis=-1) if images.shape[-1] < 3 else images[..., :3]


def as_uint8(images: Float[np.ndarray, "*n h w c"]) -> UInt8[np.ndarray, "*n h w c"]:
    """Turn images in [-1, 1] into bytes, clipped."""
    pixels = np.rint((np.asarray(images, np.float32) + 1) * 127.5)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def from_uint8(pixels: UInt8[np.ndarray, "*n h w c"]) -> Float[np.ndarray, "*n h w c"]:
    """Turn bytes into float32 images in [-1, 1].

    Example:
        >>> from_uint8(np.array([[[0, 255]]], np.uint8)).tolist()
        [[[-1.0, 1.0]]]
    """
    return pixels.astype(np.float32) / np.float32(127.5) - 1


def to_pixels(images: Float[np.ndarray, "*n s s c"]) -> UInt8[np.ndarray, "*n s s 3"]:
    """Turn images in [-1, 1] into uint8 RGB, clipped; see `in_colour`."""
    return in_colour(as_uint8(images))


def to_png(image: Float[np.ndarray, "s s c"] | Image.Image) -> bytes:
    """Encode an image as PNG with our mark; the same image gives the same bytes."""
    picture = image if isinstance(image, Image.Image) else Image.fromarray(to_pixels(image))
    mark = PngInfo()
    mark.add_text(*MARK)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=mark)
    return buffer.getvalue()


MARK = ("Software", "cgjax")
"""The mark of `to_png`: a text chunk after the header of every file."""


def is_ours(path: Path) -> bool:
    """Whether a file was made by `to_png`."""
    with path.open("rb") as file:
        return b"\0".join(text.encode() for text in MARK) in file.read(100)
