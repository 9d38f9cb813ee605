"""Drawing samples: a fitted sampler as a source of proposals."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from cgjax.regions.acceptance import AcceptanceEstimate, expected_acceptance
from cgjax.regions.region import Region
from cgjax.samplers.base import Sampler, SamplerState
from cgjax.samplers.verify import rescale


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
    """

    sampler: Sampler
    state: SamplerState
    norm: float | None
    depths: Float[np.ndarray, " q"] | None = None


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
        (sampler, state, norm, depths), margin = self.fitted, self.margin
        if depths is not None:
            levels = np.linspace(0.0, 1.0, len(depths))
            margin = min(float(np.interp(margin, depths, levels)), 1.0 - 1e-6)
        z = sampler.sample(state, key, self.cluster, num, margin=margin)
        return z if norm is None else rescale(z, norm)

    def expected(self, region: Region) -> AcceptanceEstimate:
        """Return how many proposals are expected to pass the membership check."""
        return expected_acceptance(region, self.among)
