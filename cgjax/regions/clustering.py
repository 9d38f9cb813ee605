"""A clustering: which latent belongs to which cluster, and how clearly; and its file."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
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
from cgjax.runtime.array_files import write_npz

FIELDS = ("centroids", "labels", "margins", "shares", "latents")
"""The arrays of `clusters.npz`; a space other than raw adds its own."""


class Clustering(NamedTuple):
    """One layer's features, divided into k clusters.

    Attributes:
        layer: the layer's name.
        centroids: (k, g) float32, in the space; in the raw one, the layer's flattened features.
        labels: (n,) int32.
        margins: (n,) float32; distance to the nearest other centroid minus that to its own.
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
        """The number of clusters."""
        return len(self.centroids)

    @property
    def id(self) -> str:
        """A short name for paths and tables, as in "layer2-k2"."""
        return f"{self.layer}-k{self.num}"

    @property
    def digest(self) -> str:
        """A hash of centroids and labels; equal clusterings have equal ones."""
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
        generator: runs up to that layer.
        latents: (n, d) float32.

    Returns:
        Labels (n,) int32 and margins (n,) float32; see `assign`.
    """

    def labels_and_margins(z: Array) -> Float[Array, "n 2"]:
        labels, margins = clustering.assign(generator.features(z))
        # Cluster ids are exact as float32.
        return jnp.stack([labels.astype(jnp.float32), margins], axis=1)

    rows = in_batches(labels_and_margins, latents, generator.batch)
    return rows[:, 0].astype(np.int32), rows[:, 1]


def digest_of(centroids: Float[np.ndarray, "k f"], labels: Int[np.ndarray, " n"]) -> str:
    """Return `Clustering.digest` from the two arrays."""
    return hashlib.sha256(centroids.tobytes() + labels.tobytes()).hexdigest()


def save_clustering(
    path: Path, clustering: Clustering, latents: Float[np.ndarray, "n d"] | None = None
) -> None:
    """Write a clustering's file atomically; the same clustering gives the same bytes.

    Args:
        path: `clusters.npz`, or a file in `clusterings/`.
        clustering: what to write.
        latents: the clustered latents; None if another file of the run holds them.
    """
    arrays = clustering._asdict() | ({} if latents is None else {"latents": latents})
    kept = {name: arrays[name] for name in FIELDS if name in arrays}
    write_npz(path, **kept, **clustering.space.arrays())


def parse_clustering(
    data: bytes, path: Path, layer: str, latents: Float[np.ndarray, "n d"] | None = None
) -> tuple[Clustering, Float[np.ndarray, "n d"]]:
    """Parse the content of `clusters.npz` and check that it is a valid clustering.

    Args:
        data: the file's bytes.
        path: of the file, for the message.
        layer: the clustered layer's name.
        latents: the clustered latents, if the file does not hold them.

    Returns:
        The clustering and the clustered latents.

    Raises:
        UserError: the file is damaged, or its content is not a valid clustering.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            fields = {} if latents is None else {"latents": latents}
            fields |= {name: arrays[name] for name in FIELDS if name not in fields}
            space = space_of(arrays)
        problem = _problem(fields) or _space_problem(space, fields["centroids"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        problem = str(error)
    if problem:
        raise UserError(f"{path} is damaged ({problem}); remove it and run again to recompute it")
    latents = fields.pop("latents")
    return Clustering(layer, **fields, space=space), latents


def _problem(arrays: Mapping[str, np.ndarray]) -> str:
    """Return what is wrong with the arrays of a clustering; an empty string if nothing is."""
    axes = {"centroids": 2, "labels": 1, "margins": 1, "shares": 1, "latents": 2}
    for name, array in arrays.items():
        if array.ndim != axes[name] or not array.size:
            return f"{name} has shape {array.shape}"
        expected = np.integer if name == "labels" else np.floating
        if not np.issubdtype(array.dtype, expected):
            return f"{name} has dtype {array.dtype}"
        if not np.isfinite(array).all():
            return f"{name} has NaN or infinite values"
    labels, shares = arrays["labels"], arrays["shares"]
    num_margins, num_latents = len(arrays["margins"]), len(arrays["latents"])
    k, n = len(arrays["centroids"]), len(labels)
    if len(shares) != k or num_margins != n or num_latents != n:
        return (
            f"{k} centroids, {len(shares)} shares, {n} labels, {num_margins} margins and "
            f"{num_latents} latents"
        )
    if labels.min() < 0 or labels.max() >= k:
        return f"labels from {labels.min()} to {labels.max()} for {k} clusters"
    if not np.allclose(np.bincount(labels, minlength=k) / n, shares, atol=1e-6):
        return "shares that do not match the labels"
    return ""


def _space_problem(space: Space, centroids: Float[np.ndarray, "k g"]) -> str:
    """Return how the dimensions of a space and centroids differ; an empty string if they agree."""
    expected, dim = space.output_dim, centroids.shape[1]
    if expected not in (None, dim):
        return f"a {space.name} space of {expected} dimensions and centroids of {dim}"
    return ""
