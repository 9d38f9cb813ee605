"""The clusters of a run: which latent belongs where, how clearly, and what people call them."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from cgjax.errors import UserError
from cgjax.runtime.files import write_atomically


class MarginRange(NamedTuple):
    """The part of a cluster between two quantiles of its members' margins: the dial `--margin`.

    Raising `low` leaves out the members that hardly belong, which is the cluster's attribute at
    greater strength. What it costs is that the rest lies further from the cluster's mean; lowering
    `high` gives that back by leaving out the extreme members, which the attribute does not need.

    Attributes:
        low: quantile below which members are left out, from 0.
        high: quantile above which they are, up to 1.
    """

    low: float = 0.0
    high: float = 1.0

    @classmethod
    def parse(cls, margin: float | str | Sequence[float], option: str = "--margin") -> MarginRange:
        """Read a margin as a user gives it: one quantile, for the part above it, or two.

        Args:
            margin: 0.6, "0.6", "0.55:0.8" or (0.55, 0.8).
            option: where it stood, for the error.

        Raises:
            UserError: if it is neither, or nothing would be left.

        Example:
            >>> MarginRange.parse(0.6), MarginRange.parse("0.55:0.8")
            (MarginRange(low=0.6, high=1.0), MarginRange(low=0.55, high=0.8))
        """
        shown = margin if isinstance(margin, str | int | float) else ":".join(map(str, margin))
        try:
            margin_range = cls(*(float(part) for part in str(shown).split(":")))
        except (TypeError, ValueError):
            margin_range = cls(1.0)
        if not 0 <= margin_range.low < margin_range.high <= 1:
            raise UserError(
                f"{option}={shown}: expected a quantile from 0 to below 1, or two, the smaller "
                "first, as in --margin=0.6 or --margin=0.55:0.8"
            )
        return margin_range

    def __str__(self) -> str:
        """Return it as it is typed."""
        return f"{self.low:g}" if self.high == 1 else f"{self.low:g}:{self.high:g}"


WHOLE = MarginRange()
"""The cluster as it is."""


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

    def margin_limits(self, cluster: int, margin_range: MarginRange) -> tuple[float, float]:
        """Return the least and the greatest margin in a margin range of a cluster."""
        own = self.margins[self.labels == cluster]
        low = float(np.quantile(own, margin_range.low)) if margin_range.low > 0 else -np.inf
        high = float(np.quantile(own, margin_range.high)) if margin_range.high < 1 else np.inf
        return low, high


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
