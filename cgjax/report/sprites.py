"""Many small images as one WebP sheet: a tenth of the size of separate PNG files."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

COLUMNS, QUALITY = 40, 75


def thumbnails(pixels: UInt8[np.ndarray, "n s s 3"], size: int) -> UInt8[np.ndarray, "n t t 3"]:
    """Scale images down to `size`; smaller images stay as they are."""
    if pixels.shape[1] <= size:
        return pixels
    small = (size, size)
    return np.stack([np.asarray(Image.fromarray(p).resize(small, _SMOOTH)) for p in pixels])


_SMOOTH = Image.Resampling.BOX


def sheet(tiles: UInt8[np.ndarray, "n t t 3"], columns: int = COLUMNS) -> bytes:
    """Lay out tiles row by row in one WebP file; the same tiles give the same bytes.

    Args:
        tiles: at least one.
        columns: number of tiles in a row.
    """
    num, size = tiles.shape[:2]
    rows = -(-num // columns)
    padded = np.zeros((rows * columns, size, size, 3), np.uint8)
    padded[:num] = tiles
    wide = padded.reshape(rows, columns, size, size, 3).swapaxes(1, 2)
    return to_webp(Image.fromarray(wide.reshape(rows * size, columns * size, 3)))


def to_webp(picture: Image.Image, quality: int = QUALITY) -> bytes:
    """Encode a picture as WebP."""
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()


def data_url(content: bytes, kind: str = "image/webp") -> str:
    """Return content as a `data:` URL, which stands in the page itself."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def figure_url(path: Path) -> str | None:
    """Return a figure, if it is there, as a `data:` URL, as WebP to be smaller than its file."""
    if not path.is_file():
        return None
    with Image.open(path) as picture:
        return data_url(to_webp(picture.convert("RGB"), 85))
