"""Many small images as one WebP sheet: a tenth of the size of separate PNG files."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

COLUMNS, QUALITY = 40, 75

MOST_SIDE = 16_383
"""The largest width and height of a WebP file, in pixels."""


def thumbnails(pixels: UInt8[np.ndarray, "n s s 3"], size: int) -> UInt8[np.ndarray, "n t t 3"]:
    """Scale images down to `size`; smaller images stay as they are."""
    if pixels.shape[1] <= size:
        return pixels
    small = (size, size)
    return np.stack(
        [np.asarray(Image.fromarray(p).resize(small, Image.Resampling.BOX)) for p in pixels]
    )


def sheet(tiles: UInt8[np.ndarray, "n t t 3"], columns: int = COLUMNS) -> bytes:
    """Lay out tiles row by row in one WebP file; the same tiles give the same bytes.

    Args:
        tiles: at least one; scaled down if the file could not hold as many of that size.
        columns: number of tiles in a row.
    """
    num = len(tiles)
    rows = -(-num // columns)
    tiles = thumbnails(tiles, MOST_SIDE // max(rows, columns))
    size = tiles.shape[1]
    padded = np.zeros((rows * columns, size, size, 3), np.uint8)
    padded[:num] = tiles
    wide = padded.reshape(rows, columns, size, size, 3).swapaxes(1, 2)
    return to_webp(Image.fromarray(wide.reshape(rows * size, columns * size, 3)))


def to_webp(picture: Image.Image, quality: int = QUALITY) -> bytes:
    """Encode a picture as WebP."""
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()


def data_url(webp: bytes) -> str:
    """Return a WebP file as a `data:` URL, which stands in the page itself."""
    return f"data:image/webp;base64,{base64.b64encode(webp).decode()}"


def figure_url(path: Path) -> str | None:
    """Return a figure, if it is there, as a `data:` URL, as WebP to be smaller than its file.

    A figure that is too large for WebP is scaled down.
    """
    if not path.is_file():
        return None
    # `Image.open` would refuse the largest of our own figures, as somebody's attack.
    with PngImageFile(path) as opened:
        picture = opened.convert("RGB")
    picture.thumbnail((MOST_SIDE, MOST_SIDE))
    return data_url(to_webp(picture, 85))
