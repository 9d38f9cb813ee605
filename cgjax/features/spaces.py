"""Where features are clustered: as they are, or in a space in which outliers weigh less.

k-means minimises squares, so a few images with large features (black borders, say) can be worth a
cluster of their own. For a feature y, with the mean m and the deviations s of a sample of rows,

    raw            y                            the paper's
    standardised   (y - m) / s                  every feature weighs as much
    pooled         mean of y over positions     what is there and not where: one number a channel
    spherical      (y - m) / ||y - m||          how y differs from the mean, not by how much
                                                [Dhillon & Modha 2001], of centred rows

A map is fitted once and then part of the clustering: centroids, margins and the membership check
all are of mapped features. `docs/outliers.md` compares the maps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

FIT_ROWS, FIT_MB = 10_000, 256
"""A map is fitted to at most so many of the first rows, of at most so many MB."""

FLAT = 0.1
"""Least deviation of a feature, as a share of all features' root mean square deviation: one that
hardly ever changes must not outweigh all the others in the few rows where it does. (The embedded
generator's `layer3` has such units: with 0.001 a single image is worth a cluster.)"""

_NONE = np.zeros(0, np.float32)


class Space(NamedTuple):
    """A map of features (n, f) to those that are clustered (n, g).

    Attributes:
        name: "raw", "standardised", "pooled" or "spherical".
        mean: (f,) float32, of standardised and spherical.
        deviation: (f,) float32, above 0, of standardised.
        channels: (g,) float32, the mean of each channel, of pooled: says how many there are.
    """

    name: str = "raw"
    mean: Float[np.ndarray, " f"] = _NONE
    deviation: Float[np.ndarray, " f"] = _NONE
    channels: Float[np.ndarray, " g"] = _NONE

    def __call__(self, features: Float[Array, "n f"]) -> Float[Array, "n g"]:
        """Map features; O(n f). Row by row: a row's image does not depend on the others.

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
        """g, or None where it is that of the features, whatever it is."""
        parameters = SPACES[self.name]
        return len(getattr(self, parameters[0])) if parameters else None

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what a file keeps of the map; nothing of raw features. See `space_of`."""
        if self.name == "raw":
            return {}
        kept = {f"space_{name}": getattr(self, name) for name in SPACES[self.name]}
        return {"space": np.array(self.name), **kept}


RAW = Space()
"""Features as they are."""

SPACES: dict[str, tuple[str, ...]] = {
    "raw": (),
    "standardised": ("mean", "deviation"),
    "pooled": ("channels",),
    "spherical": ("mean",),
}
"""The spaces by name, and what is fitted of each."""


def fit_space(name: str, rows: Float[np.ndarray, "m f"], num_channels: int) -> Space:
    """Fit a map; the same rows give the same one.

    Args:
        name: one of `SPACES`.
        rows: features, of the first latents; see `num_fit_rows`.
        num_channels: of the layer: its activation's last axis.
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
    """Return how many of the first rows a map is fitted to.

    Example:
        >>> num_fit_rows(20_000, 100), num_fit_rows(20_000, 32_768)
        (10000, 2048)
    """
    return max(1, min(num_rows, FIT_ROWS, FIT_MB * 2**20 // (4 * dim)))


def space_of(arrays: Mapping[str, Any]) -> Space:
    """Return the map that a file keeps, as `Space.arrays` gave it.

    Raises:
        ValueError: if it can be none.
    """
    if "space" not in arrays:
        return RAW
    name = str(arrays["space"])
    if name not in SPACES or name == "raw":
        raise ValueError(f"the space {name!r}, which is none of {', '.join(SPACES)}")
    kept = {parameter: arrays[f"space_{parameter}"] for parameter in SPACES[name]}
    for parameter, array in kept.items():
        if array.ndim != 1 or not array.size or array.dtype != np.float32:
            raise ValueError(f"space_{parameter} has shape {array.shape} and {array.dtype}")
        if not np.isfinite(array).all():
            raise ValueError(f"space_{parameter} has NaN or infinite values")
    if len({len(array) for array in kept.values()}) > 1:
        raise ValueError("parameters of a space that differ in length")
    if "deviation" in kept and kept["deviation"].min() <= 0:
        raise ValueError("space_deviation has values that are not above 0")
    return Space(name, **kept)
