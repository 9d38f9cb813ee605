"""Latents inside a region: those of the run, and more by rejection."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from cgjax.regions.acceptance import check_budget, expected_acceptance
from cgjax.regions.region import Region
from cgjax.run.run import Run
from cgjax.samplers.verify import draw_verified


def latents_inside(
    run: Run,
    region: Region,
    num: int,
    key: PRNGKeyArray,
    check: Callable[[], None],
    instead: str,
) -> Float[np.ndarray, "num d"]:
    """Return latents of a region: the run's own first, the rest drawn by rejection.

    Args:
        run: the run.
        region: the region.
        num: how many.
        key: of the latents that are drawn.
        check: called between batches; may raise to stop.
        instead: what to do if the region is too rare, beside raising the budget.

    Raises:
        TooRare: a region too rare for `sample.max_draws`.
    """
    own = run.prior_latents[region.members()][:num]
    if len(own) == num:
        return own
    return np.concatenate([own, draw_inside(run, region, num - len(own), key, check, instead)])


def draw_inside(
    run: Run,
    region: Region,
    num: int,
    key: PRNGKeyArray,
    check: Callable[[], None],
    instead: str,
) -> Float[np.ndarray, "num d"]:
    """Draw latents of a region by rejection from the prior; as `latents_inside`."""
    budget = run.config["sample"]["max_draws"]

    def accept(z: Array) -> Bool[np.ndarray, " n"]:
        check()
        return run.are_inside(z, region)

    with run.naming(region, instead):
        check_budget(expected_acceptance(region), num, budget, "true member")
        propose, batch = run.generator.sample_latents, run.generator.batch
        return draw_verified(propose, accept, key, num, batch=batch, max_draws=budget).latents
