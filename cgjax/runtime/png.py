"""Images in [-1, 1] as pixels and as PNG files."""

from __future__ import annotations

import io

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image


def to_pixels(images: Float[np.ndarray, "*n s s c"]) -> UInt8[np.ndarray, "*n s s 3"]:
    """Turn images in [-1, 1] into uint8 RGB, clipped; a single channel is repeated."""
    pixels = np.clip(np.rint((np.asarray(images, np.float32) + 1) * 127.5), 0, 255).astype(np.uint8)
    return np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels


def to_png(image: Float[np.ndarray, "s s c"] | Image.Image) -> bytes:
    """Encode an image as PNG; the same image gives the same bytes."""
    picture = image if isinstance(image, Image.Image) else Image.fromarray(to_pixels(image))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
