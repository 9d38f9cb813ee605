"""Cross-class transfer of a run: its clusters and samplers, tried on other classes.

The clusters were learnt on one class A of a conditional generator. For each target class B the same
latents are run to the same layer with B's condition and clustered anew; latents that the run's
samplers draw for A's clusters are then assigned by B's own clustering. How far the two agree,
whatever the clusters are called, is the score [Georgopoulos et al. 2022, section 4.4 and Fig. 6].
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
from cgjax.features.in_memory import all_features, space_at
from cgjax.figures.transfer import transfer_figure
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.regions.clustering import Clustering, assign_latents
from cgjax.run.artifacts import REFERENCE, target_classes, transfer
from cgjax.run.run import Run
from cgjax.runtime.files import make_folder, write_atomically
from cgjax.runtime.keys import named_key
from cgjax.runtime.png import to_png
from cgjax.stages.encoding import clustering_of, find_clusters
from cgjax.stages.graph import Maker

FIGURE = "transfer.png"


def sampler_names(run: Run) -> list[str]:
    """Return the samplers that are tried: the config's default, and the exact reference."""
    wanted = (run.config["sample"]["sampler"], REFERENCE)
    return [name for name in dict.fromkeys(wanted) if name in run.sampler_names]


class TransferStage:
    """The transfer of a run, an artifact a class: an interrupted run keeps whole classes."""

    def __init__(self, run: Run, maker: Maker, check: Callable[..., None]):
        """Bind.

        Args:
            run: with its clusters.
            maker: of its artifacts.
            check: called between pieces of work; may raise to stop.
        """
        self.run, self.maker, self.check = run, maker, check

    def run_all(self) -> None:
        """Score every class that is not done, and draw the figure."""
        run, maker, names = self.run, self.maker, target_classes(self.run.config)
        todo = [i for i in range(len(names)) if maker.result(transfer(i)) is None]
        if not names or not (todo or maker.result("transfer figure") is None):
            return
        asked = {name: self._draw(name) for name in sampler_names(run)}
        for i in todo:
            with maker.making(transfer(i)) as result:
                result |= self._score(names[i], asked)
            self.check()
        with maker.making("transfer figure"):
            make_folder(run.folder.figures)
            picture = self._draw_figure(names, next(iter(asked.values())))
            write_atomically(run.folder.figures / FIGURE, to_png(picture))

    def _draw(self, sampler: str) -> Float[np.ndarray, "k n d"]:
        """Draw latents for every cluster of the source class, as they come from the sampler."""
        run, num = self.run, self.run.config["transfer"]["num"]
        verify = run.fitted(sampler).sampler.always_verified
        drawn = []
        for region in run.regions:
            key = named_key(run.root_key, "transfer", sampler, region.cluster)
            drawn.append(run.draw(key, region, num, sampler=sampler, verify=verify)[0])
            self.check()
        return np.stack(drawn)

    def _score(self, name: str, asked: dict[str, Float[np.ndarray, "k n d"]]) -> dict[str, Any]:
        run, num = self.run, self.run.clustering.num
        generator = run.generator.with_condition(name)
        clustering = self._cluster(generator)
        entries: dict[str, Any] = {}
        for sampler, z in asked.items():
            latents = z.reshape(-1, z.shape[-1])
            own = assign_latents(clustering, generator, latents)[0]
            score = transfer_score(np.repeat(np.arange(num), z.shape[1]), own, num)
            entry = entries[sampler] = {
                "agreement": score.agreement,
                "interval": list(score.interval),
                "chance": score.chance,
                "matching": score.matching.tolist(),
                "by_cluster": score.by_cluster.tolist(),
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
        """Cluster the run's latents in a class's own features, with the run's settings and seed."""
        run, settings = self.run, self.run.config["cluster"]
        space = space_at(generator, run.latents, settings["space"])
        features = all_features(generator, run.latents, lambda _: None, space)
        self.check("this class begins anew next time")
        (found,) = find_clusters(
            jax.device_put(features),
            [run.clustering.num],
            settings,
            key=named_key(run.root_key, "cluster"),  # so that a class agrees with itself
        )
        return clustering_of(found, generator.layer, space)

    def _draw_figure(self, names: list[str], asked: Float[np.ndarray, "k n d"]) -> Image.Image:
        run = self.run
        shown = asked[:, : run.config["transfer"]["columns"]]
        latents = shown.reshape(-1, shown.shape[-1])
        bounds = [run.generator, *(run.generator.with_condition(name) for name in names)]
        images = [b.images(latents) for b in bounds]
        split = [list(x.reshape(*shown.shape[:2], *x.shape[1:])) for x in images]
        titles = [f"cluster {c}" for c in range(len(asked))]
        source = str(run.config["generator"]["condition"])
        return transfer_figure(split, [source, *names], titles)
