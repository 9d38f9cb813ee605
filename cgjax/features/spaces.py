"""The space in which features are clustered: unchanged, or one in which outliers weigh less.

k-means minimises squared distances, so a few images with large features (black borders, say) can
become a cluster of their own. For a feature vector y, with the mean m and standard deviations s of
a sample of rows, the spaces are

    raw            y                            as in the paper
    standardised   (y - m) / s                  every feature has the same weight
    pooled         mean of y over positions     what is there but not where: one number per channel
    spherical      (y - m) / ||y - m||          the direction in which y differs from the mean
                                                [Dhillon & Modha 2001], for centred rows

A space's map is fitted once and is then part of the clustering: centroids, margins and the
membership check all use mapped features. `docs/outliers.md` compares the spaces.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

FIT_ROWS, FIT_MB = 10_000, 256
"""A map is fitted to the first rows: at most FIT_ROWS of them, and at most FIT_MB."""

FLAT = 0.1
"""Lower bound on a feature's standard deviation, relative to the root mean square deviation of all
features: a feature that hardly ever changes must not outweigh all others in the few rows where it
does. (`layer3` of the embedded generator has such units: with 0.001, a single image becomes a
cluster.)"""

_NONE = np.zeros(0, np.float32)


class Space(NamedTuple):
    """A map of features (n, f) to those that are clustered (n, g).

    Attributes:
        name: "raw", "standardised", "pooled" or "spherical".
        mean: (f,) float32, for standardised and spherical.
        deviation: (f,) float32, above 0, for standardised.
        channels: (g,) float32, the mean of each channel, for pooled; its length is the number of
            channels.
    """

    name: str = "raw"
    mean: Float[np.ndarray, " f"] = _NONE
    deviation: Float[np.ndarray, " f"] = _NONE
    channels: Float[np.ndarray, " g"] = _NONE

    def __call__(self, features: Float[Array, "n f"]) -> Float[Array, "n g"]:
        """Map features, each row independently of the others; O(n f).

        Example:
            >>> space = Space("standardised", np.float32([1, 2]), np.float32([1, 4]))
            >>> space(jnp.array([[3.0, 10.0]])).tolist()
            [[2.0, 2.0]]
        """
        if self.name == "raw":
            return features
        if self.name == "pooled":
            by_position = features.reshape(len(features), -1, len(self.channels))
            return jnp.mean(by_position, axis=1) - jnp.asarray(self.channels)[None, :]
        centred = features - jnp.asarray(self.mean)[None, :]
        if self.name == "standardised":
            return centred / jnp.asarray(self.deviation)[None, :]
        length = jnp.sqrt(jnp.sum(jnp.square(centred), axis=1, keepdims=True))
        return centred / jnp.where(length > 0, length, 1.0)

    @property
    def output_dim(self) -> int | None:
        """g, or None if it is the features' own f."""
        parameters = SPACES[self.name]
        return len(getattr(self, parameters[0])) if parameters else None

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays that a file stores for the map, none for "raw"; see `space_of`."""
        if self.name == "raw":
            return {}
        parameters = {f"space_{name}": getattr(self, name) for name in SPACES[self.name]}
        return {"space": np.array(self.name), **parameters}


RAW = Space()
"""Features unchanged."""

SPACES: dict[str, tuple[str, ...]] = {
    "raw": (),
    "standardised": ("mean", "deviation"),
    "pooled": ("channels",),
    "spherical": ("mean",),
}
"""The spaces by name, with the parameters that are fitted for each."""


def fit_space(name: str, rows: Float[np.ndarray, "m f"], num_channels: int) -> Space:
    """Fit a map; the same rows give the same map.

    Args:
        name: one of `SPACES`.
        rows: features of the first latents; see `num_fit_rows`.
        num_channels: length of the last axis of the layer's activation.
    """
    if name == "raw":
        return RAW
    mean = rows.mean(axis=0, dtype=np.float64)
    if name == "pooled":
        channels = mean.reshape(-1, num_channels).mean(axis=0)
        return Space(name, channels=channels.astype(np.float32))
    if name == "spherical":
        return Space(name, mean.astype(np.float32))
    deviation = rows.std(axis=0, dtype=np.float64)
    least = FLAT * np.sqrt(np.mean(np.square(deviation))) or 1.0
    deviation = np.maximum(deviation, least)
    return Space(name, mean.astype(np.float32), deviation.astype(np.float32))


def num_fit_rows(num_rows: int, dim: int) -> int:
    """Return the number of rows that a map is fitted to.

    Example:
        >>> num_fit_rows(20_000, 100), num_fit_rows(20_000, 32_768)
        (10000, 2048)
    """
    return max(1, min(num_rows, FIT_ROWS, FIT_MB * 2**20 // (4 * dim)))


def space_of(arrays: Mapping[str, Any]) -> Space:
    """Return the map stored in a file by `Space.arrays`.

    Raises:
        KeyError: if an array is missing.
        ValueError: if the arrays are invalid.
    """
    if "space" not in arrays:
        return RAW
    name = str(arrays["space"])
    if name not in SPACES or name == "raw":
        raise ValueError(f"unknown space {name!r}; expected one of {', '.join(SPACES)}")
    parameters = {parameter: arrays[f"space_{parameter}"] for parameter in SPACES[name]}
    for parameter, array in parameters.items():
        if array.ndim != 1 or not array.size or array.dtype != np.float32:
            raise ValueError(f"space_{parameter} has shape {array.shape} and {array.dtype}")
        if not np.isfinite(array).all():
            raise ValueError(f"space_{parameter} has NaN or infinite values")
    if len({len(array) for array in parameters.values()}) > 1:
        raise ValueError("the parameters of the space differ in length")
    if "deviation" in parameters and parameters["deviation"].min() <= 0:
        raise ValueError("space_deviation has values that are not above 0")
    return Space(name, **parameters)
