"""The stages of a run, in order: cluster; fit and sample each sampler; evaluate; transfer; report.

Each stage is skipped when its artifacts are current. Random numbers come from the root seed by the
stage's name, so a resumed run makes the same bytes as an uninterrupted one. The page is written
again whenever there is something new to show. A stage that trains takes `interrupts`, to save its
state before it stops; every other takes `interrupts.check`, which raises between units of work.

Several processes share the latents, the clustering and the training. The first process alone does
what does not grow with the number of latents (samples, evaluation, report), and it alone writes.
"""

from __future__ import annotations

import os
from pathlib import Path

from cgjax.config.plain import split_texts
from cgjax.regions.page_names import GivenNames, NameOutcome
from cgjax.regions.region import Region
from cgjax.run.places import evaluation_name
from cgjax.run.run import Run
from cgjax.runtime.log import Metrics
from cgjax.runtime.mesh import local_mesh, run_mesh
from cgjax.runtime.processes import ALONE, Processes, by_the_first
from cgjax.runtime.signals import Interrupts
from cgjax.stages.assign import AssignStage
from cgjax.stages.cluster import ClusterStage
from cgjax.stages.compare import CompareStage
from cgjax.stages.evaluate import EvaluateStage
from cgjax.stages.fit import FitStage
from cgjax.stages.graph import Maker
from cgjax.stages.groups import Clusters
from cgjax.stages.hierarchy import make_splits
from cgjax.stages.name import merge_names, name_cluster
from cgjax.stages.rare import warn_of_rare
from cgjax.stages.report import write_page
from cgjax.stages.sample import draw_sheet, save_samples
from cgjax.stages.sweep import SweepStage
from cgjax.stages.transfer import TransferStage


class Pipeline:
    """The stages of one run, whose folder is open for writing."""

    def __init__(
        self,
        run: Run,
        interrupts: Interrupts,
        processes: Processes = ALONE,
        num_devices: int | None = None,
    ):
        """Prepare; opens the file of metrics and writes nothing else.

        Args:
            run: the run.
            interrupts: asked between units of work.
            processes: those of this run.
            num_devices: how many to use; None: all devices of several processes, or all
                accelerators of one.
        """
        self.run, self.interrupts, self.processes = run, interrupts, processes
        mesh = self.mesh = run_mesh(num_devices)
        if own := local_mesh(mesh):
            run.generator = run.generator.over(own)
        self.metrics = Metrics(run.folder.metrics if self.processes.is_first else os.devnull)
        max_draws = run.config["sample"]["max_draws"]
        self.maker = Maker(run.manifests, self.metrics, self.processes, max_draws)
        self._cluster = ClusterStage(run, self.maker, mesh, interrupts.check)
        self._fit = FitStage(run, self.maker, mesh, interrupts)

    def run_all(self) -> None:
        """Make everything that is missing or not current.

        Raises:
            UserError: a mistake that the user can fix.
            Interrupted: asked to stop; finished work is kept.
        """
        self.cluster()
        self.split()
        self._foresee("evaluate")
        self._pause()
        for name in self.run.sampler_names:
            self.fit(name)
            self.sample(name)
            self._pause()
        self.fit_leaves()
        self.evaluate()
        self._pause()
        self.transfer()
        self.report()

    def cluster(self) -> None:
        """Draw latents, cluster their features at the layer, and draw figures of the clusters."""
        self._cluster.run_all()

    @by_the_first
    def split(self) -> None:
        """Cluster inside the clusters that the config splits, if it names any."""
        make_splits(self.run, self.maker, self.interrupts.check)

    @by_the_first
    def _foresee(self, measured: str) -> None:
        """Log which clusters are too rare for what comes after the training."""
        warn_of_rare(self.run, measured)

    def fit(self, name: str | None = None) -> None:
        """Train one sampler, or all of them."""
        for sampler in self.run.sampler_names if name is None else [name]:
            self._fit.fit(sampler)

    def fit_in(self, name: str, region: Region) -> None:
        """Train one sampler on one region alone; see `FitStage.fit_in`."""
        self._fit.fit_in(name, region)

    @by_the_first
    def fit_leaves(self) -> None:
        """Train the samplers that the config names on every cluster inside a cluster."""
        for path in self.run.held.leaves:
            for name in split_texts(self.run.config["hierarchy"]["samplers"]):
                self._fit.fit_leaf(name, path)

    @by_the_first
    def sample(self, name: str) -> None:
        """Save verified samples of one sampler; for the default one, also draw `clusters.png`."""
        save_samples(self.run, self.maker, name, self.interrupts.check)
        if name == self.run.config["sample"]["sampler"]:
            draw_sheet(self.run, self.maker)

    @by_the_first
    def evaluate(self, again: bool = False) -> None:
        """Measure every sampler against held-out members of every cluster.

        Args:
            again: measure those that are measured too, unless a call was interrupted: then only
                the others are left.
        """
        if again:
            for name in self.run.sampler_names:
                self.run.samplers.fitted(name)  # raises if it cannot be measured
            # First what shows them: an interruption never leaves a page of what is not there.
            self.run.manifests.forget("report")
            self.run.folder.summary.unlink(missing_ok=True)
            names = [evaluation_name(name) for name in self.run.sampler_names]
            if all(self.maker.result(name) is not None for name in names):
                for name in names:
                    self.run.manifests.forget(name)
        EvaluateStage(self.run, self.maker, self.interrupts.check).run_all()

    @by_the_first
    def transfer(self) -> None:
        """Transfer the clusters to other classes, if the config names any."""
        TransferStage(self.run, self.maker, self.interrupts.check).run_all()

    def compare(self) -> str:
        """Fit the samplers, measure them and the baselines side by side; return the table."""
        self.cluster()
        self._foresee("compare")
        self.fit()
        return self._compare()

    @by_the_first
    def _compare(self) -> str:
        text = CompareStage(self.run, self.maker, self.interrupts.check).run_all()
        self.report()
        return text

    def sweep(self) -> str:
        """Cluster every layer into several numbers of clusters; return the tables as text."""
        text = SweepStage(self.run, self.maker, self.mesh, self.interrupts.check).run_all()
        self.report()
        return text

    def assign(self, images: Path) -> str:
        """Assign the images of a folder to clusters; return the table as text."""
        groups = Clusters(self.run)
        text = AssignStage(self.run, groups, self.maker, self.interrupts).run_all(images)
        self._renew_page()
        return text

    def name_cluster(self, cluster: str, name: str) -> list[str]:
        """Give one cluster a name, also on the page, if there is one; return a line for it."""
        return self._named(name_cluster(self.run, cluster, name))

    def take_names(self, names: list[GivenNames]) -> list[str]:
        """Save the names in a page's file; as `name_cluster`, with a line for each name."""
        return self._named(merge_names(self.run, names))

    def _named(self, outcomes: list[NameOutcome]) -> list[str]:
        self._renew_page()
        return [outcome.text for outcome in outcomes]

    def _renew_page(self) -> None:
        """Write the page again, if there is one or was one when the folder was opened."""
        if self.run.had_page or self.run.folder.report.is_dir():
            self.report()

    @by_the_first
    def report(self) -> None:
        """Write the summary and the static page, of everything that is current."""
        write_page(self.run, self.maker, self.interrupts.check)

    def _pause(self) -> None:
        """Update the page if there is something new, and stop here if asked to."""
        if self.maker.is_changed:
            self.report()
        self.interrupts.check()
