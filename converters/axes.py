"""The orders of axes: PyTorch's turned to ours."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Transform = Callable[[np.ndarray], np.ndarray]


def conv_kernel(weight: np.ndarray) -> np.ndarray:
    """OIHW to HWIO."""
    return weight.transpose(2, 3, 1, 0)


def flipped_kernel(weight: np.ndarray) -> np.ndarray:
    """OIHW to HWIO, rotated by 180 degrees, as a transposed convolution applies its kernel."""
    return conv_kernel(weight[:, :, ::-1, ::-1])


def pixel_kernel(weight: np.ndarray) -> np.ndarray:
    """OIHW of one pixel to [in, out]."""
    return weight[:, :, 0, 0].transpose(1, 0)


def first_kernel(weight: np.ndarray) -> np.ndarray:
    """OIHW over a padded 1x1 map to the dense [in, h, w, out]: it is read spatially flipped."""
    return weight[:, :, ::-1, ::-1].transpose(1, 2, 3, 0)


def channels_last(array: np.ndarray) -> np.ndarray:
    """NCHW to NHWC."""
    return array.transpose(0, 2, 3, 1)


def constant(weight: np.ndarray) -> np.ndarray:
    """1CHW to HWC."""
    return weight[0].transpose(1, 2, 0)


def dense_kernel(weight: np.ndarray) -> np.ndarray:
    """[out, in] to [in, out]."""
    return weight.transpose(1, 0)
