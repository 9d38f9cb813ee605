"""`--mode=sweep`: every layer clustered into several numbers, and what the clusters contain."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from cgjax.config.leaves import ADDED
from cgjax.evaluation.explained import attribute_in, explained
from cgjax.evaluation.judges import JudgedValues
from cgjax.evaluation.sweep_table import SweepRow, clustering_rows, to_text
from cgjax.figures.clusters import titles
from cgjax.figures.sheets import contact_sheet
from cgjax.numerics.cross_tables import (
    adjusted_rand,
    cross_table,
    mutual_information,
    normalized_mutual_information,
)
from cgjax.numerics.intervals import wilson_interval, with_ends
from cgjax.regions.clustering import Clustering, save_clustering
from cgjax.run.places import SWEEP_TABLES, clustering_place, sweep_figure_place, sweep_name
from cgjax.run.run import Run
from cgjax.runtime.array_files import write_npz
from cgjax.runtime.csv_text import as_csv
from cgjax.runtime.files import make_folder, write_atomically
from cgjax.runtime.keys import named_key
from cgjax.runtime.log import Progress
from cgjax.runtime.png import to_png
from cgjax.stages.encoding import LayerEncoder, choose, clustering_of
from cgjax.stages.graph import Maker
from cgjax.stages.latents import latents_of

Values = dict[str, Float[np.ndarray, " m"]]
"""The judged values of the first m images, by "judge.attribute"."""


class SweepStage:
    """The clusterings of a sweep, layer by layer, and their tables and figures."""

    def __init__(self, run: Run, maker: Maker, mesh: Mesh | None, check: Callable[..., None]):
        """Prepare.

        Args:
            run: the run.
            maker: of its artifacts.
            mesh: the devices to cluster on, or None for one.
            check: called between units of work, with what is kept if it raises to stop.
        """
        self.run, self.maker, self.mesh, self.check = run, maker, mesh, check
        self.numbers = run.held.sweep_numbers

    def run_all(self) -> str:
        """Make what is not current; return the tables as text."""
        run, maker = self.run, self.maker
        if maker.result("sweep") is None:
            latents = latents_of(run, maker)
            progress = Progress("sweep", len(run.held.sweep_layers) + 1)
            for i, layer in enumerate(run.held.sweep_layers):
                self.check("the finished layers are kept")
                if maker.result(sweep_name(layer)) is None:
                    self._cluster(layer, latents)
                progress.update(i + 1)
            self.check("the finished layers are kept")
            if maker.result("attributes") is None:
                self._judge(latents)
            progress.update(len(run.held.sweep_layers) + 1)
            self._write(latents)
        return (run.folder.root / "sweep.txt").read_text(encoding="utf-8").rstrip("\n")

    def _cluster(self, layer: str, latents: Float[np.ndarray, "n d"]) -> None:
        """Cluster one layer into every number, and choose its number of clusters."""
        run, most = self.run, self.numbers[-1]
        encoder = LayerEncoder(
            run.generator.at_layer(layer),
            run.config["cluster"],
            run.folder.root,
            mesh=self.mesh,
            check=self.check,
        )
        with self.maker.making(sweep_name(layer)) as result:
            encoded = encoder.encode(latents, most)
            with closing(encoded):
                key = named_key(run.root_key, "sweep", layer)
                results = encoder.cluster(encoded, self.numbers, latents, key)
                choice = choose(encoded, most, named_key(run.root_key, "choose", layer))
            make_folder(run.folder.root / "clusterings")
            for number, kmeans in zip(self.numbers, results, strict=True):
                path = run.folder.root / clustering_place(layer, number)
                save_clustering(path, clustering_of(kmeans, layer, encoded.space))
            result["inertias"] = [float(kmeans.inertia) for kmeans in results]
            result["choice"] = choice.summary()

    def _judge(self, latents: Float[np.ndarray, "n d"]) -> None:
        """Save what the judges see in the images of the first latents."""
        run = self.run
        latents = latents[: run.config["sweep"]["judged"]]
        judged = JudgedValues(run.judges)
        with self.maker.making("attributes"):
            progress, batch = Progress("judge", len(latents)), run.generator.batch
            for begin in range(0, len(latents), batch):
                self.check("nothing of the judging is kept")
                images = run.generator.images(latents[begin : begin + batch])
                judged.add(images)
                progress.update(begin + len(images))
            arrays = judged.arrays()
            names, values = np.array(list(arrays)), np.stack(list(arrays.values()))
            path = run.folder.root / "attributes.npz"
            write_npz(path, names=names, values=values.astype(np.float64))

    def _write(self, latents: Float[np.ndarray, "n d"]) -> None:
        run, folder = self.run, self.run.folder
        clusterings = self._clusterings()
        values = self._values()
        with self.maker.making("sweep"):
            measured = [self._measure(one, values) for one in clusterings]
            reasons = {
                layer: run.manifests.require(sweep_name(layer))["choice"]["reason"]
                for layer in run.held.sweep_layers
            }
            num_judged = min(len(latents), run.config["sweep"]["judged"])
            contents = (
                as_csv(clustering_rows(measured)),
                as_csv(_cluster_rows(clusterings, values)),
                as_csv(_pair_rows(clusterings)),
                to_text(measured, reasons, num_judged) + "\n",
            )
            make_folder(folder.figures)
            for layer in run.held.sweep_layers:
                of_layer = [one for one in clusterings if one.layer == layer]
                picture = self._picture(of_layer, latents)
                write_atomically(folder.root / sweep_figure_place(layer), picture)
            for name, content in zip(SWEEP_TABLES, contents, strict=True):
                write_atomically(folder.root / name, content.encode())

    def _clusterings(self) -> list[Clustering]:
        """Return the clusterings of the sweep, layer by layer."""
        return [one for layer in self.run.held.sweep_layers for one in self.run.held.swept(layer)]

    def _values(self) -> Values:
        with np.load(self.run.folder.root / "attributes.npz", allow_pickle=False) as arrays:
            return dict(zip(arrays["names"].tolist(), arrays["values"], strict=True))

    def _measure(self, one: Clustering, values: Values) -> SweepRow:
        result = self.run.manifests.require(sweep_name(one.layer))
        return SweepRow(
            layer=one.layer,
            num_clusters=one.num,
            shares=one.shares.tolist(),
            inertia=result["inertias"][self.numbers.index(one.num)],
            stability=result["choice"]["table"][one.num - 1],
            explained={
                name: explained(judged, one.labels[: len(judged)])
                for name, judged in values.items()
            },
            flags="".join(
                f" --config.cluster.{name}={self.run.config['cluster'][name]}"
                for name in ("space", "trimmed")
                if self.run.config["cluster"][name] != ADDED[f"cluster.{name}"]
            ),
        )

    def _picture(self, of_layer: list[Clustering], latents: Float[np.ndarray, "n d"]) -> bytes:
        """Return a picture of members, a row per cluster, of the layer's best clustering."""
        table = self.run.manifests.require(sweep_name(of_layer[0].layer))["choice"]["table"]

        def rank(one: Clustering) -> tuple[bool, float]:
            row = table[one.num - 1]
            return row["is_chosen"], row["prediction_strength"][0]

        best = max([one for one in of_layer if one.num > 1] or of_layer, key=rank)
        columns = self.run.config["sweep"]["columns"]
        pictures = []
        for c in range(best.num):
            members = np.flatnonzero(best.labels == c)[:columns]
            pictures.append(self.run.generator.images(latents[members]))
        return to_png(contact_sheet(pictures, titles(best), title=f"{best.id}: members"))


def _cluster_rows(clusterings: list[Clustering], values: Values) -> list[dict[str, Any]]:
    """Return the rows of `sweep_clusters.csv`: for every cluster one per attribute."""
    rows = []
    for one in clusterings:
        counts = np.bincount(one.labels, minlength=one.num)
        for c, count in enumerate(counts.tolist()):
            num = len(one.labels)
            cluster: dict[str, Any] = {
                "layer": one.layer,
                "num_clusters": one.num,
                "cluster": c,
                **with_ends("share", count / num, *wilson_interval(count, num)),
            }
            for name, judged in values.items():
                in_cluster = attribute_in(judged[one.labels[: len(judged)] == c])
                rows.append(cluster | {"attribute": name} | in_cluster._asdict())
    return rows


def _pair_rows(clusterings: list[Clustering]) -> list[dict[str, Any]]:
    """Return the rows of `sweep_pairs.csv`: how clusterings of different layers agree."""
    rows = []
    for a, b in itertools.combinations(clusterings, 2):
        if a.layer == b.layer:
            continue
        table = cross_table(a.labels, b.labels, (a.num, b.num))
        rows.append(
            {
                "first": a.id,
                "second": b.id,
                "mutual_information": float(mutual_information(table)),
                "normalized": float(normalized_mutual_information(table)),
                "adjusted_rand": float(adjusted_rand(table)),
                "table": " / ".join(" ".join(map(str, row)) for row in table.tolist()),
            }
        )
    return rows
