"""Planted clusters of rows: mixtures of Gaussians whose true number and labels are known.

The separation of the clusters is not given as a distance, which means nothing without the shape and
the dimension, but as the accuracy of the nearest true centre: the best that k-means could do.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cgjax.errors import UserError

Shape = Literal["round", "long", "tapering"]


@dataclasses.dataclass(frozen=True)
class Clouds:
    """A mixture to draw rows from.

    Attributes:
      centres: (k, s) float64, the clusters' centres in s strong directions.
      shares: (k,), the clusters' shares; their sum is 1.
      axes: (k, s), the direction in which each cluster is long; unit length.
      stretch: standard deviation in that direction.
      spread: (s,) standard deviations in the strong directions.
      embedding: (s, f) float32, orthonormal rows that embed the strong directions in f features;
        None if they are the features.
      noise: standard deviation of the noise added to every feature, with an embedding.
    """

    centres: NDArray[np.float64]
    shares: NDArray[np.float64]
    axes: NDArray[np.float64]
    stretch: float
    spread: NDArray[np.float64]
    embedding: NDArray[np.float32] | None
    noise: float

    def draw(
        self, rng: np.random.Generator, num: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Draw rows (num, f) and their true labels (num,)."""
        labels = rng.choice(len(self.shares), num, p=self.shares)
        rows = (self.centres[labels] + self._within(rng, labels)).astype(np.float32)
        if self.embedding is not None:
            rows = rows @ self.embedding
            rows += np.float32(self.noise) * rng.standard_normal(rows.shape, np.float32)
        return rows, labels

    def _within(self, rng: np.random.Generator, labels: NDArray[np.int64]) -> NDArray[np.float64]:
        round_rows = rng.standard_normal((len(labels), len(self.spread)))
        if self.stretch == 1.0:
            return round_rows * self.spread
        axes = self.axes[labels]
        along = np.einsum("ns,ns->n", round_rows, axes)[:, None]
        return (round_rows + (self.stretch - 1.0) * along * axes) * self.spread


def make_clouds(
    num: int,
    dim: int,
    *,
    shape: Shape = "round",
    ratio: float = 1.0,
    accuracy: float = 0.99,
    stretch: float | None = None,
    num_strong: int = 64,
    noise: float = 0.1,
    seed: int = 0,
) -> Clouds:
    """Plant clusters with centres in random directions.

    Args:
      num: true number of clusters, k.
      dim: features, f. With more than `num_strong`, the clusters differ in `num_strong` directions,
        at random angles to the features, and every feature has noise.
      shape: "round", with unit variance; "long", each cluster in a direction of its own;
        "tapering", with standard deviations 10, 10/2, 10/3, ... in the strong directions.
      ratio: the largest share divided by the smallest; the others form a geometric series.
      accuracy: share of rows whose nearest true centre is their own cluster's; it sets the distance
        between the clusters.
      stretch: standard deviation of a long cluster along its direction; by default 10 for a single
        cluster and 3 for several.
      num_strong: s.
      noise: standard deviation of the noise, used if `dim` is greater than `num_strong`.
      seed: seed of centres and directions.

    Example:
      >>> rows, labels = make_clouds(3, 5, ratio=4).draw(np.random.default_rng(0), 1000)
      >>> rows.shape, make_clouds(3, 5, ratio=4).shares.round(2).tolist()
      ((1000, 5), [0.14, 0.29, 0.57])
    """
    if shape not in ("round", "long", "tapering") or not 0.5 < accuracy < 1 or num < 1:
        raise UserError(
            f"shape={shape!r}, accuracy={accuracy}, num={num}; expected 'round', 'long' or "
            "'tapering', an accuracy between 0.5 and 1 and at least one cluster"
        )
    rng = np.random.default_rng(seed)
    strong = min(dim, num_strong)
    shares = np.geomspace(1.0, ratio, num)
    axes = rng.standard_normal((num, strong))
    long = (10.0 if num == 1 else 3.0) if stretch is None else stretch
    embedding = None
    if dim > strong:
        angles = rng.standard_normal((dim, strong), np.float32)
        embedding = np.ascontiguousarray(np.linalg.qr(angles)[0].T)
    clouds = Clouds(
        centres=np.zeros((num, strong)),
        shares=shares / shares.sum(),
        axes=axes / np.linalg.norm(axes, axis=1, keepdims=True),
        stretch=long if shape == "long" else 1.0,
        spread=10.0 / np.arange(1, strong + 1) if shape == "tapering" else np.ones(strong),
        embedding=embedding,
        noise=noise,
    )
    if num == 1:
        return clouds
    directions = rng.standard_normal((num, strong)) * clouds.spread
    labels = rng.choice(num, 8000, p=clouds.shares)
    within = clouds._within(rng, labels)
    low, high = 0.01, 10.0
    for _ in range(20):
        scale = np.sqrt(low * high)
        if _nearest_accuracy(within, labels, scale * directions) < accuracy:
            low = scale
        else:
            high = scale
    return dataclasses.replace(clouds, centres=high * directions)


def _nearest_accuracy(
    within: NDArray[np.float64], labels: NDArray[np.int64], centres: NDArray[np.float64]
) -> float:
    score = (centres[labels] + within) @ centres.T - 0.5 * np.square(centres).sum(axis=1)
    return float((score.argmax(axis=1) == labels).mean())
