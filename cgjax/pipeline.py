"""The stages of a run: encode, cluster, fit, sample, evaluate, transfer to other classes, report.

Each is skipped when it is done and nothing it depends on has changed. Random numbers come from the
root seed by the stage's name, so a resumed run makes the same bytes as an uninterrupted one.

Several processes share the latents, the clustering and the training. What does not grow with the
number of latents (samples, evaluation, report) the first process does alone, and it alone writes.
"""

from __future__ import annotations

import functools
import json
import math
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from cgjax import clusters, configuration, encoding, figures
from cgjax.clustering import kmeans
from cgjax.clustering.lloyd import KMeansResult
from cgjax.clustering.streaming import OnBlock, extend
from cgjax.errors import UserError
from cgjax.evaluation import compare, fidelity
from cgjax.evaluation.compare_table import to_text
from cgjax.evaluation.features import fit_pca
from cgjax.files import write_atomically
from cgjax.interrupt import Interrupts
from cgjax.metrics import Metrics, Progress
from cgjax.parallel import gather_rows, join_rows, own_rows, run_mesh
from cgjax.processes import Processes
from cgjax.randomness import named_key
from cgjax.report.build import build_report
from cgjax.run import Run, save_images
from cgjax.samplers.training import epoch_on
from cgjax.stages import Stages
from cgjax.transfer import Transfer

# What each stage depends on, besides the stages before it.
DEPENDS = {
    "cluster": ("generator", "layer", "latents", "cluster", "seed"),
    "fit": ("samplers",),
    "sample": ("sample",),
    "evaluate": ("evaluate",),
    "report": (),
}
# Latents in pca.png: so many, or as many as have features of so many MB.
PCA_ROWS, PCA_MB = 2000, 256
MEAN_IMAGES = 512
# What summary.json says of the clustering.
SUMMARISED = ("layer", "num_clusters", "shares", "inertia", "features", "fitted_latents")
SHEET_COLUMNS = 10


_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def _by_the_first(
    stage: Callable[Concatenate[Pipeline, _Arguments], _Result],
) -> Callable[Concatenate[Pipeline, _Arguments], _Result]:
    """Let the first process run a method of the pipeline while the others wait for its result."""

    @functools.wraps(stage)
    def waited_for(
        self: Pipeline, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> _Result:
        return self.processes.first(lambda: stage(self, *args, **kwargs))

    return waited_for


class Pipeline:
    """One run's stages, on an open run folder."""

    def __init__(
        self,
        run: Run,
        interrupts: Interrupts,
        processes: Processes | None = None,
        num_devices: int | None = None,
    ):
        """Open for writing.

        Args:
            run: the run.
            interrupts: asked between units of work.
            processes: those of this run; by default this one.
            num_devices: to work on; None takes all of several processes and all accelerators.
        """
        self.run = run
        self.processes = processes or Processes()
        self.mesh = run_mesh(num_devices)
        if self.processes.num > 1 and run.config["cluster"]["backend"] == "faiss":
            raise UserError(
                "--config.cluster.backend=faiss runs in one process; leave the launcher out, or "
                "use --config.cluster.backend=jax"
            )
        self.metrics = Metrics(run.folder.metrics if self.processes.is_first else os.devnull)
        self.stages = Stages(run.folder.stages, self.metrics, self.processes)
        self.interrupts = interrupts
        self.fingerprints: dict[str, str] = {}
        before = run.weights_sha256
        for stage, names in DEPENDS.items():
            before = configuration.fingerprint(run.config, names, before)
            self.fingerprints[stage] = before
        on = configuration.fingerprint(
            run.config, ("transfer", "sample"), self.fingerprints["fit"]
        )  # not on what is evaluated
        self.transfer = Transfer(run, self.stages, self.metrics, on, interrupts.check)

    def run_all(self) -> None:
        """Run every stage that is not done.

        Raises:
            UserError: what a user can mend.
            Interrupted: asked to stop; what was done is kept.
        """
        stages = (self.cluster, self.fit, self.sample, self.evaluate, self.run_transfers)
        for stage in (*stages, self.report):
            stage()
            self.interrupts.check()

    def cluster(self) -> None:
        """Draw latents, run them to the layer, cluster their features, and draw what they show."""
        if not self._is_clustered():
            self._cluster()
        if self.processes.num > 1:
            data = self.run.folder.clusters.read_bytes() if self.processes.is_first else b""
            self.run.clusters = clusters.parse(self.processes.send(data), self.run.folder.clusters)

    @_by_the_first
    def run_transfers(self) -> None:
        """Transfer the clusters to other classes; see `cgjax.transfer`."""
        self.transfer.run_all()

    @_by_the_first
    def _is_clustered(self) -> bool:
        found = self.stages.result("cluster", self.fingerprints["cluster"])
        return found is not None and self.run.folder.clusters.is_file()

    def _cluster(self) -> None:
        run, config = self.run, self.run.config
        fingerprint = self.fingerprints["cluster"]
        settings = config["cluster"]
        with self.stages.run("encode", fingerprint):
            latents = self._draw_latents(config["latents"]["num"])
            fitted = latents[: settings["max_samples"]]
            features, shape = self._encode(self._own(fitted))
        streamed = features if isinstance(features, encoding.FeatureStream) else None
        with self.stages.run("cluster", fingerprint) as result, streamed or nullcontext():
            mesh, weights, data = None, None, cast(Any, features)
            if isinstance(features, np.ndarray) and settings["backend"] == "jax":
                mesh = self.mesh
            if self.processes.num > 1 and mesh is not None:
                data, weights = join_rows(data, len(fitted), mesh)
            found = kmeans(
                # One device: no copy on a CPU, see all_features. Several: each its own rows.
                data if streamed or mesh else jax.device_put(data),
                settings["num_clusters"],
                key=named_key(run.root_key, "cluster"),
                num_init=settings["num_init"],
                max_iter=settings["max_iter"],
                tol=settings["tol"],
                init=settings["init"],
                backend=settings["backend"],
                mesh=mesh,
                weights=weights,
                on_block=self._report_block(),
            )
            del data
            if self.processes.num > 1:
                found = _gather(found, len(fitted))
            if len(fitted) < len(latents):
                logging.info(
                    "clustered the first %d latents (--config.cluster.max_samples); assigning the "
                    "other %d",
                    len(fitted),
                    len(latents) - len(fitted),
                )
                rest = encoding.FeatureStream(run.bound, latents[len(fitted) :])
                found = extend(found, rest, on_block=self._report_block())
            labels = np.asarray(found.labels)
            counts = np.bincount(labels, minlength=settings["num_clusters"])
            made = clusters.Clusters(
                centroids=np.asarray(found.centroids),
                labels=labels.astype(np.int32),
                margins=np.asarray(found.margins, np.float32),
                shares=counts / len(labels),
                latents=latents,
            )
            self._warn_if_small(counts)
            self._keep(made, self._first_rows(features, made), shape)
            del features
            result |= {
                "layer": run.bound.layer,
                "num_clusters": made.num,
                "shares": made.shares.tolist(),
                "inertia": float(found.inertia),
                "num_iter": int(found.num_iter),
                "features": streamed.storage if streamed else "memory",
                "fitted_latents": len(fitted),
            }
            logging.info(
                "%s: %d clusters of %d latents, shares %s",
                run.bound.layer,
                made.num,
                len(labels),
                ", ".join(f"{s:.3f}" for s in made.shares),
            )

    def _own(self, latents: np.ndarray) -> np.ndarray:
        """Return this process's part of the latents, filled up: every process has as many."""
        if self.processes.num == 1 or self.mesh is None:
            return latents
        own = own_rows(len(latents), self.mesh)
        return latents[np.minimum(own, len(latents) - 1)]

    @_by_the_first
    def _keep(self, made: clusters.Clusters, first: np.ndarray, shape: tuple[int, ...]) -> None:
        """Write the clusters and what they show; `first` are the features of the first latents."""
        folder = self.run.folder
        folder.figures.mkdir(parents=True, exist_ok=True)
        self._draw_pca(first, made)
        self._draw_means(made, shape)
        # Names given to other clusters mean nothing here.
        write_atomically(folder.descriptions, _json(clusters.describe(made)))
        clusters.save_clusters(folder.clusters, made)

    def _first_rows(
        self, features: np.ndarray | encoding.FeatureStream, made: clusters.Clusters
    ) -> np.ndarray:
        """Return the features that the picture of principal components shows, the first rows."""
        most = max(3, min(PCA_ROWS, PCA_MB * 2**20 // (4 * made.centroids.shape[1])))
        if isinstance(features, encoding.FeatureStream):
            return features.first(min(most, features.num_rows))
        if self.processes.num == 1:
            return features[:most]
        # The first process shows them, and some of them may be another's.
        return self.run.bound.all_features(made.latents[: most if self.processes.is_first else 1])

    def _draw_latents(self, num: int) -> np.ndarray:
        key, batch = named_key(self.run.root_key, "latents"), 4096
        rounds = range(math.ceil(num / batch))
        parts = [self.run.bound.sample_latents(named_key(key, r), batch) for r in rounds]
        return np.asarray(jnp.concatenate(parts)[:num])

    def _encode(
        self, latents: np.ndarray
    ) -> tuple[np.ndarray | encoding.FeatureStream, tuple[int, ...]]:
        """Return the (n, f) features, streamed if they do not fit, and one activation's shape."""
        bound, settings = self.run.bound, self.run.config["cluster"]
        shape = encoding.feature_dim(bound, latents)
        size_mb = 4 * len(latents) * math.prod(shape) / 2**20
        if size_mb <= settings["memory_mb"]:
            progress = Progress("encode", len(latents))

            def on_rows(done: int) -> None:
                progress.update(done)
                self.interrupts.check("nothing is kept of the encoding")

            return encoding.all_features(bound, latents, on_rows), shape
        if settings["backend"] != "jax":
            raise UserError(
                f"the features of {len(latents)} latents take {size_mb:.0f} MB and "
                f"backend={settings['backend']} holds them in memory; raise "
                "--config.cluster.memory_mb or use --config.cluster.backend=jax"
            )
        if self.processes.num > 1:
            raise UserError(
                f"the features of {len(latents)} latents take {size_mb:.0f} MB in each of "
                f"{self.processes.num} processes, which hold them in memory; raise "
                "--config.cluster.memory_mb, start more processes, or cluster fewer of the latents "
                "with --config.cluster.max_samples"
            )
        stream = encoding.FeatureStream(bound, latents)
        # k-means++, the first iteration and the assignment read every row.
        reads = settings["num_clusters"] + 2
        speed = stream.choose_storage(self.run.folder.root, num_reads=reads)
        logging.info(
            "encode: %.0f MB of features do not fit into --config.cluster.memory_mb=%d: %s (%s)",
            size_mb,
            settings["memory_mb"],
            "kept on disk" if stream.storage == "disk" else "recomputed when they are read",
            f"{stream.block} rows take {speed.compute:.3f} s to compute, {speed.write:.3f} s to "
            f"write, {speed.read:.3f} s to read"
            if speed
            else "no room for them on the disk",
        )
        return stream, shape

    def _report_block(self) -> OnBlock:
        """Return what is called between the blocks of a streamed clustering."""
        progress: dict[str, Progress] = {}

        def on_block(what: str, done: int, total: int) -> None:
            if what != "fetch":
                progress.setdefault(what, Progress(f"cluster: {what}", total)).update(done)
            self.interrupts.check("nothing is kept of the clustering")

        return on_block

    def _warn_if_small(self, counts: np.ndarray) -> None:
        for c, count in enumerate(counts):
            if count < 100:
                logging.warning(
                    "cluster %d has %d of %d latents: expect repeated samples; raise "
                    "--config.latents.num or lower --config.cluster.num_clusters",
                    c,
                    count,
                    counts.sum(),
                )

    def _draw_pca(self, first: np.ndarray, made: clusters.Clusters) -> None:
        rows = len(first)
        panels = []
        for title, part in ((self.run.bound.layer, first), ("latents", made.latents[:rows])):
            panels.append(
                (f"PCA of {title}", fit_pca(part, 2).project(part))
                if rows > 2 and part.shape[1] > 1
                else (title, np.zeros((rows, 2), np.float32))
            )
        picture = figures.scatter(panels, made.labels[:rows], _titles(made))
        write_atomically(self.run.folder.figures / "pca.png", figures.to_png(picture))

    def _draw_means(self, made: clusters.Clusters, shape: tuple[int, ...]) -> None:
        bound = self.run.bound
        columns = ["mean image", "of mean feature"]
        rows = []
        for c in range(made.num):
            z = made.latents[made.labels == c][:MEAN_IMAGES]
            if not len(z):  # fewer distinct features than clusters
                z = made.latents[:1]
            pictures = [bound.images(z).mean(axis=0, keepdims=True)]
            if hasattr(bound.gen, "resume"):
                centroid = jnp.asarray(made.centroids[c]).reshape(1, *shape)
                try:
                    mean = jnp.asarray(z.mean(axis=0, keepdims=True))
                    pictures.append(np.asarray(bound.resume(centroid, mean)))
                except UserError as error:
                    logging.warning("no image of the mean feature: %s", error)
            rows.append(np.concatenate(pictures))
        picture = figures.contact_sheet(rows, _titles(made), columns[: len(rows[0])])
        write_atomically(self.run.folder.figures / "means.png", figures.to_png(picture))

    def fit(self) -> None:
        """Train every sampler that learns, resuming from its newest good checkpoint."""
        fingerprint = self.fingerprints["fit"]
        if self.stages.result("fit", fingerprint) is not None:
            return
        with self.stages.run("fit", fingerprint) as result:
            for name in self.run.sampler_names:
                result[name] = self._fit(name)

    def _fit(self, name: str) -> dict[str, Any]:
        run = self.run
        sampler = run.make_sampler(name)
        if not sampler.num_epochs:
            return {"seconds": 0.0}
        own = configuration.fingerprint(
            run.config["samplers"][name], tuple(run.config["samplers"][name])
        )
        fingerprint = configuration.fingerprint({}, (), self.fingerprints["cluster"], own)
        saved = run.checkpoints(name)
        key = named_key(run.root_key, "fit", name)
        started = time.monotonic()
        num_latents = getattr(sampler, "num_latents", None)
        members = (
            run.members
            if num_latents is None
            else run.more_members(
                num_latents, lambda: self.interrupts.check("no epoch was begun"), self.processes
            )
        )
        state = sampler.init(named_key(key, "init"), members)

        def resume() -> tuple[int, float]:
            """Restore the newest good step; return its epoch and the seconds it took."""
            nonlocal state
            for step in reversed(saved.steps()):
                if step.metadata.get("fingerprint") != fingerprint:
                    saved.remove(step.number)
                    continue
                try:
                    state = saved.restore(step.number, {"state": state})["state"]
                except UserError as error:
                    logging.warning("%s; using the step before it", error)
                    saved.remove(step.number)
                    continue
                logging.info("fit %s: resuming at epoch %d", name, step.number)
                return step.number, float(step.metadata["seconds"])
            return 0, 0.0

        begin, spent = self.processes.first(resume)
        if begin:
            state = self.processes.send_tree(state)

        def save(epochs: int) -> None:
            seconds = spent + time.monotonic() - started
            metadata = {"fingerprint": fingerprint, "seconds": seconds}
            saved.save(epochs, {"state": state}, metadata)

        run_epoch = sampler.epoch if self.mesh is None else epoch_on(self.mesh, sampler)
        progress = Progress(f"fit {name}: epoch", sampler.num_epochs)
        for epoch in range(begin, sampler.num_epochs):
            state, numbers = run_epoch(state, members, named_key(key, "epoch", epoch), epoch)
            loss = np.asarray(numbers["loss"])
            if not np.isfinite(loss).all():
                bad = int(np.flatnonzero(~np.isfinite(loss))[0])
                raise UserError(
                    f"the loss of {name} became {loss[bad]} in epoch {epoch}, cluster {bad}; lower "
                    f"--config.samplers.{name}.learning_rate"
                )
            done = epoch + 1
            self.metrics.write(stage="fit", sampler=name, epoch=done, **numbers)
            progress.update(done, f", loss {loss.mean():.4f}")
            due = done == sampler.num_epochs or done % run.config["checkpoint_epochs"] == 0
            is_stopped = self.interrupts.agreed()
            if due or is_stopped:
                save(done)
            if is_stopped:
                self.interrupts.stop(f"{name} is saved at epoch {done}")
        return {"seconds": round(spent + time.monotonic() - started, 3)}

    @_by_the_first
    def sample(self) -> None:
        """Draw samples of every sampler and cluster, verified, and the picture of all clusters."""
        run, fingerprint = self.run, self.fingerprints["sample"]
        if self.stages.result("sample", fingerprint) is not None:
            return
        num = run.config["sample"]["num"]
        with self.stages.run("sample", fingerprint) as result:
            rows = []
            for name in run.sampler_names:
                result[name] = []
                for c in range(run.clusters.num):
                    key = named_key(run.root_key, "sample", name, c)
                    samples = run.sample(key, c, num, name)
                    folder = run.folder.samples / name / str(c)
                    save_images(samples.images, samples.latents, folder)
                    result[name].append({"acceptance": samples.acceptance})
                    if name == run.config["sample"]["sampler"]:
                        rows.append(samples.images[:SHEET_COLUMNS])
                    self.interrupts.check()
            picture = figures.contact_sheet(rows, _titles(run.clusters))
            write_atomically(run.folder.figures / "clusters.png", figures.to_png(picture))

    @_by_the_first
    def evaluate(self, again: bool = False) -> None:
        """Measure every sampler against held-out members of every cluster."""
        run, fingerprint = self.run, self.fingerprints["evaluate"]
        if again or self.stages.result("evaluate", fingerprint) is None:
            settings = run.config["evaluate"]
            key = named_key(run.root_key, "evaluate")
            with self.stages.run("evaluate", fingerprint) as result:
                progress = Progress("evaluate", 1 + len(run.sampler_names))
                reference = fidelity.make_reference(run, key, **settings)
                progress.update(1)
                result["distance"] = fidelity.distance_name(reference.extractor)
                result["samplers"] = {}
                for i, name in enumerate(run.sampler_names):
                    self.interrupts.check("the evaluation begins anew next time")
                    numbers = fidelity.evaluate_sampler(run, name, reference, key, settings["num"])
                    result["samplers"][name] = numbers
                    progress.update(2 + i)
                    self.metrics.write(stage="evaluate", sampler=name, **numbers)
        self.write_summary()

    def compare(self) -> str:
        """Fit what is not fitted, measure samplers and baselines side by side; return the table."""
        self.cluster()
        self.fit()
        return self._compare()

    @_by_the_first
    def _compare(self) -> str:
        costs = self.stages.result("fit", self.fingerprints["fit"]) or {}
        with self.stages.run("compare", self.fingerprints["fit"]):
            rows = compare.Comparison(self.run, costs, self.interrupts.check).measure_all()
        text = to_text(rows, self.run.config["compare"]["accuracy"])
        write_atomically(self.run.folder.root / "compare.txt", f"{text}\n".encode())
        return text

    @_by_the_first
    def write_summary(self) -> None:
        """Write `summary.json` from what the stages left."""
        run = self.run
        found = self.stages.result("cluster", self.fingerprints["cluster"])
        measured = self.stages.result("evaluate", self.fingerprints["evaluate"])
        if found is None:
            raise UserError(f"{run.folder.root} has no clusters yet; run the experiment first")
        summary = {
            **{k: found[k] for k in SUMMARISED},
            "stages": self.stages.costs(),
            **(measured or {"samplers": {}}),
        }
        if transferred := self.transfer.results():
            summary["transfer"] = transferred
        write_atomically(run.folder.summary, _json(summary))

    @_by_the_first
    def report(self) -> None:
        """Build the static page; cheap, so always made anew."""
        self.write_summary()  # the page shows it
        with self.stages.run("report", self.fingerprints["report"]):
            build_report(self.run)
        self.write_summary()


def _gather(found: KMeansResult, num: int) -> KMeansResult:
    """Return a clustering over several processes as arrays of each of them, labels whole."""

    def whole(name: str, field: jax.Array) -> jax.Array:
        is_split = name in ("labels", "margins")
        return jnp.asarray(gather_rows(field, num) if is_split else np.asarray(field))

    return KMeansResult(**{name: whole(name, field) for name, field in found._asdict().items()})


def _titles(made: clusters.Clusters) -> list[str]:
    return [f"cluster {c}\n{100 * share:.1f}%" for c, share in enumerate(made.shares)]


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()
