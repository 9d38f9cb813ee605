"""Confidence intervals have their nominal coverage."""

import statistics

import numpy as np
import pytest
import scipy.stats

from cgjax.errors import UserError
from cgjax.evaluation import distances
from cgjax.numerics.intervals import bootstrap_interval, wilson_interval


@pytest.mark.parametrize(("successes", "total"), [(0, 10), (10, 10), (51, 100), (1999, 2000)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_wilson_interval_equals_scipys(successes, total, confidence):
    want = scipy.stats.binomtest(successes, total).proportion_ci(confidence, method="wilson")
    got = wilson_interval(successes, total, confidence)
    assert got == pytest.approx((want.low, want.high), abs=1e-12)


def test_wilson_interval_matches_the_published_table_s_column():
    # 51% and 24% of 100 images: 41.3-60.6 and 16.7-33.2 percent.
    assert wilson_interval(51, 100) == pytest.approx((0.413, 0.606), abs=5e-4)
    assert wilson_interval(24, 100) == pytest.approx((0.167, 0.332), abs=5e-4)


def test_wilson_interval_refuses_counts_that_do_not_make_a_share():
    with pytest.raises(UserError, match="11 of 10"):
        wilson_interval(11, 10)
    with pytest.raises(UserError, match="confidence=95"):
        wilson_interval(5, 10, 95)


def test_bootstrap_interval_of_a_mean_is_about_the_normal_one():
    x = np.random.default_rng(0).normal(3, 2, 400)
    low, high = bootstrap_interval(np.mean, x, num_resamples=2000)
    half = 1.96 * x.std() / 20
    # The ends of 2,000 resamples are quantiles with about 4% error of the half width.
    assert (low, high) == pytest.approx((x.mean() - half, x.mean() + half), abs=0.15 * half)


def test_bootstrap_interval_is_the_same_for_the_same_seed_only():
    x = np.random.default_rng(1).normal(size=50)
    first = bootstrap_interval(np.median, x, num_resamples=50, seed=3)
    assert first == bootstrap_interval(np.median, x, num_resamples=50, seed=3)
    assert first != bootstrap_interval(np.median, x, num_resamples=50, seed=4)


def test_normal_bootstrap_of_a_frechet_distance_is_centred_where_percentiles_are_not():
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(60, 8)), rng.normal(size=(60, 8))
    estimate = distances.frechet(a, b)
    normal = bootstrap_interval(distances.frechet, a, b, num_resamples=100, method="normal")
    percentile = bootstrap_interval(distances.frechet, a, b, num_resamples=100)
    assert normal.low < estimate < normal.high
    assert estimate < percentile.low  # the resamples' repeated rows raise the distance


def test_a_normal_bootstrap_has_the_unbiased_spread_of_its_resamples():
    seen = []

    def mean(x):
        seen.append(float(np.mean(x)))
        return seen[-1]

    x = np.random.default_rng(3).normal(size=20)
    low, high = bootstrap_interval(mean, x, num_resamples=3, method="normal")
    half = scipy.stats.t.ppf(0.975, 2) * statistics.stdev(seen[:3])
    assert (low, high) == pytest.approx((x.mean() - half, x.mean() + half))


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("num_resamples", [3, 10])
def test_a_normal_bootstrap_covers_a_mean_as_often_as_it_says_with_few_resamples(num_resamples):
    rows = np.random.default_rng(4).normal(size=(2000, 100))
    ends = [
        bootstrap_interval(np.mean, row, num_resamples=num_resamples, method="normal", seed=i)
        for i, row in enumerate(rows)
    ]
    covered = sum(low <= 0 <= high for low, high in ends)
    low, high = wilson_interval(covered, len(rows), 0.999)
    assert low < 0.95 < high  # 1.96 in place of the quantile covers 0.81 and 0.92


@pytest.mark.usefixtures("untyped")
def test_bootstrap_interval_refuses_no_sample_and_unknown_methods():
    with pytest.raises(UserError, match="at least one sample"):
        bootstrap_interval(np.mean)
    with pytest.raises(UserError, match="percentile"):
        bootstrap_interval(np.mean, [1.0, 2.0], method="bca")
    with pytest.raises(UserError, match="empty"):
        bootstrap_interval(np.mean, [])
    with pytest.raises(
        UserError, match=r"num_resamples=2\.5: expected a whole number of at least 2"
    ):
        bootstrap_interval(np.mean, [1.0, 2.0], num_resamples=2.5)
    with pytest.raises(UserError, match=r"confidence=.x.: expected a number .* such as 0\.95"):
        bootstrap_interval(np.mean, [1.0, 2.0], confidence="x")
