"""Scores of points against a mixture: a perfect sampler, a collapsed one, and by hand."""

import math

import jax
import numpy as np
import pytest
from scipy.special import rel_entr
from scipy.stats import norm

from cgjax.endtoend.data import grid, ring
from cgjax.errors import UserError
from cgjax.evaluation.modes import mode_scores, nearest_means, over_repeats, perfect_scores

GRID = grid()


def draw(seed, num=20_000):
    return np.asarray(GRID.draw(jax.random.key(seed), num).rows)


def test_a_perfect_sampler_scores_what_theory_predicts():
    scores = mode_scores(draw(0, 50_000), GRID.means, GRID.sd)
    inside = norm.cdf(3) - norm.cdf(-3)
    assert scores.modes == 25
    assert scores.high_quality_box == pytest.approx(inside**2, abs=1.5e-3)
    assert scores.high_quality_disc == pytest.approx(1 - math.exp(-4.5), abs=2e-3)
    assert scores.variance_ratio == pytest.approx(1, abs=0.02)
    # About (M - 1) / 2n.
    assert 0.2 < scores.reverse_kl_nats / (24 / 100_000) < 3


def test_the_reverse_kl_equals_scipys_in_both_units():
    points = draw(1, 500)
    shares = np.bincount(nearest_means(points, GRID.means), minlength=25) / 500
    scores = mode_scores(points, GRID.means, GRID.sd)
    assert scores.reverse_kl_nats == pytest.approx(rel_entr(shares, 1 / 25).sum(), abs=1e-12)
    assert scores.reverse_kl_log10 == pytest.approx(
        scores.reverse_kl_nats / math.log(10), abs=1e-15
    )


def test_collapse_within_the_modes_has_high_quality_and_small_variance():
    points = draw(2)
    means = GRID.means[nearest_means(points, GRID.means)]
    half = means + 0.5 * (points - means)
    scores = mode_scores(half, GRID.means, GRID.sd)
    assert scores.high_quality_box > 0.9999
    assert scores.variance_ratio == pytest.approx(0.25, rel=0.05)


def test_a_narrow_and_a_wide_mode_show_even_if_the_pooled_ratio_is_one():
    points = draw(4, 50_000)
    nearest = nearest_means(points, GRID.means)
    scale = np.ones(25)
    # Half and one and a half times the variance; the box cuts the wide one at 3 / 1.22 of its sd.
    scale[3], scale[20] = math.sqrt(0.5), math.sqrt(1.5)
    means = GRID.means[nearest]
    scores = mode_scores(means + scale[nearest][:, None] * (points - means), GRID.means, GRID.sd)
    cut = 3 / scale[[3, 20]]
    inside = scale[[3, 20]] ** 2 * (1 - 2 * cut * norm.pdf(cut) / (2 * norm.cdf(cut) - 1))
    unit = 1 - 6 * norm.pdf(3) / (2 * norm.cdf(3) - 1)
    # 2,000 points estimate a variance to 2.2%.
    assert scores.variance_ratio_lowest == pytest.approx(inside[0] / unit, rel=0.07)
    assert scores.variance_ratio_highest == pytest.approx(inside[1] / unit, rel=0.07)
    assert scores.variance_ratio == pytest.approx(1, abs=0.02)


def test_missing_modes_are_counted_and_add_their_logarithm():
    points = draw(3)
    kept = points[nearest_means(points, GRID.means) < 5]
    scores = mode_scores(kept, GRID.means, GRID.sd)
    assert scores.modes == 5
    assert scores.reverse_kl_nats == pytest.approx(math.log(5), abs=0.01)


def test_a_box_holds_corners_that_a_disc_does_not():
    scores = mode_scores([[0.13, 0.13]], GRID.means, GRID.sd)
    assert (scores.high_quality_box, scores.high_quality_disc) == (1, 0)
    assert all(map(math.isnan, scores[-3:]))


def test_the_interval_of_a_perfect_sampler_contains_fresh_scores():
    found = perfect_scores(lambda i: draw(i, 2000), GRID.means, GRID.sd, repeats=40)
    fresh = np.array([mode_scores(draw(1000 + i, 2000), GRID.means, GRID.sd) for i in range(40)])
    for (name, expected), column in zip(found.items(), fresh.T, strict=True):
        low, high = expected.interval
        assert np.mean((column >= low) & (column <= high)) >= 0.75, name
        assert low <= expected.mean <= high


@pytest.mark.parametrize("repeats", [2, 10, 39, 100])
@pytest.mark.parametrize("shape", [3.5, 500.0])  # as skewed as the reverse KL of 8 and of 1,001
def test_the_interval_holds_the_score_of_one_more_repeat_in_95_of_100_cases(repeats, shape):
    draws = np.random.default_rng(0).gamma(shape, size=(500, repeats + 1))
    held = 0
    for *scores, one_more in draws:
        low, high = over_repeats(lambda i, s=scores: {"score": s[i]}, repeats)["score"].interval
        held += low <= one_more <= high
    assert held / len(draws) == pytest.approx(0.95, abs=0.03)  # three standard deviations


@pytest.mark.parametrize(
    ("points", "sd", "message"),
    [
        ([[0.0, 0.0]], 0.0, "sd=0.0: expected a standard deviation above 0"),
        ([[0.0, float("nan")]], 0.1, "NaN|finite"),
        ([[0.0, 0.0, 0.0]], 0.1, "3"),
    ],
)
def test_invalid_input_is_refused_in_one_line(points, sd, message):
    with pytest.raises(UserError, match=message):
        mode_scores(points, GRID.means, sd)


def test_a_single_repeat_gives_no_interval():
    with pytest.raises(UserError, match="repeats=1"):
        perfect_scores(lambda i: draw(i, 10), GRID.means, GRID.sd, repeats=1)


@pytest.mark.parametrize(
    ("data", "num", "sd"), [(ring(), 8, 0.01), (GRID, 25, 0.05), (grid(10), 100, 0.05)]
)
def test_a_mixture_has_its_modes_and_draws_them_equally_often(data, num, sd):
    points = data.draw(jax.random.key(0), 40_000)
    assert data.num_classes == num
    offsets = np.asarray(points.rows) - data.means[np.asarray(points.classes)]
    assert offsets.std() == pytest.approx(sd, rel=0.02)
    counts = np.bincount(np.asarray(points.classes), minlength=num)
    assert np.abs(counts - 40_000 / num).max() < 5 * math.sqrt(40_000 / num)
    np.testing.assert_allclose(data.means.mean(axis=0), 0, atol=1e-12)


def test_a_ring_without_a_radius_is_refused():
    with pytest.raises(UserError, match=r"data\.radius=0"):
        ring(0.0)
