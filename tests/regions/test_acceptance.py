"""What a region will cost is estimated before anything is drawn, with an honest interval."""

import numpy as np
import pytest

from cgjax.errors import UserError
from cgjax.regions.acceptance import (
    AcceptanceEstimate,
    check_budget,
    describe,
    expected_acceptance,
)
from cgjax.regions.compound import Intersection
from cgjax.regions.region import ClusterRegion, MarginRange
from tests.regions.planted import clustering


def of_count(count, n):
    """A cluster that holds `count` of n latents."""
    return ClusterRegion(clustering("layer1", np.arange(n) >= count, 2), 0)


@pytest.mark.parametrize(
    ("count", "n", "low", "high"),
    [
        # The percentages of the interval's own tests, against published tables.
        (51, 100, 0.413, 0.606),
        (24, 100, 0.167, 0.332),
        (614, 5000, 0.1140, 0.1322),
        (0, 5000, 0.0, 0.000768),
        (100, 100, 0.963, 1.0),
    ],
)
def test_the_interval_is_wilsons(count, n, low, high):
    estimate = expected_acceptance(of_count(count, n))
    assert estimate[3:] == (count, n)
    assert estimate.share == count / n
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=5e-4)


def test_the_interval_covers_the_true_share_as_often_as_it_claims():
    # 95% of 400 sets; three standard deviations of that count are 3.3%. Wilson's interval is known
    # to cover slightly less or more than it claims at individual shares.
    rng = np.random.default_rng(0)
    for share in (0.5, 0.05, 0.01):
        counts = rng.binomial(500, share, 400)
        estimates = [expected_acceptance(of_count(c, 500)) for c in counts]
        covered = np.mean([one.low <= share <= one.high for one in estimates])
        assert 0.915 <= covered <= 0.985


def test_the_estimate_for_a_query_is_near_its_true_acceptance():
    rng = np.random.default_rng(1)
    one, two = rng.integers(0, 2, 4000), rng.integers(0, 4, 4000)
    region = Intersection(
        (ClusterRegion(clustering("a", one, 2), 1), ClusterRegion(clustering("b", two, 4), 3))
    )
    overall = expected_acceptance(region)
    assert overall.low < 1 / 8 < overall.high
    within = expected_acceptance(region, region.proposal(region.parts[0].clustering))
    assert within.low < 1 / 4 < within.high
    assert within.num == np.sum(one == 1)
    assert within.num_members == overall.num_members


def test_a_proposal_without_members_gives_no_information():
    empty = ClusterRegion(clustering("a", [0, 0], 2), 1)
    assert expected_acceptance(empty, empty) == AcceptanceEstimate(0.0, 0.0, 1.0, 0, 0)
    assert "below 100%" in describe(expected_acceptance(empty, empty), 1)


def test_the_estimate_accounts_for_a_margin():
    margins = np.linspace(0, 1, 1000, dtype=np.float32)
    whole = ClusterRegion(clustering("a", np.zeros(1000), 1, margins), 0)
    part = whole.with_margin(MarginRange(0.6))
    assert expected_acceptance(part).num_members == 400
    assert expected_acceptance(part, whole).share == 0.4
    assert expected_acceptance(part, part).share == 1.0


@pytest.mark.parametrize(
    ("count", "num", "line"),
    [
        (
            614,
            64,
            "expected acceptance 12.3% (11.4-13.2%, 614 of 5,000 latents): "
            "about 520 passes for 64 images",
        ),
        (
            10,
            1,
            "expected acceptance 0.2% (0.109-0.368%, 10 of 5,000 latents): "
            "about 500 passes for 1 image",
        ),
        (
            5000,
            101,
            "expected acceptance 100% (99.9-100%, 5,000 of 5,000 latents): "
            "about 101 passes for 101 images",
        ),
        (
            0,
            64,
            "expected acceptance below 0.077% (95%, no member among 5,000 latents): "
            "more than 83,000 passes for 64 images",
        ),
    ],
)
def test_the_line_before_drawing(count, num, line):
    assert describe(expected_acceptance(of_count(count, 5000)), num) == line


def test_an_empty_intersection_is_refused_with_estimate_and_budget():
    parts = [ClusterRegion(clustering("a", np.arange(5000) % 2, 2), c) for c in (0, 1)]
    found = expected_acceptance(Intersection(tuple(parts)))
    with pytest.raises(UserError) as error:
        check_budget(found, 64, 20_000)
    assert str(error.value).startswith(
        "no member among 5,000 latents: the share is below 0.077% (95%), so 64 images would take "
        "more than 83,000 passes; the budget is --config.sample.max_draws=20000: "
    )
    check_budget(found, 15, 20_000)  # possible: 0.0768% of 20,000 is 15.4
    check_budget(found, 64, 100_000)


def test_a_rare_region_is_refused_only_if_the_upper_end_is_too_low():
    found = expected_acceptance(of_count(10, 5000))
    assert 10_000 * found.share < 30 < 10_000 * found.high
    check_budget(found, 30, 10_000)
    with pytest.raises(UserError, match=r"^10 of 5,000 latents: .* 50 images would take more than"):
        check_budget(found, 50, 10_000)
