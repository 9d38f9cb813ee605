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
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Float, Int

from cgjax.clustering import assign, kmeans
from cgjax.errors import UserError
from cgjax.evaluation.transfer import transfer_figure, transfer_score
from cgjax.figures import sheets as figures
from cgjax.generators.base import in_batches
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.run.artifacts import Stages
from cgjax.run.run import Run
from cgjax.runtime.files import write_atomically
from cgjax.runtime.keys import named_key
from cgjax.runtime.log import Metrics

REFERENCE = "rejection"
FIGURE = "transfer.png"


def target_classes(run: Run) -> list[str]:
    """Return the classes that a run's config names; `a,b` in one text are two."""
    given = [str(entry) for entry in run.config.get("transfer", {}).get("conditions", ())]
    return [name.strip() for text in given for name in text.split(",") if name.strip()]


def check_targets(run: Run) -> None:
    """Check before any work that the generator has the classes that the config names.

    Raises:
        UserError: a generator without classes, an unknown class with the candidates.
    """
    for name in target_classes(run):
        generator = run.generator.with_condition(name)
        latents = jax.ShapeDtypeStruct((1, generator.gen.latent_dim), jnp.float32)
        try:
            jax.eval_shape(generator.features, latents)
        except UserError as error:
            raise UserError(f"--config.transfer.conditions={name}: {error}") from error
        except TypeError as error:
            if "condition" not in str(error):
                raise
            raise UserError(
                f"--config.transfer.conditions={name}: this generator's features() takes no "
                "condition, and transfer is between classes; leave transfer.conditions empty"
            ) from error


def sampler_names(run: Run) -> list[str]:
    """Return the samplers that are tried: the config's default, and the exact reference."""
    wanted = (run.config["sample"]["sampler"], REFERENCE)
    return [name for name in dict.fromkeys(wanted) if name in run.sampler_names]


class Transfer:
    """The transfer stages of a run, one a class, so that an interrupted run keeps whole classes."""

    def __init__(
        self,
        run: Run,
        stages: Stages,
        metrics: Metrics,
        fingerprint: str,
        check: Callable[..., None],
    ):
        """Bind.

        Args:
            run: with its clusters.
            stages: the manifests.
            metrics: where every class's score is written.
            fingerprint: of everything that the transfer depends on.
            check: called between pieces of work; may raise to stop.
        """
        self.run, self.stages, self.metrics = run, stages, metrics
        self.fingerprint, self.check = fingerprint, check

    def results(self) -> dict[str, Any] | None:
        """Return what `summary.json` says of the transfer; None where none is asked for."""
        names = target_classes(self.run)
        done = [self.stages.result(_stage(i), self.fingerprint) for i in range(len(names))]
        if not names or None in done:
            return None
        return {"source": self.run.config["generator"]["condition"], "classes": done}

    def run_all(self) -> None:
        """Score every class that is not done, and draw the figure."""
        run, names = self.run, target_classes(self.run)
        path = run.folder.figures / FIGURE
        if not names:
            path.unlink(missing_ok=True)
            return
        todo = [i for i in range(len(names)) if not self.stages.result(_stage(i), self.fingerprint)]
        if not todo and path.is_file():
            return
        asked = {name: self._draw(name) for name in sampler_names(run)}
        for i in todo:
            with self.stages.run(_stage(i), self.fingerprint) as result:
                result |= self._score(names[i], asked)
            self.check()
        picture = self._draw_figure(names, next(iter(asked.values())))
        write_atomically(path, figures.to_png(picture))

    def _draw(self, sampler: str) -> Float[np.ndarray, "k n d"]:
        """Draw latents for every cluster of the source class, as they come from the sampler."""
        run, num = self.run, self.run.config["transfer"]["num"]
        verify = run.fitted(sampler).sampler.always_verified
        drawn = []
        for c in range(run.clusters.num):
            key = named_key(run.root_key, "transfer", sampler, c)
            drawn.append(run.draw(key, c, num, sampler=sampler, verify=verify)[0])
            self.check()
        return np.stack(drawn)

    def _score(self, name: str, asked: dict[str, Float[np.ndarray, "k n d"]]) -> dict[str, Any]:
        run, num = self.run, self.run.clusters.num
        generator = run.generator.with_condition(name)
        centroids, labels = self._cluster(generator)
        shares = np.bincount(labels, minlength=num) / len(labels)
        entries: dict[str, Any] = {}
        for sampler, z in asked.items():
            latents = z.reshape(-1, z.shape[-1])
            own = _assigned(generator, centroids, latents)
            score = transfer_score(np.repeat(np.arange(num), z.shape[1]), own, num)
            entry = entries[sampler] = {
                "agreement": score.agreement,
                "interval": list(score.interval),
                "chance": score.chance,
                "matching": score.matching.tolist(),
                "by_cluster": score.by_cluster.tolist(),
            }
            self.metrics.write(stage="transfer", condition=name, sampler=sampler, **entry)
            logging.info(
                "transfer to %s, %s: agreement %.3f (%.3f to %.3f), chance %.3f",
                name,
                sampler,
                score.agreement,
                *score.interval,
                score.chance,
            )
        return {"condition": name, "shares": shares.tolist(), "samplers": entries}

    def _cluster(
        self, generator: ConditionedGenerator
    ) -> tuple[Float[np.ndarray, "k f"], Int[np.ndarray, " n"]]:
        """Cluster the run's latents in a class's own features, with the run's settings and seed."""
        run, settings = self.run, self.run.config["cluster"]
        features = generator.all_features(run.clusters.latents)
        self.check("this class begins anew next time")
        found = kmeans(
            jax.device_put(features),
            settings["num_clusters"],
            key=named_key(run.root_key, "cluster"),  # so that a class agrees with itself
            num_init=settings["num_init"],
            max_iter=settings["max_iter"],
            tol=settings["tol"],
            init=settings["init"],
            backend=settings["backend"],
        )
        return np.asarray(found.centroids), np.asarray(found.labels)

    def _draw_figure(self, names: list[str], asked: Float[np.ndarray, "k n d"]) -> Any:
        run = self.run
        shown = asked[:, : run.config["transfer"]["columns"]]
        latents = shown.reshape(-1, shown.shape[-1])
        bounds = [run.generator, *(run.generator.with_condition(name) for name in names)]
        images = [b.images(latents) for b in bounds]
        split = [list(x.reshape(*shown.shape[:2], *x.shape[1:])) for x in images]
        titles = [f"cluster {c}" for c in range(len(asked))]
        source = str(run.config["generator"]["condition"])
        return transfer_figure(split, [source, *names], titles)


def _assigned(
    generator: ConditionedGenerator,
    centroids: Float[np.ndarray, "k f"],
    z: Float[np.ndarray, "n d"],
) -> Int[np.ndarray, " n"]:
    points = jnp.asarray(centroids)
    return in_batches(lambda rows: assign(generator.features(rows), points)[0], z, generator.batch)


def _stage(index: int) -> str:
    return f"transfer_{index}"
