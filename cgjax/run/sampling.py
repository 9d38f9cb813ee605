"""A sampler of a run on its way from training to samples.

`Fit` is what it learns, and its saved steps; `FittedSampler` what it has learnt, restored; `Source`
that aimed at a region, which proposes latents; `Samples` those that are kept, with their images.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from cgjax.errors import UserError
from cgjax.regions.acceptance import AcceptanceEstimate, expected_acceptance
from cgjax.regions.region import Region
from cgjax.runtime.checkpoints import Checkpoints, Step
from cgjax.samplers.base import Members, Sampler, SamplerState
from cgjax.samplers.one_hot import Parts, as_one_hot
from cgjax.samplers.verify import rescale


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
        return self.saved.last(self.sampler.num_epochs, self.is_own)

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
            members: those of training, or their shapes alone.
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
        template = jax.eval_shape(self.sampler.init, jax.random.key(0), members)
        return self.saved.restore(step.number, {"state": template})["state"]


DEPTHS = 101
"""Quantiles of depth that are kept for a sampler of one region."""


class FittedSampler(NamedTuple):
    """A sampler with what it has learnt.

    Attributes:
        sampler: the hyper-parameters.
        state: the arrays.
        norm: length to which proposals are scaled, or None to leave them as they are.
        depths: of a region's members, quantiles at evenly spaced levels; see `Region.depth`. None
            for a sampler of clusters, whose quantiles are those of the margins.
        one_hot: where latents of the prior have one-hot vectors.
    """

    sampler: Sampler
    state: SamplerState
    norm: float | None
    depths: Float[np.ndarray, " q"] | None = None
    one_hot: Parts = ()


class Source(NamedTuple):
    """A sampler aimed at a region.

    Attributes:
        fitted: the sampler.
        cluster: which of the clusters that it was trained on it draws from.
        margin: the quantile, from 0 to 1, above which it draws.
        among: the region that it draws from if it is faithful; None for the prior.
    """

    fitted: FittedSampler
    cluster: int = 0
    margin: float = 0.0
    among: Region | None = None

    def propose(self, key: PRNGKeyArray, num: int) -> Float[Array, "num d"]:
        """Draw latents that may lie in the region.

        A sampler that cannot aim at a margin proposes from the whole cluster; one that proposes
        from the prior ignores the cluster.
        """
        (sampler, state, norm, depths, one_hot), margin = self.fitted, self.margin
        if depths is not None:
            levels = np.linspace(0.0, 1.0, len(depths))
            margin = min(float(np.interp(margin, depths, levels)), 1.0 - 1e-6)
        z = sampler.sample(state, key, self.cluster, num, margin=margin)
        return as_one_hot(z if norm is None else rescale(z, norm), one_hot)

    def expected(self, region: Region) -> AcceptanceEstimate:
        """Return how many proposals are expected to pass the membership check."""
        return expected_acceptance(region, self.among)


class Samples(NamedTuple):
    """What `Run.sample` returns.

    Attributes:
        images: (num, size, size, channels) float32, nominally in [-1, 1].
        latents: (num, d) float32.
        acceptance: share of the checked proposals that were members; None if not verified.
    """

    images: Float[np.ndarray, "num s s c"]
    latents: Float[np.ndarray, "num d"]
    acceptance: float | None
