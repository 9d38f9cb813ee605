"""What drawing from a region will cost, estimated beforehand from the clustered latents alone."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from cgjax.errors import TooRare
from cgjax.numerics.draws import enough_draws, leading
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
            f"expected acceptance below {percent(expected.high, 2)} (95%, no member among "
            f"{expected.num:,} latents): more than {_least(expected, num)} for {_some(num)}"
        )
    interval = f"{percent(expected.low)[:-1]}-{percent(expected.high)}"
    passes = max(num, leading(num / expected.share, round))
    return (
        f"expected acceptance {percent(expected.share)} ({interval}, {expected.num_members:,} of "
        f"{expected.num:,} latents): about {passes:,} passes for {_some(num)}"
    )


def check_budget(
    expected: AcceptanceEstimate, num: int, max_draws: int, noun: str = "image"
) -> None:
    """Refuse a draw that the budget is not expected to cover, even if the share is `high`.

    Args:
        expected: the region's share of the proposals.
        num: number of images to draw.
        max_draws: proposals after which `samplers.verify.draw_verified` gives up.
        noun: what they are called.

    Raises:
        TooRare: with the estimate, the budget, and one that is large enough; `Run.naming` adds
            which region it is.
    """
    if num <= expected.high * max_draws:
        return
    few = f"{expected.num_members:,} of" if expected.num_members else "no member among"
    raise TooRare(
        f"{few} {expected.num:,} latents: the share is below {percent(expected.high, 2)} (95%), "
        f"so {_some(num, noun)} would take more than {_least(expected, num)}; the budget is "
        f"--config.sample.max_draws={max_draws}: {larger_budget(expected, num)}"
    )


def larger_budget(expected: AcceptanceEstimate, num: int) -> str:
    """Return what to type so that the budget is enough, even if the share is `low`."""
    if not expected.low:
        return "raise it"
    return f"type --config.sample.max_draws={enough_draws(num, expected.low)}"


def _some(num: int, noun: str = "image") -> str:
    return f"{num} {noun}{'s' * (num > 1)}"


def _least(expected: AcceptanceEstimate, num: int) -> str:
    return f"{leading(num / expected.high, math.floor):,} passes"


def percent(share: float, digits: int = 3) -> str:
    """Format a share as a percentage, to this many digits."""
    return f"{float(f'{100 * share:.{digits}g}'):g}%"
