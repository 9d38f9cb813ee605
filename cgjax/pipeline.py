"""The stages of a run: encode, cluster, fit, sample, evaluate, transfer to other classes, report.

Each is skipped when it is done and nothing it depends on has changed. Random numbers come from the
root seed by the stage's name, so a resumed run makes the same bytes as an uninterrupted one.
"""

from __future__ import annotations

import json
import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from cgjax import clusters, configuration, figures
from cgjax.clustering import kmeans
from cgjax.errors import UserError
from cgjax.evaluation import compare, fidelity
from cgjax.evaluation.features import fit_pca
from cgjax.files import write_atomically
from cgjax.interrupt import Interrupts
from cgjax.memory import empty_aligned
from cgjax.metrics import Metrics, Progress
from cgjax.parallel import accelerator_mesh
from cgjax.randomness import named_key
from cgjax.report.build import build_report
from cgjax.run import Run, save_images
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
PCA_ROWS = 2000
MEAN_IMAGES = 512
SHEET_COLUMNS = 10


class Pipeline:
    """One run's stages, on an open run folder."""

    def __init__(self, run: Run, interrupts: Interrupts):
        self.run = run
        self.metrics = Metrics(run.folder.metrics)
        self.stages = Stages(run.folder.stages, self.metrics)
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
        stages = (self.cluster, self.fit, self.sample, self.evaluate, self.transfer.run_all)
        for stage in (*stages, self.report):
            stage()
            self.interrupts.check()

    def cluster(self) -> None:
        """Draw latents, run them to the layer, cluster their features, and draw what they show."""
        run, config = self.run, self.run.config
        fingerprint = self.fingerprints["cluster"]
        if self.stages.result("cluster", fingerprint) is not None and run.folder.clusters.is_file():
            return
        with self.stages.run("encode", fingerprint):
            latents = self._draw_latents(config["latents"]["num"])
            features, shape = self._encode(latents)
        settings = config["cluster"]
        with self.stages.run("cluster", fingerprint) as result:
            mesh = accelerator_mesh() if settings["backend"] == "jax" else None
            found = kmeans(
                # One device: no copy on a CPU, see empty_aligned. Several: each its own rows.
                jax.device_put(features) if mesh is None else features,
                settings["num_clusters"],
                key=named_key(run.root_key, "cluster"),
                num_init=settings["num_init"],
                max_iter=settings["max_iter"],
                tol=settings["tol"],
                init=settings["init"],
                backend=settings["backend"],
                mesh=mesh,
            )
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
            run.folder.figures.mkdir(parents=True, exist_ok=True)
            self._draw_pca(features, made)
            del features
            self._draw_means(made, shape)
            write_atomically(
                run.folder.descriptions, _json(clusters.describe(made))
            )  # names given to other clusters mean nothing here
            clusters.save_clusters(run.folder.clusters, made)
            result |= {
                "layer": run.bound.layer,
                "num_clusters": made.num,
                "shares": made.shares.tolist(),
                "inertia": float(found.inertia),
                "num_iter": int(found.num_iter),
            }
            logging.info(
                "%s: %d clusters of %d latents, shares %s",
                run.bound.layer,
                made.num,
                len(labels),
                ", ".join(f"{s:.3f}" for s in made.shares),
            )

    def _draw_latents(self, num: int) -> np.ndarray:
        key, batch = named_key(self.run.root_key, "latents"), 4096
        rounds = range(math.ceil(num / batch))
        parts = [self.run.bound.sample_latents(named_key(key, r), batch) for r in rounds]
        return np.asarray(jnp.concatenate(parts)[:num])

    def _encode(self, latents: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
        """Return the (n, f) features and the shape of one activation."""
        bound = self.run.bound
        progress = Progress("encode", len(latents))
        one = bound.gen.features(jnp.asarray(latents[:1]), bound.layer, **bound.keywords)
        features = empty_aligned((len(latents), one[0].size))  # not copied: it is the largest
        step = bound.batch * max(1, 1024 // bound.batch)
        for start in range(0, len(latents), step):
            rows = latents[start : start + step]
            features[start : start + step] = bound.all_features(rows)
            progress.update(start + len(rows))
            self.interrupts.check("nothing is kept of the encoding")
        return features, tuple(one.shape[1:])

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

    def _draw_pca(self, features: np.ndarray, made: clusters.Clusters) -> None:
        rows = min(len(features), PCA_ROWS)
        panels = []
        for title, data in ((self.run.bound.layer, features), ("latents", made.latents)):
            part = data[:rows]
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
            else run.more_members(num_latents, lambda: self.interrupts.check("no epoch was begun"))
        )
        state, begin, spent = sampler.init(named_key(key, "init"), members), 0, 0.0
        for step in reversed(saved.steps()):
            if step.metadata.get("fingerprint") != fingerprint:
                saved.remove(step.number)
                continue
            try:
                restored = saved.restore(step.number, {"state": state})
            except UserError as error:
                logging.warning("%s; using the step before it", error)
                saved.remove(step.number)
                continue
            state, begin = restored["state"], step.number
            spent = float(step.metadata["seconds"])
            logging.info("fit %s: resuming at epoch %d", name, begin)
            break

        def save(epochs: int) -> None:
            seconds = spent + time.monotonic() - started
            metadata = {"fingerprint": fingerprint, "seconds": seconds}
            saved.save(epochs, {"state": state}, metadata)

        progress = Progress(f"fit {name}: epoch", sampler.num_epochs)
        for epoch in range(begin, sampler.num_epochs):
            state, numbers = sampler.epoch(state, members, named_key(key, "epoch", epoch), epoch)
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
            if due or self.interrupts.requested:
                save(done)
            self.interrupts.check(f"{name} is saved at epoch {done}")
        return {"seconds": round(spent + time.monotonic() - started, 3)}

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
        costs = self.stages.result("fit", self.fingerprints["fit"]) or {}
        with self.stages.run("compare", self.fingerprints["fit"]):
            rows = compare.Comparison(self.run, costs, self.interrupts.check).measure_all()
        text = compare.to_text(rows)
        return text if self.run.clusters.num > 1 else f"{text}\n\n{compare.domain_gap(rows)}"

    def write_summary(self) -> None:
        """Write `summary.json` from what the stages left."""
        run = self.run
        found = self.stages.result("cluster", self.fingerprints["cluster"])
        measured = self.stages.result("evaluate", self.fingerprints["evaluate"])
        if found is None:
            raise UserError(f"{run.folder.root} has no clusters yet; run the experiment first")
        summary = {
            **{k: found[k] for k in ("layer", "num_clusters", "shares", "inertia")},
            "stages": self.stages.costs(),
            **(measured or {"samplers": {}}),
        }
        if transferred := self.transfer.results():
            summary["transfer"] = transferred
        write_atomically(run.folder.summary, _json(summary))

    def report(self) -> None:
        """Build the static page; cheap, so always made anew."""
        self.write_summary()  # the page shows it
        with self.stages.run("report", self.fingerprints["report"]):
            build_report(self.run)
        self.write_summary()


def _titles(made: clusters.Clusters) -> list[str]:
    return [f"cluster {c}\n{100 * share:.1f}%" for c, share in enumerate(made.shares)]


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()
