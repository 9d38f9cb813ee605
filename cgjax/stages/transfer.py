"""Cross-class transfer of a run: its clusters and samplers, tried on other classes.

The clusters were learnt on one class A of a conditional generator. For each target class B, the
features of the same latents at the same layer, with B's condition, are clustered again. B's
clustering then assigns latents that the run's samplers draw for A's clusters. The score is how far
the two agree under the best one-to-one matching of clusters [Georgopoulos et al. 2022, section 4.4
and Fig. 6].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import logging
from jaxtyping import Float
from PIL import Image

from cgjax.evaluation.transfer import transfer_score
from cgjax.features.in_memory import features_in, space_at
from cgjax.figures.transfer import transfer_figure
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.regions.clustering import Clustering, assign_latents
from cgjax.regions.region import ClusterRegion
from cgjax.run.artifacts import target_classes, transfer_samplers
from cgjax.run.places import transfer_name
from cgjax.run.run import Run
from cgjax.runtime.files import make_folder, write_atomically
from cgjax.runtime.keys import named_key
from cgjax.runtime.png import to_png
from cgjax.stages.encoding import cluster_rows, clustering_of
from cgjax.stages.graph import Maker
from cgjax.stages.rare import LeftOut, lower_num

FIGURE = "transfer.png"

ByCluster = dict[int, Float[np.ndarray, "n d"]]
"""The latents drawn for each cluster that is not left out."""


class TransferStage:
    """The transfer of a run, one artifact per class: an interruption keeps finished classes."""

    def __init__(self, run: Run, maker: Maker, check: Callable[..., None]):
        """Prepare.

        Args:
            run: with its clusters.
            maker: of its artifacts.
            check: called between units of work; may raise to stop.
        """
        self.run, self.maker, self.check = run, maker, check

    def run_all(self) -> None:
        """Score every class whose score is not current, and draw the figure."""
        run, maker, names = self.run, self.maker, target_classes(self.run.config)
        todo = [i for i in range(len(names)) if maker.result(transfer_name(i)) is None]
        if not names or not (todo or maker.result("transfer figure") is None):
            return
        tried = transfer_samplers(run.config, run.sampler_names)
        left_out = LeftOut(run)
        asked = {name: self._draw(name, left_out) for name in tried}
        for i in todo:
            with maker.making(transfer_name(i)) as result:
                result |= self._score(names[i], asked) | left_out.result
            self.check()
        with maker.making("transfer figure") as result:
            result |= left_out.result
            make_folder(run.folder.figures)
            picture = self._draw_figure(names, next(iter(asked.values())))
            write_atomically(run.folder.figures / FIGURE, to_png(picture))

    def _draw(self, sampler: str, left_out: LeftOut) -> ByCluster:
        """Draw latents for every cluster of the source class, verified only if it must be."""
        run, num = self.run, self.run.config["transfer"]["num"]
        instead = lower_num("transfer")
        verify = run.samplers.fitted(sampler).sampler.always_verified

        def draw(region: ClusterRegion) -> Float[np.ndarray, "n d"]:
            key = named_key(run.root_key, "transfer", sampler, region.cluster)
            self.check()
            latents, _ = run.draw(
                key, region, num, sampler=sampler, verify=verify, instead=instead, check=self.check
            )
            return latents

        return left_out.drawn(draw, sampler)

    def _score(self, name: str, asked: dict[str, ByCluster]) -> dict[str, Any]:
        run, num = self.run, self.run.clustering.num
        generator = run.generator.with_condition(name)
        clustering = self._cluster(generator)
        entries: dict[str, Any] = {}
        for sampler, drawn in asked.items():
            assigned = assign_latents(clustering, generator, np.concatenate([*drawn.values()]))[0]
            labels = np.repeat([*drawn], self.run.config["transfer"]["num"])
            score = transfer_score(labels, assigned, num)
            entry = entries[sampler] = {
                "agreement": score.agreement,
                "interval": list(score.interval),
                "chance": score.chance,
                "matching": score.matching.tolist(),
                "by_cluster": [None if np.isnan(s) else float(s) for s in score.by_cluster],
            }
            self.maker.metrics.write(stage="transfer", condition=name, sampler=sampler, **entry)
            logging.info(
                "transfer to %s, %s: agreement %.3f (%.3f to %.3f), chance %.3f",
                name,
                sampler,
                score.agreement,
                *score.interval,
                score.chance,
            )
        return {"condition": name, "shares": clustering.shares.tolist(), "samplers": entries}

    def _cluster(self, generator: ConditionedGenerator) -> Clustering:
        """Cluster the run's latents by their features in a class, as the run clustered its own."""
        run, settings = self.run, self.run.config["cluster"]
        space = space_at(generator, run.latents, settings["space"])
        features = features_in(generator, run.latents, space)
        self.check("this class starts again next time")
        (kmeans,) = cluster_rows(
            jax.device_put(features),
            [run.clustering.num],
            settings,
            key=named_key(run.root_key, "cluster"),  # so that a class agrees with itself
        )
        return clustering_of(kmeans, generator.layer, space)

    def _draw_figure(self, names: list[str], asked: ByCluster) -> Image.Image:
        run, clusters = self.run, range(self.run.clustering.num)
        latents = [z[: run.config["transfer"]["columns"]] for z in asked.values()]
        white = np.ones((1, *run.generator.image_shape), np.float32)
        rows = []
        for generator in (run.generator, *map(run.generator.with_condition, names)):
            images = np.split(generator.images(np.concatenate(latents)), len(latents))
            by_cluster = dict(zip(asked, images, strict=True))
            rows.append([by_cluster.get(c, white) for c in clusters])
        titles = [f"cluster {c}" + ": left out" * (c not in asked) for c in clusters]
        source = str(run.config["generator"]["condition"])
        return transfer_figure(rows, [source, *names], titles)
