"""What drawing from a region will cost, estimated beforehand from the clustered latents alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from cgjax.errors import UserError
from cgjax.numerics.intervals import wilson_interval
from cgjax.regions.region import Region


class AcceptanceEstimate(NamedTuple):
    """A region's share of the latents that will be proposed.

    Attributes:
        share: the estimate, from 0 to 1.
        low: lower end of its 95% Wilson interval; 0 without any member.
        high: upper end.
        num_members: clustered latents, of those the estimate uses, that lie in the region.
        num: clustered latents that the estimate uses.
    """

    share: float
    low: float
    high: float
    num_members: int
    num: int


def expected_acceptance(region: Region, proposal: Region | None = None) -> AcceptanceEstimate:
    """Estimate the share of proposals that will pass the membership check.

        share = |members of region and proposal| / |members of proposal|

    Args:
        region: the region to draw from.
        proposal: what a faithful sampler draws from: `region.proposal(...)`, with the margin that
            the sampler uses. None for proposals from the prior, which gave all clustered latents.
    """
    members = region.members()
    among = np.ones_like(members) if proposal is None else proposal.members()
    num, num_members = int(among.sum()), int((members & among).sum())
    if num == 0:
        return AcceptanceEstimate(0.0, 0.0, 1.0, 0, 0)
    low, high = wilson_interval(num_members, num)
    return AcceptanceEstimate(num_members / num, low, high, num_members, num)


def describe(expected: AcceptanceEstimate, num: int) -> str:
    """Return the line that is printed before `num` images are drawn.

    Example:
        >>> print(describe(AcceptanceEstimate(0.0412, 0.0360, 0.0471, 206, 5000), 9))
        expected acceptance 4.12% (3.6-4.71%, 206 of 5,000 latents): about 220 passes for 9 images
    """
    if expected.num_members == 0:
        return (
            f"expected acceptance below {_percent(expected.high, 2)} (95%, no member among "
            f"{expected.num:,} latents): more than {_least(expected, num)} for {_images(num)}"
        )
    interval = f"{_percent(expected.low)[:-1]}-{_percent(expected.high)}"
    passes = max(num, _leading(num / expected.share, round))
    return (
        f"expected acceptance {_percent(expected.share)} ({interval}, {expected.num_members:,} of "
        f"{expected.num:,} latents): about {passes:,} passes for {_images(num)}"
    )


def check_budget(expected: AcceptanceEstimate, num: int, max_draws: int) -> None:
    """Refuse a draw that the budget is not expected to cover, even if the share is `high`.

    Args:
        expected: the region's share of the proposals.
        num: number of images to draw.
        max_draws: proposals after which `samplers.verify.draw_verified` gives up.

    Raises:
        UserError: with the estimate and the budget.
    """
    if num <= expected.high * max_draws:
        return
    few = f"{expected.num_members:,} of" if expected.num_members else "no member among"
    raise UserError(
        f"{few} {expected.num:,} latents: the share is below {_percent(expected.high, 2)} (95%), "
        f"so {_images(num)} would take more than {_least(expected, num)}; the budget is "
        f"--config.sample.max_draws={max_draws}: raise it, ask for fewer images, or for a larger "
        "region with --cluster or --margin"
    )


def _images(num: int) -> str:
    return f"{num} image{'s' * (num > 1)}"


def _least(expected: AcceptanceEstimate, num: int) -> str:
    return f"{_leading(num / expected.high, math.floor):,} passes"


def _percent(share: float, digits: int = 3) -> str:
    return f"{float(f'{100 * share:.{digits}g}'):g}%"


def _leading(number: float, to_integer: Callable[[float], int]) -> int:
    """Round a number of at least 1 to an integer of two leading digits, followed by zeros."""
    unit = 10 ** max(0, math.floor(math.log10(number)) - 1)
    return to_integer(number / unit) * unit
