"""Latents inside a region: those of the run, and more by rejection."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from cgjax.errors import UserError
from cgjax.regions.acceptance import AcceptanceEstimate, expected_acceptance
from cgjax.regions.region import Region
from cgjax.run.run import Run
from cgjax.samplers.verify import draw_verified


def latents_inside(
    run: Run, region: Region, num: int, key: PRNGKeyArray, check: Callable[[], None]
) -> Float[np.ndarray, "num d"]:
    """Return latents of a region: the run's own first, the rest drawn by rejection.

    Args:
        run: the run.
        region: the region.
        num: how many.
        key: of the latents that are drawn.
        check: called between batches; may raise to stop.

    Raises:
        UserError: a region too rare for `sample.max_draws`.
    """
    own = run.prior_latents[region.members()][:num]
    if len(own) == num:
        return own
    budget = run.config["sample"]["max_draws"]
    _check_budget(expected_acceptance(region), num - len(own), budget)

    def accept(z: Array) -> Bool[np.ndarray, " n"]:
        check()
        return run.are_inside(z, region)

    draw = draw_verified(
        run.generator.sample_latents,
        accept,
        key,
        num - len(own),
        batch=run.generator.batch,
        max_draws=budget,
    )
    return np.concatenate([own, draw.latents])


def _check_budget(expected: AcceptanceEstimate, num: int, budget: int) -> None:
    """Refuse a draw that is expected to exceed the budget, before the budget is spent."""
    if num <= expected.share * budget:
        return
    raise UserError(
        f"{num:,} more latents inside it are needed, but only {expected.num_members:,} of "
        f"{expected.num:,} lie inside: the budget is --config.sample.max_draws={budget}; raise it, "
        "or ask for a larger region with --cluster"
    )
