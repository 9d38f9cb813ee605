"""A run's clusterings as plain values for the page's templates, read from the run's files."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cgjax.figures.plots import style_of
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


class ImageSheet:
    """Clusterings that share one sheet of images.

    Attributes:
        key: the CSS class of the sheet: "g0", "g1", ....
        images: the arrays of its file, see `cgjax.stages.page_images`; none without a file.
    """

    def __init__(self, key: str, images: Mapping[str, np.ndarray]):
        self.key, self.images = key, images
        # Sizes, and the counts, pairs and proposals of every clustering.
        self._info = json.loads(str(images["info"])) if images else {}
        self._latents = images["indices"].tolist() if images else []
        self._positions = {latent: p for p, latent in enumerate(self._latents)}

    def info(self, index: int) -> Mapping[str, Any]:
        """Return the numbers of the file about the clustering at a position in the group."""
        return self._info["clusterings"][index] if self.images else {}

    def rows(self, index: int, cluster: int) -> dict[str, list[dict[str, int]]]:
        """Return the tiles in the rows of a cluster's card: typical, deepest and border.

        Args:
            index: the clustering's position in the group.
            cluster: the cluster's id.
        """
        rows = {name: self._tiles(index, cluster, name) for name in ShownMembers._fields}
        if rows["border"]:
            neighbours = self.images[f"{index}.neighbour"][cluster]
            for tile, neighbour in zip(rows["border"], neighbours, strict=False):
                tile["neighbour"] = int(neighbour)
        return rows

    def _tiles(self, index: int, cluster: int, name: str) -> list[dict[str, int]]:
        if not self.images:
            return []
        latents = [int(i) for i in self.images[f"{index}.{name}"][cluster] if i >= 0]
        return [_tile(self._positions[i], i, self._info["columns"]) for i in latents]

    def style(self) -> dict[str, Any] | None:
        """Return the values that the style sheet needs to cut the sheet into tiles."""
        if not self.images:
            return None
        url, columns = data_url(self.images["sheet"].tobytes()), self._info["columns"]
        rows = -(-len(self._latents) // columns)
        return {"key": self.key, "url": url, "columns": columns, "rows": rows}

    def data(self) -> dict[str, Any]:
        """Return the values that the page's script needs."""
        return {"columns": self._info.get("columns", 1), "latents": self._latents}


def views_of(run: Run) -> tuple[list[View], list[View], list[ImageSheet]]:
    """Return the run's own clusterings, those of its sweep, and the images of both.

    Args:
        run: one with clusters or a sweep.
    """
    own: list[View] = []
    groups: list[ImageSheet] = []
    result = run.manifests.result

    def group(part: str) -> ImageSheet:
        images: dict[str, np.ndarray] = {}
        if result(page_images_name(part)) is not None:
            with np.load(run.folder.root / page_images_place(part), allow_pickle=False) as arrays:
                images = dict(arrays)
        groups.append(ImageSheet(f"g{len(groups)}", images))
        return groups[-1]

    def shown(
        one: Clustering, sheet: ImageSheet, index: int, name: str, inside: str | None = None
    ) -> ShownClustering:
        asked = [run.held.cluster_flag(one, c) for c in range(one.num)]
        commands = [_command(run, one, c) for c in range(one.num)]
        entries = run.held.entries_of(one)
        return ShownClustering(one, sheet, index, name, entries, asked, commands, inside)

    if run.held.has_own:
        one = run.clustering
        choice = (result("cluster") or {}).get("choice")
        view = shown(one, group("own"), 0, one.id).view
        own.append(view(choice) if choice else view(_swept_choice(run, one), is_of_others=True))
    for split in run.held.splits:
        part = split_name(split.path)
        if result(part) is not None:
            path = "/".join(map(str, split.path))
            inner = run.held.inside(split)
            own.append(shown(inner, group(part), 0, str(split), path).view())
    of_sweep: list[View] = []
    if result("sweep") is not None:
        several = [one for layer in run.held.sweep_layers for one in run.held.swept(layer)]
        images = group("sweep")
        known = {view["id"] for view in own}
        for i, one in enumerate(one for one in several if one.num > 1):
            id_ = run.held.id_of(one)
            is_named = any(entry["name"] for entry in run.held.entries_of(one))
            if id_ in known or (id_ != one.id and not is_named):
                continue  # the page has the run's own clustering of that layer and number
            of_sweep.append(shown(one, images, i, id_).view(_swept_choice(run, one)))
    return own, of_sweep, groups


def _swept_choice(run: Run, one: Clustering) -> dict[str, Any] | None:
    if one.layer not in run.held.sweep_layers:
        return None
    of_layer = run.manifests.result(sweep_name(one.layer))
    return None if of_layer is None else of_layer["choice"]


def _stability(
    choice: Mapping[str, Any] | None, num: int, is_of_others: bool
) -> dict[str, Any] | None:
    """Return the stability of the least stable of `num` clusters, and the verdict on the layer."""
    rows = [] if choice is None else [r for r in choice["table"] if r["num_clusters"] == num]
    if choice is None or not rows or num < 2:
        return None
    worst = min(rows[0]["clusters"], key=lambda cluster: cluster["jaccard"][0])
    measured = {"jaccard": worst["jaccard"], "meaning": worst["meaning"]}
    return measured | {"verdict": choice["verdict"], "is_of_others": is_of_others}


class ShownClustering(NamedTuple):
    """A clustering on the page.

    Attributes:
        one: the clustering.
        sheet: its images, and those of other clusterings.
        position: its number among the clusterings of the sheet.
        name: its name on the page.
        entries: the names of its clusters.
        asked: for each cluster the value of --cluster.
        commands: for each cluster the command that draws from it.
        inside: the path of the cluster that it splits, such as "0/1"; None if it splits none.
    """

    one: Clustering
    sheet: ImageSheet
    position: int
    name: str
    entries: Sequence[Entry]
    asked: Sequence[str]
    commands: Sequence[str]
    inside: str | None = None

    def view(self, choice: Mapping[str, Any] | None = None, is_of_others: bool = False) -> View:
        """Return what the page shows.

        Args:
            choice: how many clusters its layer holds, the result of `Choice.summary`.
            is_of_others: whether it was measured on other clusters of the layer, of a sweep.
        """
        one, sheet, index = self.one, self.sheet, self.position
        images, info, counts = sheet.images, sheet.info(index), self._counts
        return {
            "key": f"{sheet.key}v{index}",
            "id": self.name,
            "usual_id": one.id,
            "layer": one.layer,
            "space": one.space.name,
            "group": sheet.key,
            "has_images": bool(sheet.images),
            "total": sum(counts),
            "clusters": [self._cluster(c) for c in range(one.num)],
            "stability": _stability(choice, one.num, is_of_others),
            "means": _url(images.get(f"{index}.means")),
            "lines": _url(images.get(f"{index}.lines")),
            "pairs": info.get("pairs", []),
            "variances": info.get("variances", [0, 0]),
            "inside": self.inside,
            "data": {
                "id": self.name,
                "digest": one.digest,
                "group": sheet.key,
                "entries": list(self.entries),
                "styles": [style_of(c) for c in range(one.num)],
                **_plot(images, index),
            },
        }

    def _cluster(self, c: int) -> dict[str, Any]:
        """Return what the card of a cluster shows."""
        num, count, total = self.one.num, self._counts[c], max(sum(self._counts), 1)
        entry = self.entries[c]
        title = f"cluster {c}" if self.inside is None else f"cluster {self.inside}/{c}"
        return {
            "id": c,
            "entry": entry,
            "title": title,
            "label": entry["name"] or title,
            **style_of(c),
            "share": count / total,
            "interval": wilson_interval(count, total),
            "is_small": is_small(count, total, num),
            **self.sheet.rows(self.position, c),
            "proposal": self.sheet.info(self.position).get("proposals", [None] * num)[c],
            "asked": self.asked[c],
            "command": self.commands[c],
        }

    @property
    def _counts(self) -> list[int]:
        """The number of latents of each cluster."""
        counts = self.sheet.info(self.position).get("counts")
        return counts or np.bincount(self.one.labels, minlength=self.one.num).tolist()


def _tile(position: int, latent: int, columns: int) -> dict[str, int]:
    return {"p": position, "x": position % columns, "y": position // columns, "latent": latent}


def _command(run: Run, one: Clustering, c: int) -> str:
    cluster = run.held.named_cluster_flag(one, c)
    words = [f"--cluster={cluster}", "--num=64", f"--out=samples/{safe_name(cluster)}"]
    return run.folder.command_of("sample", *words)


def _url(content: np.ndarray | None) -> str | None:
    return data_url(content.tobytes()) if content is not None and len(content) else None


def _plot(images: Mapping[str, np.ndarray], index: int) -> dict[str, Any]:
    """Return the dots of a clustering's plot for the page's script; nothing without a file."""
    if not images:
        return {}
    points = images[f"{index}.points"]
    low, high = np.quantile(points, [0.002, 0.998], axis=0)
    unit = np.clip((points - low) / np.maximum(high - low, 1e-12), 0, 1)
    return {
        "points": _encode(np.rint(unit * 65535).astype("<u2")),
        "ends": [[float(f"{v:.4g}") for v in end] for end in (low, high)],
        "labels": _encode(images[f"{index}.labels"].astype("<u2")),
        "quantiles": _encode(images[f"{index}.quantiles"]),
    }


def _encode(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()
