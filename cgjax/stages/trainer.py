"""Training one sampler: resumes from the newest good checkpoint, saves as it goes."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from absl import logging
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray

from cgjax.errors import UserError
from cgjax.run.sampling import Fit
from cgjax.runtime.keys import named_key
from cgjax.runtime.log import Metrics, Progress
from cgjax.runtime.processes import Processes
from cgjax.runtime.signals import Interrupts
from cgjax.samplers.base import Members, SamplerState
from cgjax.samplers.training import over_mesh


class SamplerTrainer:
    """The loop that trains every sampler, in one process or several."""

    def __init__(
        self,
        metrics: Metrics,
        processes: Processes,
        mesh: Mesh | None,
        interrupts: Interrupts,
        checkpoint_epochs: int,
    ):
        """Prepare; writes nothing.

        Args:
            metrics: the losses are written to it.
            processes: of this run; all of them train.
            mesh: the devices that share every batch; None for a single device.
            interrupts: checked after every epoch.
            checkpoint_epochs: number of epochs between two checkpoints.
        """
        self.metrics, self.processes, self.mesh = metrics, processes, mesh
        self.interrupts, self.checkpoint_epochs = interrupts, checkpoint_epochs

    def train(
        self, fit: Fit, members: Members, key: PRNGKeyArray, extra: dict[str, Any] | None = None
    ) -> float:
        """Train to the end; return the seconds taken, including before interruptions.

        Args:
            fit: what is trained, and where it is saved.
            members: to learn from.
            key: of the training.
            extra: JSON-able, added to every step's metadata.

        Raises:
            UserError: a loss that is not finite, a full disk.
            Interrupted: asked to stop; training is saved at its last epoch.
        """
        sampler, started = fit.sampler, time.monotonic()
        state, begin, spent = self._resume(fit, sampler.init(named_key(key, "init"), members))
        self.metrics.forget(
            lambda line: (
                line.get("stage") == "fit"
                and line.get("sampler") == fit.label
                and line.get("epoch", 0) > begin
            )
        )

        def save(epochs: int) -> None:
            seconds = spent + time.monotonic() - started
            metadata = {"key": fit.key, "learnt_from": fit.learnt_from, "seconds": seconds}
            metadata |= extra or {}
            fit.saved.save(epochs, {"state": state}, metadata)

        run_epoch = sampler.epoch if self.mesh is None else over_mesh(self.mesh, sampler)
        progress = Progress(f"fit {fit.label}: epoch", sampler.num_epochs)
        for epoch in range(begin, sampler.num_epochs):
            state, numbers = run_epoch(state, members, named_key(key, "epoch", epoch), epoch)
            loss = np.asarray(numbers["loss"])
            _check_loss(loss, fit, epoch)
            done = epoch + 1
            self.metrics.write(stage="fit", sampler=fit.label, epoch=done, **numbers)
            progress.update(done, f", loss {loss.mean():.4f}")
            due = done == sampler.num_epochs or done % self.checkpoint_epochs == 0
            is_stopped = self.interrupts.agreed()
            if due or is_stopped:
                save(done)
            if is_stopped:
                self.interrupts.stop(f"{fit.label} is saved at epoch {done}")
        return round(spent + time.monotonic() - started, 3)

    def _resume(self, fit: Fit, state: SamplerState) -> tuple[SamplerState, int, float]:
        """Return the newest good step's state, epoch and seconds; without one the initial state."""
        restored: dict[str, Any] = {"state": state}

        def restore() -> tuple[int, float]:
            newest = fit.saved.restore_newest({"state": state}, fit.is_own)
            if newest is None:
                return 0, 0.0
            step, tree = newest
            restored["state"] = tree["state"]
            logging.info("fit %s: resuming at epoch %d", fit.label, step.number)
            return step.number, float(step.metadata["seconds"])

        begin, spent = self.processes.first(restore)
        return (self.processes.send_tree(restored["state"]) if begin else state), begin, spent


def _check_loss(loss: np.ndarray, fit: Fit, epoch: int) -> None:
    bad = np.flatnonzero(~np.isfinite(loss))
    if len(bad):
        name, *_ = fit.label.split()
        setting = "learning_rate" if hasattr(fit.sampler, "learning_rate") else "num_components"
        raise UserError(
            f"the loss of {fit.label} became {loss[bad[0]]} in epoch {epoch}, cluster {bad[0]}; "
            f"lower --config.samplers.{name}.{setting}"
        )
