"""The stage that trains a sampler, resuming from its newest good checkpoint."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from absl import logging
from jax.sharding import Mesh

from cgjax.errors import UserError
from cgjax.run.artifacts import fit
from cgjax.run.run import Run
from cgjax.runtime.checkpoints import Checkpoints
from cgjax.runtime.keys import named_key
from cgjax.runtime.log import Progress
from cgjax.runtime.signals import Interrupts
from cgjax.samplers.base import Sampler, SamplerState
from cgjax.samplers.training import over_mesh
from cgjax.stages.graph import Maker


class FitStage:
    """Training of a run's samplers, by one process or several."""

    def __init__(self, run: Run, maker: Maker, mesh: Mesh | None, interrupts: Interrupts):
        self.run, self.maker, self.mesh, self.interrupts = run, maker, mesh, interrupts

    def fit(self, name: str) -> None:
        """Train a sampler that is not trained to its end on these clusters.

        Raises:
            UserError: a loss that is not finite, a full disk.
            Interrupted: asked to stop; saved at the last epoch.
        """
        sampler = self.run.make_sampler(name)
        is_trained = self.maker.processes.first(
            lambda: not sampler.num_epochs or self.run.last_step(name) is not None
        )
        if is_trained and self.maker.result(fit(name)) is not None:
            return
        with self.maker.making(fit(name)) as result:
            result["seconds"] = self._train(name, sampler) if sampler.num_epochs else 0.0

    def _train(self, name: str, sampler: Sampler) -> float:
        """Train to the end; return the seconds that it took, earlier tries included."""
        run, maker = self.run, self.maker
        key = named_key(run.root_key, "fit", name)
        started = time.monotonic()

        def check() -> None:
            self.interrupts.check("no epoch was begun")

        members = run.members(sampler, check, maker.processes)
        state, begin, spent = self._resume(name, sampler.init(named_key(key, "init"), members))
        maker.metrics.forget(
            lambda line: (
                line.get("stage") == "fit"
                and line.get("sampler") == name
                and line.get("epoch", 0) > begin
            )
        )
        saved, artifact_key = run.checkpoints(name), maker.manifests.graph[fit(name)].key

        def save(epochs: int) -> None:
            seconds = spent + time.monotonic() - started
            saved.save(epochs, {"state": state}, {"key": artifact_key, "seconds": seconds})

        run_epoch = sampler.epoch if self.mesh is None else over_mesh(self.mesh, sampler)
        progress = Progress(f"fit {name}: epoch", sampler.num_epochs)
        for epoch in range(begin, sampler.num_epochs):
            state, numbers = run_epoch(state, members, named_key(key, "epoch", epoch), epoch)
            loss = np.asarray(numbers["loss"])
            _check_loss(loss, name, epoch)
            done = epoch + 1
            maker.metrics.write(stage="fit", sampler=name, epoch=done, **numbers)
            progress.update(done, f", loss {loss.mean():.4f}")
            due = done == sampler.num_epochs or done % run.config["checkpoint_epochs"] == 0
            is_stopped = self.interrupts.agreed()
            if due or is_stopped:
                save(done)
            if is_stopped:
                self.interrupts.stop(f"{name} is saved at epoch {done}")
        return round(spent + time.monotonic() - started, 3)

    def _resume(self, name: str, state: SamplerState) -> tuple[SamplerState, int, float]:
        """Return the newest good step's state, its epoch, and the seconds it took; or the start."""
        run, processes = self.run, self.maker.processes
        saved: Checkpoints = run.checkpoints(name)
        found: dict[str, Any] = {"state": state}

        def restore() -> tuple[int, float]:
            for step in reversed(saved.steps()):
                if not run.is_step_of(name, step):
                    saved.remove(step.number)
                    continue
                try:
                    found["state"] = saved.restore(step.number, {"state": state})["state"]
                except UserError as error:
                    logging.warning("%s; using the step before it", error)
                    saved.remove(step.number)
                    continue
                logging.info("fit %s: resuming at epoch %d", name, step.number)
                return step.number, float(step.metadata["seconds"])
            return 0, 0.0

        begin, spent = processes.first(restore)
        return (processes.send_tree(found["state"]) if begin else state), begin, spent


def _check_loss(loss: np.ndarray, name: str, epoch: int) -> None:
    bad = np.flatnonzero(~np.isfinite(loss))
    if len(bad):
        raise UserError(
            f"the loss of {name} became {loss[bad[0]]} in epoch {epoch}, cluster {bad[0]}; lower "
            f"--config.samplers.{name}.learning_rate"
        )
