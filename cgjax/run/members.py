"""The members that samplers learn from: those of the run, and more where a sampler asks for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, PRNGKeyArray

from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.regions.clustering import Clustering, assign_latents
from cgjax.regions.region import Region
from cgjax.runtime.keys import named_key
from cgjax.runtime.processes import ALONE, Processes
from cgjax.samplers.base import Members, Sampler, group_members

BLOCK = 4096
"""Latents drawn and assigned at a time."""

LEAST = 2000
"""The least number of latents that a sampler of one region is trained on."""


def num_inside(region: Region, sampler: Sampler) -> int:
    """Return how many latents of a whole region a sampler is trained on.

    The number expected among those that it learns from, but at least `LEAST`.
    """
    return max(LEAST, round(region.share * num_learnt_from(region, sampler)))


def num_learnt_from(region: Region, sampler: Sampler) -> int:
    """Return how many latents a sampler learns from: its own number, or that of the run."""
    return sampler.num_latents or len(region.members())


def num_held_out(config: Mapping[str, Any], section: str) -> int:
    """Return how many true members of a cluster a section's measurements need: two halves."""
    return 2 * int(config[section]["num"])


def members_for(
    sampler: Sampler,
    clustering: Clustering,
    latents: Float[np.ndarray, "n d"],
    generator: ConditionedGenerator,
    key: PRNGKeyArray,
    *,
    check: Callable[[], None] = lambda: None,
    processes: Processes = ALONE,
) -> Members:
    """Return the members that a sampler learns from, in the order that it needs.

    Those of the run come first; the rest, up to the sampler's `num_latents`, is drawn from the
    prior and assigned. The same key gives the same members.

    Args:
        sampler: says how many latents it needs, and whether clusters must be sorted by margin.
        clustering: the clusters.
        latents: the latents that were clustered.
        generator: with the clustered layer.
        key: of the latents that are drawn.
        check: called between blocks; may raise to stop.
        processes: those that share the assignment; every one of them must call this.
    """
    num = sampler.num_latents
    if num is None:
        margins = clustering.margins if sampler.needs_margin_order else None
        return group_members(latents, clustering.labels, clustering.num, margins)
    z, labels, margins = latents[:num], clustering.labels[:num], clustering.margins[:num]
    if num > len(z):
        more, assigned = _draw_and_assign(
            num - len(z), clustering, generator, key, check, processes
        )
        z = np.concatenate([z, more])
        labels = np.concatenate([labels, assigned[:, 0].astype(np.int32)])
        margins = np.concatenate([margins, assigned[:, 1]])
    return group_members(z, labels, clustering.num, margins)


def _draw_and_assign(
    num: int,
    clustering: Clustering,
    generator: ConditionedGenerator,
    key: PRNGKeyArray,
    check: Callable[[], None],
    processes: Processes,
) -> tuple[Float[np.ndarray, "num d"], Float[np.ndarray, "num 2"]]:
    """Draw latents; return them with their labels and margins. Each process runs its share."""
    num_blocks = -(-num // BLOCK)

    def draw(r: int) -> Float[np.ndarray, "b d"]:
        z = generator.sample_latents(named_key(key, r), BLOCK)
        return np.asarray(z)[: num - r * BLOCK]

    own_blocks = processes.share(num_blocks)
    assigned = np.zeros((processes.largest_share(num_blocks) * BLOCK, 2), np.float32)
    for i in range(processes.largest_share(num_blocks)):
        check()  # in every process, even one with no blocks left
        if i < len(own_blocks):
            rows = np.stack(assign_latents(clustering, generator, draw(own_blocks[i])), axis=1)
            assigned[i * BLOCK : i * BLOCK + len(rows)] = rows
    latents = np.concatenate([draw(r) for r in range(num_blocks)])
    return latents, processes.gather(assigned)[:num]
