"""A run's clusterings as plain values for the page's templates, read from the run's files."""

from __future__ import annotations

import base64
import functools
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from cgjax.figures.sheets import COLOURS
from cgjax.numerics.intervals import wilson_interval
from cgjax.regions.clustering import Clustering
from cgjax.regions.names import Entry
from cgjax.regions.small import is_small
from cgjax.report.rows import ShownMembers
from cgjax.report.sprites import data_url
from cgjax.run.places import page_images_name, page_images_place, split_name, sweep_name
from cgjax.run.run import Run
from cgjax.runtime.files import safe_name

View = dict[str, Any]
"""A clustering for the templates; `clusters` holds one dict for each card."""

TextOf = Callable[[int], str]
"""A cluster's id -> a text: the value of --cluster, or a whole command."""


class ImageSheet:
    """Clusterings that share one sheet of images.

    Attributes:
        key: the CSS class of the sheet: "g0", "g1", ....
        images: the arrays of its file, see `cgjax.stages.page_images`; None without a file.
        info: the file's JSON part: sizes, counts and proposals.
    """

    def __init__(self, key: str, images: dict[str, np.ndarray] | None):
        self.key, self.images = key, images
        self.info: dict[str, Any] = {"tile": 64, "columns": 1, "clusterings": []}
        self._positions: dict[int, int] = {}
        if images is not None:
            self.info = json.loads(str(images["info"]))
            self._positions = {int(latent): p for p, latent in enumerate(images["indices"])}

    def rows(self, index: int, cluster: int) -> dict[str, list[dict[str, int]]]:
        """Return the tiles in the rows of a cluster's card: typical, deepest and border.

        Args:
            index: the clustering's position in the group.
            cluster: the cluster's id.
        """
        rows = {name: self._tiles(index, cluster, name) for name in ShownMembers._fields}
        if self.images is not None and rows["border"]:
            neighbours = self.images[f"{index}.neighbour"][cluster]
            for tile, neighbour in zip(rows["border"], neighbours, strict=False):
                tile["neighbour"] = int(neighbour)
        return rows

    def _tiles(self, index: int, cluster: int, name: str) -> list[dict[str, int]]:
        if self.images is None or f"{index}.{name}" not in self.images:
            return []
        latents = [int(i) for i in self.images[f"{index}.{name}"][cluster] if i >= 0]
        return [_tile(self._positions[i], i, self.info["columns"]) for i in latents]

    def style(self) -> dict[str, Any] | None:
        """Return the values that the style sheet needs to cut the sheet into tiles."""
        if self.images is None:
            return None
        content = self.images["sheet"].tobytes()
        with Image.open(io.BytesIO(content)) as picture:
            rows = picture.height // self.info["tile"]
        url = data_url(content)
        return {"key": self.key, "url": url, "columns": self.info["columns"], "rows": rows}

    def data(self) -> dict[str, Any] | None:
        """Return the values that the page's script needs."""
        if self.images is None:
            return None
        return {
            "columns": self.info["columns"],
            "latents": self.images["indices"].tolist(),
        }


def views_of(run: Run) -> tuple[list[View], list[View], list[ImageSheet]]:
    """Return the run's own clusterings, those of its sweep, and the images of both.

    Args:
        run: one with clusters or a sweep.
    """
    own: list[View] = []
    groups: list[ImageSheet] = []
    result = run.manifests.result

    def group(part: str) -> ImageSheet:
        images = None
        if result(page_images_name(part)) is not None:
            with np.load(run.folder.root / page_images_place(part), allow_pickle=False) as arrays:
                images = dict(arrays)
        groups.append(ImageSheet(f"g{len(groups)}", images))
        return groups[-1]

    def view(
        one: Clustering,
        of: ImageSheet,
        index: int,
        name: str,
        choice: Any,
        inside: str | None = None,
    ) -> View:
        entries = run.held.entries_of(one)
        asked = functools.partial(run.held.cluster_flag, one)
        command = functools.partial(_command, run, one)
        return view_of(one, of, index, name, entries, asked, command, choice, inside)

    if run.held.has_own:
        one = run.clustering
        choice = (result("cluster") or {}).get("choice") or _swept_choice(run, one)
        own.append(view(one, group("own"), 0, one.id, choice))
    for split in run.held.splits:
        part = split_name(split.path)
        if result(part) is not None:
            path = "/".join(map(str, split.path))
            inner = run.held.inside(split)
            own.append(view(inner, group(part), 0, str(split), None, path))
    of_sweep: list[View] = []
    if result("sweep") is not None:
        several = [one for layer in run.held.sweep_layers for one in run.held.swept(layer)]
        images = group("sweep")
        known = {view["id"] for view in own}
        for i, one in enumerate(one for one in several if one.num > 1):
            if one.id in known:
                continue  # in a query, this id means the run's own clustering
            of_sweep.append(view(one, images, i, one.id, _swept_choice(run, one)))
    return own, of_sweep, groups


def _swept_choice(run: Run, one: Clustering) -> dict[str, Any] | None:
    if one.layer not in run.held.sweep_layers:
        return None
    of_layer = run.manifests.result(sweep_name(one.layer))
    return None if of_layer is None else of_layer["choice"]


def _stability(choice: Mapping[str, Any] | None, num: int) -> dict[str, Any] | None:
    """Return the stability of the least stable of `num` clusters, and the verdict on the layer."""
    rows = [] if choice is None else [r for r in choice["table"] if r["num_clusters"] == num]
    if choice is None or not rows or num < 2:
        return None
    worst = min(rows[0]["clusters"], key=lambda cluster: cluster["jaccard"][0])
    return {"jaccard": worst["jaccard"], "meaning": worst["meaning"], "verdict": choice["verdict"]}


def view_of(
    one: Clustering,
    group: ImageSheet,
    index: int,
    name: str,
    entries: Sequence[Entry],
    asked: TextOf,
    command: TextOf,
    choice: Mapping[str, Any] | None = None,
    inside: str | None = None,
) -> View:
    """Return what the page shows of a clustering.

    Args:
        one: the clustering.
        group: the group of images that it belongs to.
        index: its position in the group.
        name: its name on the page.
        entries: the names of its clusters.
        asked: returns the value of --cluster for a cluster.
        command: returns the command that draws from a cluster.
        choice: how many clusters its layer holds, the result of `Choice.summary`.
        inside: the path of the cluster that it splits, such as "0/1"; None if it splits none.
    """
    images = group.images or {}
    info = group.info["clusterings"][index] if group.images is not None else {}
    counts = info.get("counts") or np.bincount(one.labels, minlength=one.num).tolist()

    def title(c: int) -> str:
        return f"cluster {c}" if inside is None else f"cluster {inside}/{c}"

    clusters = []
    for c in range(one.num):
        clusters.append(
            {
                "id": c,
                "entry": entries[c],
                "title": title(c),
                "label": entries[c]["name"] or title(c),
                "colour": COLOURS[c % len(COLOURS)],
                "share": counts[c] / max(sum(counts), 1),
                "interval": wilson_interval(counts[c], max(sum(counts), 1)),
                "count": counts[c],
                "is_small": is_small(counts[c], max(sum(counts), 1), one.num),
                **group.rows(index, c),
                "proposal": info.get("proposals", [None] * one.num)[c],
                "asked": asked(c),
                "command": command(c),
            }
        )
    key = f"{group.key}v{index}"
    return {
        "key": key,
        "id": name,
        "layer": one.layer,
        "space": one.space.name,
        "digest": one.digest,
        "group": group.key,
        "has_images": group.images is not None,
        "tile": group.info["tile"],
        "total": sum(counts),
        "clusters": clusters,
        "stability": _stability(choice, one.num),
        "choice": choice,
        "means": _url(images.get(f"{index}.means")),
        "lines": _url(images.get(f"{index}.lines")),
        "pairs": info.get("pairs", []),
        "variances": info.get("variances", [0, 0]),
        "inside": inside,
        "data": _data(images, index, entries, group.key) | {"id": name, "digest": one.digest},
    }


def _tile(position: int, latent: int, columns: int) -> dict[str, int]:
    return {"p": position, "x": position % columns, "y": position // columns, "latent": latent}


def _command(run: Run, one: Clustering, c: int) -> str:
    cluster = run.held.named_cluster_flag(one, c)
    words = [f"--cluster={cluster}", "--num=64", f"--out=samples/{safe_name(cluster)}"]
    return run.folder.command_of("sample", *words)


def _url(content: np.ndarray | None) -> str | None:
    return data_url(content.tobytes()) if content is not None and len(content) else None


def _data(
    images: Mapping[str, np.ndarray], index: int, entries: Sequence[Entry], group: str
) -> dict[str, Any]:
    """Return the values that the page's script needs for a clustering."""
    data: dict[str, Any] = {"group": group, "entries": list(entries)}
    points = images.get(f"{index}.points")
    if points is not None:
        low, high = np.quantile(points, [0.002, 0.998], axis=0)
        unit = np.clip((points - low) / np.maximum(high - low, 1e-12), 0, 1)
        data |= {
            "points": _encode(np.rint(unit * 65535).astype("<u2")),
            "ends": [[float(f"{v:.4g}") for v in end] for end in (low, high)],
            "labels": _encode(images[f"{index}.labels"].astype("<u2")),
            "quantiles": _encode(images[f"{index}.quantiles"]),
        }
    return data


def _encode(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()
