"""Heuristic judges: pixel statistics, without a trained model."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cgjax.evaluation.image_batches import as_colour_images, images_at_a_time
from cgjax.evaluation.judge_base import Judgement

LUMA = np.array([0.2126, 0.7152, 0.0722])
"""Rec. 709's weights of red, green and blue."""


BLOCK = 32
"""Small images that are judged at a time; in double precision they take several times as much."""


def _in_blocks(measure: Callable[[NDArray[np.float64]], Judgement], images: ArrayLike) -> Judgement:
    """Return what a function of (n, h, w, 3) colours in [0, 1] says of each image."""
    colour = as_colour_images(images)
    size = images_at_a_time(BLOCK, *colour.shape[1:3])
    parts = []
    for begin in range(0, max(1, len(colour)), size):
        block = colour[begin : begin + size].astype(np.float64)
        parts.append(measure((np.clip(block, -1, 1) + 1) / 2))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _mean(maps: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(maps.mean(axis=(1, 2)))


class Brightness:
    """A heuristic: the mean luma of the whole image, 0 black to 1 white, background included."""

    name = "heuristic_brightness"
    attributes: tuple[str, ...] = ("brightness",)

    def __call__(self, images: ArrayLike, /) -> Judgement:
        """Judge (n, h, w, c) images in [-1, 1]."""
        return _in_blocks(lambda unit: {"brightness": _mean(unit @ LUMA)}, images)


class HairTone:
    """A heuristic: the mean luma of the band where an aligned face has its hair, 0 dark to 1 light.

    Rows 3% to 13%, columns 30% to 70%. A hat, a bald head or background in that band is judged as
    hair.
    """

    name = "heuristic_hair_tone"
    attributes: tuple[str, ...] = ("hair_tone",)

    def __call__(self, images: ArrayLike, /) -> Judgement:
        """Judge (n, h, w, c) images in [-1, 1]."""
        return _in_blocks(self._measure, images)

    @staticmethod
    def _measure(unit: NDArray[np.float64]) -> Judgement:
        luma = unit @ LUMA
        height, width = luma.shape[1:]
        rows = slice(int(0.03 * height), max(int(0.13 * height), int(0.03 * height) + 1))
        columns = slice(int(0.3 * width), max(int(0.7 * width), int(0.3 * width) + 1))
        return {"hair_tone": _mean(luma[:, rows, columns])}


class ImageStatistics:
    """A heuristic: statistics of any image, without a face or a trained judge.

    Attributes of a judgement, of luma in [0, 1] unless said otherwise:
      brightness: the mean.
      saturation: mean of (largest - smallest channel) / largest channel; 0 is grey.
      contrast: the standard deviation within an image.
      left_right: mean of the left half minus that of the right half.
      up_down: mean of the upper half minus that of the lower half.
    """

    name = "image_statistics"
    attributes: tuple[str, ...] = ("brightness", "saturation", "contrast", "left_right", "up_down")

    def __call__(self, images: ArrayLike, /) -> Judgement:
        """Judge (n, h, w, c) images in [-1, 1]."""
        return _in_blocks(self._measure, images)

    @staticmethod
    def _measure(unit: NDArray[np.float64]) -> Judgement:
        luma = unit @ LUMA
        largest = unit.max(axis=-1)
        divisor = np.where(largest > 0, largest, 1.0)
        height, width = luma.shape[1:]
        top, left = max(height // 2, 1), max(width // 2, 1)
        return {
            "brightness": _mean(luma),
            "saturation": _mean((largest - unit.min(axis=-1)) / divisor),
            "contrast": luma.std(axis=(1, 2)),
            "left_right": _mean(luma[:, :, :left]) - _mean(luma[:, :, -left:]),
            "up_down": _mean(luma[:, :top]) - _mean(luma[:, -top:]),
        }
