"""How much of an attribute a clustering explains, and image statistics of known images."""

import numpy as np
import pytest
from scipy import stats

from cgjax.evaluation.explained import (
    adjusted_eta_squared,
    attribute_in,
    chance,
    eta_squared,
    explained,
)
from cgjax.evaluation.pixel_judges import ImageStatistics


def test_eta_squared_and_its_chance_equal_the_analysis_of_variance():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    values = rng.normal(size=200) + 0.2 * labels
    f, p_value = stats.f_oneway(*(values[labels == c] for c in range(3)))
    assert eta_squared(values, labels) == pytest.approx(f * 2 / (f * 2 + 197), rel=1e-9)
    assert chance(values, labels) == pytest.approx(p_value, rel=1e-9)


def test_random_groups_explain_nothing_on_average():
    rng = np.random.default_rng(1)
    drawn = [(rng.normal(size=100), rng.integers(0, 8, 100)) for _ in range(300)]
    assert np.mean([eta_squared(*pair) for pair in drawn]) > 0.06
    # Values below 0 are reported as 0, so the mean is slightly above 0.
    assert np.mean([adjusted_eta_squared(*pair) for pair in drawn]) < 0.02
    assert 0.02 < np.mean([chance(*pair) < 0.05 for pair in drawn]) < 0.09


@pytest.mark.parametrize("true", [0.1, 0.5, 0.9])
def test_the_interval_contains_the_share_and_its_estimate(true):
    rng = np.random.default_rng(2)
    means = np.linspace(-1, 1, 8)
    means *= np.sqrt(true) / means.std()
    covered = 0
    for _ in range(100):
        labels = rng.integers(0, 8, 200)
        found = explained(means[labels] + rng.normal(size=200) * np.sqrt(1 - true), labels)
        assert 0 <= found.low <= found.value <= found.high <= 1
        covered += found.low <= true <= found.high
    assert covered >= 88


def test_unjudged_images_do_not_count_and_a_constant_is_not_explained():
    values, labels = np.array([0.0, 0.1, 1.0, 1.1, np.nan]), np.array([0, 0, 1, 1, 1])
    assert explained(values, labels).num == 4
    for of in (eta_squared, adjusted_eta_squared, chance):
        assert of(values, labels) == of(values[:4], labels[:4])
    assert eta_squared(np.full(5, 0.1), labels) == eta_squared(np.full(5, np.nan), labels) == 0
    assert np.isnan(explained(np.full(5, np.nan), labels).value)
    assert np.isnan(explained(np.arange(2.0), np.arange(2)).value)
    assert chance(np.arange(2.0), np.arange(2)) == chance(np.arange(5.0), np.zeros(5, int)) == 1


def test_a_cluster_s_attribute_has_its_interval_and_how_often_it_was_seen():
    found = attribute_in(np.array([1.0, 2.0, 3.0, np.nan]))
    assert (found.mean, found.found, found.num) == (2.0, 0.75, 4)
    assert found[1:3] == pytest.approx(stats.t.interval(0.95, 2, 2, 1 / np.sqrt(3)))
    assert np.isnan(attribute_in(np.array([])).mean)


def test_image_statistics_of_known_images():
    images = np.full((3, 4, 4, 3), -1.0, np.float32)
    images[0, :, :2] = 1.0  # white on the left
    images[1, :2] = 1.0  # white above
    images[2, :, :, 0] = 1.0  # red
    found = ImageStatistics()(images)
    np.testing.assert_allclose(found["left_right"], [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(found["up_down"], [0, 1, 0], atol=1e-6)
    np.testing.assert_allclose(found["brightness"], [0.5, 0.5, 0.2126], atol=1e-6)
    np.testing.assert_allclose(found["contrast"], [0.5, 0.5, 0], atol=1e-6)
    np.testing.assert_allclose(found["saturation"], [0, 0, 1], atol=1e-6)
