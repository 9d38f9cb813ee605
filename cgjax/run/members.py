"""The members that samplers learn from: those of the run, and more of them where asked for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, PRNGKeyArray

from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.regions.clustering import Clustering, assign_latents
from cgjax.regions.region import Region
from cgjax.runtime.keys import named_key
from cgjax.runtime.processes import Processes
from cgjax.samplers.base import Members, Sampler, group_members

BLOCK = 4096
"""Latents that are drawn and assigned together."""

LEAST = 2000
"""Latents of a region that a sampler is trained on, at least."""


def num_inside(region: Region, num_latents: int) -> int:
    """Return how many latents of a region a sampler is trained on.

    As many as lie in it of the latents of the prior that the sampler learns from, or `LEAST`.
    """
    return max(LEAST, round(region.share * num_latents))


def members_for(
    sampler: Sampler,
    clustering: Clustering,
    latents: Float[np.ndarray, "n d"],
    generator: ConditionedGenerator,
    key: PRNGKeyArray,
    *,
    check: Callable[[], None] = lambda: None,
    processes: Processes | None = None,
) -> Members:
    """Return the members that a sampler learns from, in the order that it needs.

    Those of the run come first; what is missing to the sampler's `num_latents` is drawn from the
    prior and assigned. The same key gives the same members.

    Args:
        sampler: says how many latents, and whether each cluster must be sorted by its margin.
        clustering: the clusters.
        latents: the latents that were clustered.
        generator: with the clustered layer.
        key: of the latents that are drawn.
        check: called between blocks; may raise to stop.
        processes: which share the assignment; every one of them must call this.
    """
    num = sampler.num_latents
    if num is None:
        margins = clustering.margins if sampler.needs_margin_order else None
        return group_members(latents, clustering.labels, clustering.num, margins)
    z, labels, margins = latents[:num], clustering.labels[:num], clustering.margins[:num]
    if num > len(z):
        more, found = _assigned(
            num - len(z), clustering, generator, key, check, processes or Processes()
        )
        z = np.concatenate([z, more])
        labels = np.concatenate([labels, found[:, 0].astype(np.int32)])
        margins = np.concatenate([margins, found[:, 1]])
    return group_members(z, labels, clustering.num, margins)


def _assigned(
    num: int,
    clustering: Clustering,
    generator: ConditionedGenerator,
    key: PRNGKeyArray,
    check: Callable[[], None],
    processes: Processes,
) -> tuple[Float[np.ndarray, "num d"], Float[np.ndarray, "num 2"]]:
    """Draw latents, and return them with their label and margin; each process runs its share."""
    num_blocks = -(-num // BLOCK)

    def draw(r: int) -> Float[np.ndarray, "b d"]:
        z = generator.sample_latents(named_key(key, r), BLOCK)
        return np.asarray(z)[: num - r * BLOCK]

    mine = processes.share(num_blocks)
    found = np.zeros((processes.largest_share(num_blocks) * BLOCK, 2), np.float32)
    for i in range(processes.largest_share(num_blocks)):
        check()  # by every process, also by one that has nothing left to do
        if i < len(mine):
            rows = np.stack(assign_latents(clustering, generator, draw(mine[i])), axis=1)
            found[i * BLOCK : i * BLOCK + len(rows)] = rows
    latents = np.concatenate([draw(r) for r in range(num_blocks)])
    return latents, processes.gather(found)[:num]
