"""The clusters of a run: which latent belongs where, how clearly, and what people call them."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from cgjax.errors import UserError
from cgjax.files import write_atomically


class Clusters(NamedTuple):
    """The content of `clusters.npz`.

    Attributes:
        centroids: (k, f) float32, in the flattened features of the layer.
        labels: (n,) int32.
        margins: (n,) float32; distance to the nearest other centroid minus that to the own one.
        shares: (k,) float64, summing to 1.
        latents: (n, d) float32.
    """

    centroids: Float[np.ndarray, "k f"]
    labels: Int[np.ndarray, " n"]
    margins: Float[np.ndarray, " n"]
    shares: Float[np.ndarray, " k"]
    latents: Float[np.ndarray, "n d"]

    @property
    def num(self) -> int:
        """How many clusters there are."""
        return len(self.centroids)

    def margin_above(self, cluster: int, quantile: float) -> float:
        """Return the margin above which the clearest 1 - quantile of a cluster's members lie."""
        return float(np.quantile(self.margins[self.labels == cluster], quantile))


def save_clusters(path: Path, clusters: Clusters) -> None:
    """Write `clusters.npz`, whole or not at all; the same clusters give the same bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, **clusters._asdict())
    write_atomically(path, buffer.getvalue())


def load_clusters(path: Path) -> Clusters:
    """Read `clusters.npz`.

    Raises:
        UserError: if it is missing or damaged.
    """
    if not path.is_file():
        raise UserError(f"{path} is not there yet; run the experiment first (--mode=run)")
    return parse(path.read_bytes(), path)


def parse(data: bytes, path: Path) -> Clusters:
    """Read the content of `clusters.npz`; `path` says where it came from.

    Raises:
        UserError: if it is damaged.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return Clusters(**{name: arrays[name] for name in Clusters._fields})
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        raise UserError(
            f"{path} is damaged ({error}); remove it and run again to make it anew"
        ) from error


def describe(clusters: Clusters) -> list[dict[str, Any]]:
    """Return the content of a fresh `clusters.json`: no names yet."""
    return [
        {"id": c, "name": None, "share": round(float(clusters.shares[c]), 6), "note": ""}
        for c in range(clusters.num)
    ]


def read_descriptions(path: Path) -> list[dict[str, Any]]:
    """Read `clusters.json`.

    Raises:
        UserError: if it is missing or no list of clusters.
    """
    try:
        entries: list[dict[str, Any]] = json.loads(path.read_text())
        return [dict(entry, id=int(entry["id"])) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is missing or damaged: {error}") from error


def find_cluster(wanted: str | int, entries: list[dict[str, Any]]) -> int:
    """Return a cluster's id from its id or the name a person gave it.

    Args:
        wanted: an id, its text, or a name.
        entries: the content of `clusters.json`.

    Raises:
        UserError: listing the clusters there are.

    Example:
        >>> find_cluster("left", [{"id": 0, "name": None}, {"id": 1, "name": "left"}])
        1
    """
    for entry in entries:
        if str(wanted) in (str(entry["id"]), entry.get("name")):
            return int(entry["id"])
    known = ", ".join(
        f"{e['id']} ({e['name']})" if e.get("name") else str(e["id"]) for e in entries
    )
    raise UserError(f"--cluster={wanted} is none of this run's clusters: {known}")
