"""The stage that trains the samplers of a run: on all of its clusters, or on one region alone."""

from __future__ import annotations

import numpy as np
from absl import logging
from jax.sharding import Mesh
from jaxtyping import Array, Float

from cgjax.generators.batching import in_batches
from cgjax.regions.region import Region
from cgjax.run.artifacts import fit, fit_leaf
from cgjax.run.members import num_inside
from cgjax.run.run import Run
from cgjax.run.sampling import DEPTHS
from cgjax.runtime.keys import named_key
from cgjax.runtime.signals import Interrupts
from cgjax.samplers.base import group_members
from cgjax.stages.graph import Maker
from cgjax.stages.inside import latents_inside
from cgjax.stages.training import SamplerTrainer


class FitStage:
    """Training of a run's samplers, by one process or several."""

    def __init__(self, run: Run, maker: Maker, mesh: Mesh | None, interrupts: Interrupts):
        self.run, self.maker, self.interrupts = run, maker, interrupts
        every = run.config["checkpoint_epochs"]
        self._trainer = SamplerTrainer(maker.metrics, maker.processes, mesh, interrupts, every)

    def fit(self, name: str) -> None:
        """Train a sampler that is not trained to its end on these clusters.

        Raises:
            UserError: a loss that is not finite, a full disk.
            Interrupted: asked to stop; saved at the last epoch.
        """
        one = self.run.fit_of(name)
        is_trained = self.maker.processes.first(lambda: one.is_trained)
        if is_trained and self.maker.result(fit(name)) is not None:
            return
        with self.maker.making(fit(name)) as result:
            result["seconds"] = self._train(name) if one.sampler.num_epochs else 0.0

    def _train(self, name: str) -> float:
        one = self.run.fit_of(name)
        check = self._check
        members = self.run.members(one.sampler, check, self.maker.processes)
        return self._trainer.train(one, members, named_key(self.run.root_key, "fit", name))

    def fit_in(self, name: str, region: Region) -> float:
        """Train a sampler on one region alone, if it is not yet; for one process.

        Args:
            name: of the sampler.
            region: asked for whole.

        Returns:
            The seconds that it took, earlier tries included.

        Raises:
            UserError: a region too rare for the budget, and as `fit`.
            Interrupted: asked to stop; saved at the last epoch.
        """
        run, one = self.run, self.run.fit_of(name, region)
        done = one.last_step
        if done is not None and one.is_trained:
            return float(done.metadata["seconds"])
        key = named_key(run.root_key, "fit", name, region.fingerprint)
        num = num_inside(region, one.sampler.num_latents or len(run.prior_latents))
        logging.info("fit %s: on %d latents of it", one.label, num)
        z = latents_inside(run, region, num, named_key(key, "latents"), self._check)
        self._check()

        def depth(rows: Array) -> Float[Array, " n"]:
            return region.depth(lambda layer: run.generator.at_layer(layer).features(rows))

        depths = in_batches(depth, z, run.generator.batch)
        members = group_members(z, np.zeros(len(z), np.int32), 1, depths)
        levels = np.quantile(depths, np.linspace(0.0, 1.0, DEPTHS))
        return self._trainer.train(one, members, key, {"depths": levels.tolist()})

    def fit_leaf(self, name: str, path: tuple[int, ...]) -> None:
        """Train a sampler on one cluster inside a cluster, if it is not yet; as `fit_in`."""
        region = self.run.held.region_inside(path)
        is_trained = self.run.fit_of(name, region).is_trained
        if is_trained and self.maker.result(fit_leaf(name, path)) is not None:
            return
        with self.maker.making(fit_leaf(name, path)) as result:
            result["seconds"] = self.fit_in(name, region)

    def _check(self) -> None:
        self.interrupts.check("no epoch was begun")
