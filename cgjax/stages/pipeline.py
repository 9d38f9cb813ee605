"""The stages of a run, in order: cluster; fit and sample each sampler; evaluate; transfer; report.

Each is skipped when what it leaves is there and nothing it depends on has changed. Random numbers
come from the root seed by the stage's name, so a resumed run makes the same bytes as an
uninterrupted one. The page is written again whenever something new can be seen on it.

Several processes share the latents, the clustering and the training. What does not grow with the
number of latents (samples, evaluation, report) the first process does alone, and it alone writes.
"""

from __future__ import annotations

import os
from pathlib import Path

from cgjax.config.plain import split_texts
from cgjax.regions.naming import GivenNames
from cgjax.regions.region import Region
from cgjax.run.artifacts import evaluate
from cgjax.run.run import Run
from cgjax.runtime.log import Metrics
from cgjax.runtime.mesh import local_mesh, run_mesh
from cgjax.runtime.processes import Processes, by_the_first
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
from cgjax.stages.report import write_page, write_summary
from cgjax.stages.sample import draw_sheet, save_samples
from cgjax.stages.sweep import SweepStage
from cgjax.stages.transfer import TransferStage


class Pipeline:
    """One run's stages, on a run folder opened for writing."""

    def __init__(
        self,
        run: Run,
        interrupts: Interrupts,
        processes: Processes | None = None,
        num_devices: int | None = None,
    ):
        """Prepare; writes nothing but the file of metrics.

        Args:
            run: the run.
            interrupts: asked between units of work.
            processes: those of this run; by default this one.
            num_devices: to work on; None takes all of several processes and all accelerators.
        """
        self.run, self.interrupts = run, interrupts
        self.processes = processes or Processes()
        mesh = self.mesh = run_mesh(num_devices)
        if own := local_mesh(mesh):
            run.generator = run.generator.over(own)
        self.metrics = Metrics(run.folder.metrics if self.processes.is_first else os.devnull)
        self.maker = Maker(run.manifests, self.metrics, self.processes)
        self._cluster = ClusterStage(run, self.maker, mesh, interrupts.check)
        self._fit = FitStage(run, self.maker, mesh, interrupts)

    def run_all(self) -> None:
        """Make everything that is not there and current.

        Raises:
            UserError: a mistake that the user can fix.
            Interrupted: asked to stop; what was done is kept.
        """
        self.cluster()
        self.split()
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
        """Draw latents, run them to the layer, cluster their features, and draw what they show."""
        self._cluster.run_all()

    @by_the_first
    def split(self) -> None:
        """Cluster inside the clusters that the config splits, if it names any."""
        make_splits(self.run, self.maker, self.interrupts.check)

    def fit(self, name: str | None = None) -> None:
        """Train one sampler, or all of them."""
        for each in self.run.sampler_names if name is None else [name]:
            self._fit.fit(each)

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
        """Save verified samples of one sampler; of the default one also draw `clusters.png`."""
        save_samples(self.run, self.maker, name, self.interrupts.check)
        if name == self.run.config["sample"]["sampler"]:
            draw_sheet(self.run, self.maker)

    @by_the_first
    def evaluate(self, again: bool = False) -> None:
        """Measure every sampler against held-out members of every cluster."""
        if again:
            for name in self.run.sampler_names:
                self.run.fitted(name)  # or says that it cannot be measured
            for name in self.run.sampler_names:
                self.run.manifests.forget(evaluate(name))
        EvaluateStage(self.run, self.maker, self.interrupts).run_all()

    @by_the_first
    def transfer(self) -> None:
        """Transfer the clusters to other classes, if the config names any."""
        TransferStage(self.run, self.maker, self.interrupts.check).run_all()

    def compare(self) -> str:
        """Fit what is not fitted, measure samplers and baselines side by side; return the table."""
        self.cluster()
        self.fit()
        return self._compare()

    @by_the_first
    def _compare(self) -> str:
        text = CompareStage(self.run, self.maker, self.interrupts.check).run_all()
        self.report()
        return text

    def sweep(self) -> str:
        """Cluster every layer into several numbers; return what the clusters hold, as text."""
        text = SweepStage(self.run, self.maker, self.mesh, self.interrupts.check).run_all()
        self.report()
        return text

    def assign(self, images: Path) -> str:
        """Say which clusters the images of a folder belong to; return the table as text."""
        groups = Clusters(self.run)
        return AssignStage(self.run, groups, self.maker, self.interrupts).run_all(images)

    def name(self, given: list[GivenNames] | tuple[str, str]) -> list[str]:
        """Give names, those of a page's file or one to one cluster; return lines that say which.

        The page is made again, if there is one.
        """
        if isinstance(given, tuple):
            lines = name_cluster(self.run, *given)
        else:
            lines = merge_names(self.run, given)
        if self.run.folder.report.is_dir():
            self.report()
        return [line.text for line in lines]

    @by_the_first
    def report(self) -> None:
        """Write the summary and the static page of what is there."""
        write_page(self.run, self.maker, self.interrupts.check)

    @by_the_first
    def write_summary(self) -> None:
        """Write `summary.json` of what is there."""
        write_summary(self.run)

    def _pause(self) -> None:
        """Show what is new, and stop here if asked to."""
        if self.maker.is_changed:
            self.report()
        self.interrupts.check()
