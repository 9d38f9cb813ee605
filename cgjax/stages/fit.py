"""The stage that trains the samplers of a run: on all of its clusters, or on one region alone."""

from __future__ import annotations

import numpy as np
from absl import logging
from jax.sharding import Mesh
from jaxtyping import Array, Float

from cgjax.config.splits import shown_path
from cgjax.errors import TooRare
from cgjax.generators.batching import in_batches
from cgjax.regions.region import Region
from cgjax.run.members import num_inside
from cgjax.run.places import fit_name, leaf_fit_name
from cgjax.run.run import Run
from cgjax.run.sampling import DEPTHS, Fit
from cgjax.runtime.keys import named_key
from cgjax.runtime.signals import Interrupts
from cgjax.samplers.base import group_members
from cgjax.stages.graph import LEFT_OUT, Maker
from cgjax.stages.inside import latents_inside
from cgjax.stages.rare import NO_LEAF_SAMPLERS, LeftOut
from cgjax.stages.trainer import SamplerTrainer


class FitStage:
    """Training of a run's samplers, by one process or several."""

    def __init__(self, run: Run, maker: Maker, mesh: Mesh | None, interrupts: Interrupts):
        self.run, self.maker, self.interrupts = run, maker, interrupts
        every = run.config["checkpoint_epochs"]
        self._trainer = SamplerTrainer(maker.metrics, maker.processes, mesh, interrupts, every)

    def fit(self, name: str) -> None:
        """Train a sampler on the run's clusters, if its training is not finished.

        Raises:
            UserError: a loss that is not finite, a full disk.
            Interrupted: asked to stop; saved at the last epoch.
        """
        learnt = self.run.samplers.fit_of(name)
        is_trained = self.maker.processes.first(lambda: learnt.is_trained)
        if is_trained and self.maker.result(fit_name(name)) is not None:
            return
        with self.maker.making(fit_name(name)) as result:
            result["seconds"] = self._train(name, learnt) if learnt.sampler.num_epochs else 0.0

    def _train(self, name: str, learnt: Fit) -> float:
        members = self.run.members(learnt.sampler, self._check, self.maker.processes)
        return self._trainer.train(learnt, members, named_key(self.run.root_key, "fit", name))

    def fit_in(
        self, name: str, region: Region, instead: str = "ask for a larger region with --cluster"
    ) -> float:
        """Train a sampler on one region alone, if it is not trained yet; for one process.

        Args:
            name: of the sampler.
            region: without a margin range.
            instead: what to do if the region is too rare, beside raising the budget.

        Returns:
            The seconds that it took, earlier attempts included.

        Raises:
            TooRare: a region too rare for the budget.
            UserError: as `fit`.
            Interrupted: asked to stop; saved at the last epoch.
        """
        run, learnt = self.run, self.run.samplers.fit_of(name, region)
        last = learnt.last_step
        if last is not None and learnt.is_trained:
            return float(last.metadata["seconds"])
        key = named_key(run.root_key, "fit", name, region.fingerprint)
        num = num_inside(region, learnt.sampler)
        logging.info("fit %s: on %d latents", learnt.label, num)
        z = latents_inside(run, region, num, named_key(key, "latents"), self._check, instead)
        self._check()

        def depth(rows: Array) -> Float[Array, " n"]:
            return region.depth(lambda layer: run.generator.at_layer(layer).features(rows))

        depths = in_batches(depth, z, run.generator.batch)
        members = group_members(z, np.zeros(len(z), np.int32), 1, depths)
        levels = np.quantile(depths, np.linspace(0.0, 1.0, DEPTHS))
        return self._trainer.train(learnt, members, key, {"depths": levels.tolist()})

    def fit_leaf(self, name: str, path: tuple[int, ...]) -> None:
        """Train a sampler on one cluster inside a cluster, if not trained yet; as `fit_in`.

        One too rare for the budget is left out: the sampler of the whole cluster draws it.
        """
        region, artifact = self.run.held.region_inside(path), leaf_fit_name(name, path)
        known = self.maker.result(artifact)
        is_trained = self.run.samplers.fit_of(name, region).is_trained
        if known is not None and (is_trained or LEFT_OUT in known):
            return
        left_out = LeftOut(self.run)
        with self.maker.making(artifact) as result:
            try:
                result["seconds"] = self.fit_in(name, region, NO_LEAF_SAMPLERS)
            except TooRare as error:
                left_out.add(shown_path(path), error)
            result |= left_out.result

    def _check(self) -> None:
        self.interrupts.check("no epoch was started")
