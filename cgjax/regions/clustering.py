"""A clustering: which latent belongs where and how clearly; its file is checked when it is read."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from cgjax.clustering import assign
from cgjax.errors import UserError
from cgjax.features.spaces import RAW, Space, space_of
from cgjax.generators.batching import in_batches
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.runtime.files import write_atomically

FIELDS = ("centroids", "labels", "margins", "shares", "latents")
"""The arrays of `clusters.npz`; of a space other than raw its own are there too."""


class Clustering(NamedTuple):
    """One layer's features in k groups.

    Attributes:
        layer: the layer's name.
        centroids: (k, g) float32, in the space: of raw ones the flattened features of the layer.
        labels: (n,) int32.
        margins: (n,) float32; distance to the nearest other centroid minus that to the own one.
        shares: (k,) float64, summing to 1.
        space: how features are mapped before they are clustered or assigned.
    """

    layer: str
    centroids: Float[np.ndarray, "k f"]
    labels: Int[np.ndarray, " n"]
    margins: Float[np.ndarray, " n"]
    shares: Float[np.ndarray, " k"]
    space: Space = RAW

    @property
    def num(self) -> int:
        """How many clusters there are."""
        return len(self.centroids)

    @property
    def id(self) -> str:
        """A short name for paths and tables, as in "layer2-k2"."""
        return f"{self.layer}-k{self.num}"

    @property
    def digest(self) -> str:
        """A hash of which latent belongs where; the same clustering has the same one."""
        return digest_of(self.centroids, self.labels)

    def assign(self, features: Float[Array, "n f"]) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
        """Return labels and margins of the layer's features; see `cgjax.clustering.assign`."""
        return assign(self.space(features), jnp.asarray(self.centroids))


def assign_latents(
    clustering: Clustering, generator: ConditionedGenerator, latents: Float[np.ndarray, "n d"]
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Assign latents by their features at the generator's layer, a batch at a time.

    Args:
        clustering: of that layer.
        generator: runs up to it.
        latents: (n, d) float32.

    Returns:
        Labels (n,) int32 and margins (n,) float32; see `assign`.
    """

    def both(z: Array) -> Float[Array, "n 2"]:
        labels, margins = clustering.assign(generator.features(z))
        # Cluster ids are exact as float32.
        return jnp.stack([labels.astype(jnp.float32), margins], axis=1)

    rows = in_batches(both, latents, generator.batch)
    return rows[:, 0].astype(np.int32), rows[:, 1]


def digest_of(centroids: Float[np.ndarray, "k f"], labels: Int[np.ndarray, " n"]) -> str:
    """Return `Clustering.digest` of two arrays."""
    return hashlib.sha256(centroids.tobytes() + labels.tobytes()).hexdigest()


def save_clustering(
    path: Path, clustering: Clustering, latents: Float[np.ndarray, "n d"] | None = None
) -> None:
    """Write a clustering's file, whole or not at all; the same clustering gives the same bytes.

    Args:
        path: `clusters.npz`, or a file below `clusterings/`.
        clustering: what to write.
        latents: that were clustered; without them the file is one of several over the same ones.
    """
    arrays = clustering._asdict() | ({} if latents is None else {"latents": latents})
    buffer = io.BytesIO()
    kept = {name: arrays[name] for name in FIELDS if name in arrays}
    np.savez(buffer, **(kept | clustering.space.arrays()))
    write_atomically(path, buffer.getvalue())


def parse_clustering(
    data: bytes, path: Path, layer: str, latents: Float[np.ndarray, "n d"] | None = None
) -> tuple[Clustering, Float[np.ndarray, "n d"]]:
    """Read the content of `clusters.npz` and check that it can be a clustering.

    Args:
        data: the file's bytes.
        path: where they came from, for the message.
        layer: the clustered layer's name.
        latents: that were clustered, for a file that does not hold them.

    Returns:
        The clustering and the latents that were clustered.

    Raises:
        UserError: if the file is damaged, or holds what no clustering can be.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            kept = {} if latents is None else {"latents": latents}
            found = kept | {name: arrays[name] for name in FIELDS if name not in kept}
            space = space_of(arrays)
        problem = _problem(**found) or _problem_of(space, found["centroids"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        problem = str(error)
    if problem:
        raise UserError(f"{path} is damaged ({problem}); remove it and run again to recompute it")
    latents = found.pop("latents")
    return Clustering(layer, **found, space=space), latents


def _problem(
    centroids: np.ndarray,
    labels: np.ndarray,
    margins: np.ndarray,
    shares: np.ndarray,
    latents: np.ndarray,
) -> str:
    """Return what is wrong with the arrays of a clustering; nothing if they can be one."""
    axes = {"centroids": 2, "labels": 1, "margins": 1, "shares": 1, "latents": 2}
    arrays = dict(zip(FIELDS, (centroids, labels, margins, shares, latents), strict=True))
    for name, array in arrays.items():
        if array.ndim != axes[name] or not array.size:
            return f"{name} has shape {array.shape}"
        expected = np.integer if name == "labels" else np.floating
        if not np.issubdtype(array.dtype, expected):
            return f"{name} has dtype {array.dtype}"
        if not np.isfinite(array).all():
            return f"{name} has NaN or infinite values"
    k, n = len(centroids), len(labels)
    if len(shares) != k or len(margins) != n or len(latents) != n:
        return (
            f"{k} centroids, {len(shares)} shares, {n} labels, {len(margins)} margins and "
            f"{len(latents)} latents"
        )
    if labels.min() < 0 or labels.max() >= k:
        return f"labels from {labels.min()} to {labels.max()} for {k} clusters"
    if not np.allclose(np.bincount(labels, minlength=k) / n, shares, atol=1e-6):
        return "shares that are not those of the labels"
    return ""


def _problem_of(space: Space, centroids: Float[np.ndarray, "k g"]) -> str:
    """Return how a space and centroids do not fit together; nothing if they do."""
    given, dim = space.output_dim, centroids.shape[1]
    if given not in (None, dim):
        return f"a {space.name} space of {given} numbers and centroids of {dim}"
    return ""
