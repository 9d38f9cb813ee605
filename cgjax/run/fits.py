"""What a sampler learns in a run, from all clusters or from one region, and its saved steps."""

from __future__ import annotations

from typing import NamedTuple

import jax

from cgjax.errors import UserError
from cgjax.runtime.checkpoints import Checkpoints, Step
from cgjax.samplers.base import Members, Sampler, SamplerState


class Fit(NamedTuple):
    """One sampler, what it learns from, and where its steps are saved.

    Attributes:
        label: in messages and metrics: the sampler's name, and the region if it learns from one.
        sampler: the hyper-parameters.
        saved: the steps.
        key: a hash of everything that the steps depend on.
        old: the fingerprint of steps that an earlier version saved; empty for a region.
        learnt_from: a hash of the clustering, since the same settings can give another one on
            another machine; empty if it is not known.
    """

    label: str
    sampler: Sampler
    saved: Checkpoints
    key: str
    old: str = ""
    learnt_from: str = ""

    def is_own(self, step: Step) -> bool:
        """Whether a saved step was trained with these settings on these clusters."""
        if "fingerprint" in step.metadata:
            return bool(step.metadata["fingerprint"] == self.old)
        known = step.metadata.get("learnt_from", "")
        is_same = not known or not self.learnt_from or known == self.learnt_from
        return is_same and bool(step.metadata.get("key") == self.key)

    @property
    def last_step(self) -> Step | None:
        """The step at which training ended; None if it has not ended, or nothing is trained."""
        steps = self.saved.steps()
        is_done = steps and steps[-1].number == self.sampler.num_epochs and self.is_own(steps[-1])
        return steps[-1] if is_done else None

    @property
    def is_trained(self) -> bool:
        """Whether nothing is left to train: the last step is there and undamaged."""
        step = self.last_step
        return not self.sampler.num_epochs or (
            step is not None and self.saved.is_whole(step.number)
        )

    def restore(self, members: Members, hint: str) -> SamplerState:
        """Return what was learnt.

        Args:
            members: with the same number of clusters and latent dimension as those of training;
                how many there are does not matter.
            hint: what the message says if training has not ended: where, and what to type.

        Raises:
            UserError: if training has not ended, or the checkpoint is damaged.
        """
        if not self.sampler.num_epochs:
            return {}
        step = self.last_step
        if step is None:
            raise UserError(f"sampler {self.label!r} is not trained yet {hint}")
        # Shapes and dtypes only, which follow from the shapes of the members.
        template = jax.eval_shape(lambda: self.sampler.init(jax.random.key(0), members))
        return self.saved.restore(step.number, {"state": template})["state"]
