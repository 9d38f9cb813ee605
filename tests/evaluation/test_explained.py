"""What a clustering explains of an attribute, and what image statistics say of known images."""

import numpy as np
import pytest
from scipy import stats

from cgjax.evaluation.explained import attribute_in, eta_squared, explained
from cgjax.evaluation.pixel_judges import ImageStatistics


def test_eta_squared_is_that_of_the_analysis_of_variance():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    values = rng.normal(size=200) + labels
    groups = [values[labels == c] for c in range(3)]
    f = stats.f_oneway(*groups).statistic
    assert eta_squared(values, labels) == pytest.approx(f * 2 / (f * 2 + 197), rel=1e-9)


def test_what_the_judge_cannot_tell_does_not_count_and_a_constant_is_not_explained():
    labels = np.array([0, 0, 1, 1, 1])
    found = explained(np.array([0.0, 0.1, 1.0, 1.1, np.nan]), labels)
    assert found.num == 4
    assert found.value == eta_squared(np.array([0.0, 0.1, 1.0, 1.1]), labels[:4])
    assert eta_squared(np.full(5, 0.1), labels) == 0
    assert np.isnan(explained(np.full(5, np.nan), labels).value)


def test_a_cluster_s_attribute_has_its_interval_and_how_often_it_was_seen():
    found = attribute_in(np.array([1.0, 2.0, 3.0, np.nan]))
    assert (found.mean, found.found, found.num) == (2.0, 0.75, 4)
    assert found.low == pytest.approx(2 - 1.96 / np.sqrt(3))
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
