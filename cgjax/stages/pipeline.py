"""The stages of a run: encode, cluster, fit, sample, evaluate, transfer to other classes, report.

Each is skipped when it is done and nothing it depends on has changed. Random numbers come from the
root seed by the stage's name, so a resumed run makes the same bytes as an uninterrupted one.

Several processes share the latents, the clustering and the training. What does not grow with the
number of latents (samples, evaluation, report) the first process does alone, and it alone writes.
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
from absl import logging

from cgjax.config import plain as configuration
from cgjax.errors import UserError
from cgjax.evaluation import fidelity
from cgjax.evaluation.compare_table import to_text
from cgjax.figures import sheets as figures
from cgjax.figures.clusters import titles
from cgjax.report.build import build_report
from cgjax.run.artifacts import Stages
from cgjax.run.run import Run, save_images
from cgjax.runtime.files import write_atomically, write_json
from cgjax.runtime.keys import named_key
from cgjax.runtime.log import Metrics, Progress
from cgjax.runtime.mesh import local_mesh, run_mesh
from cgjax.runtime.processes import Processes, by_the_first
from cgjax.runtime.signals import Interrupts
from cgjax.samplers.training import over_mesh
from cgjax.stages import compare
from cgjax.stages.cluster import ClusterStage
from cgjax.stages.transfer import Transfer

# What each stage depends on, besides the stages before it.
DEPENDS = {
    "cluster": ("generator", "layer", "latents", "cluster", "seed"),
    "fit": ("samplers",),
    "sample": ("sample",),
    "evaluate": ("evaluate",),
    "report": (),
}
# What summary.json says of the clustering.
SUMMARISED = ("layer", "num_clusters", "shares", "inertia", "features", "fitted_latents")
SHEET_COLUMNS = 10


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
        if own := local_mesh(self.mesh):
            run.generator = run.generator.over(own)
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
        self.clustering = ClusterStage(
            run,
            self.stages,
            self.processes,
            self.mesh,
            self.fingerprints["cluster"],
            interrupts.check,
        )
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
        self.clustering.run_all()

    @by_the_first
    def run_transfers(self) -> None:
        """Transfer the clusters to other classes; see `cgjax.stages.transfer`."""
        self.transfer.run_all()

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

        run_epoch = sampler.epoch if self.mesh is None else over_mesh(self.mesh, sampler)
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

    @by_the_first
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
            picture = figures.contact_sheet(rows, titles(run.clusters))
            write_atomically(run.folder.figures / "clusters.png", figures.to_png(picture))

    @by_the_first
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

    @by_the_first
    def _compare(self) -> str:
        costs = self.stages.result("fit", self.fingerprints["fit"]) or {}
        with self.stages.run("compare", self.fingerprints["fit"]):
            rows = compare.Comparison(self.run, costs, self.interrupts.check).measure_all()
        text = to_text(rows, self.run.config["compare"]["accuracy"])
        write_atomically(self.run.folder.root / "compare.txt", f"{text}\n".encode())
        return text

    @by_the_first
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
        write_json(run.folder.summary, summary)

    @by_the_first
    def report(self) -> None:
        """Build the static page; cheap, so always made anew."""
        self.write_summary()  # the page shows it
        with self.stages.run("report", self.fingerprints["report"]):
            build_report(self.run)
        self.write_summary()
