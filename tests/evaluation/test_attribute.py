"""An attribute is counted among the faces found and among all images."""

import numpy as np
import pytest

from cgjax.evaluation.attribute import Attribute, judged_accuracy
from cgjax.numerics.intervals import wilson_interval


def test_judged_accuracy_counts_no_face_as_wrong_only_in_the_strict_column():
    yaw = np.array([15.0, 20.0, 3.0, np.nan, np.nan])
    got = judged_accuracy(yaw, lambda values: values >= 10)
    assert got.accuracy == pytest.approx(2 / 3)
    assert got.found == pytest.approx(3 / 5)
    assert got.strict == pytest.approx(2 / 5)
    assert got.interval == wilson_interval(2, 3)
    assert got.strict_interval == wilson_interval(2, 5)


def test_judged_accuracy_without_any_face_is_unknown():
    got = judged_accuracy([np.nan, np.nan], lambda values: values >= 10)
    assert np.isnan(got.accuracy)
    assert got.interval == (0.0, 1.0)
    assert (got.found, got.strict) == (0.0, 0.0)


class Brightness:
    """A judge of the mean of images that cannot judge black ones."""

    name, attributes = "brightness", ("mean",)

    def __call__(self, images):
        means = images.mean(axis=(1, 2, 3))
        return {"mean": np.where(means == 0, np.nan, means)}


@pytest.mark.parametrize("seen", [0.0, 0.4])
def test_an_attribute_not_seen_in_the_members_is_not_measured_in_images(seen):
    asked = Attribute(Brightness(), "mean", 0.0, 0.1)
    images = np.linspace(-1, 1, 20, dtype=np.float32)[:, None, None, None] + np.zeros((1, 4, 4, 3))
    members = np.full((6, 4, 4, 3), seen, np.float32)
    side = asked.side_of(asked.values(members))
    columns = side.measure(asked.values(images))
    assert columns["found"] == 1
    assert ("accuracy" in columns) == ("w1" in columns) == ("strict" in columns) == bool(seen)
    none = side.measure(asked.values(np.zeros((3, 4, 4, 3))))
    assert none["found"] == 0
    assert "accuracy" not in none
    assert ("strict" in none) == bool(seen)


def test_a_side_remembers_in_how_many_members_nothing_was_found():
    asked = Attribute(Brightness(), "mean", 0.0, 0.1)
    images = np.stack([np.zeros((4, 4, 3)), np.full((4, 4, 3), -0.5)])
    side = asked.side_of(asked.values(images))
    np.testing.assert_array_equal(side.judged, [np.nan, -0.5])
    np.testing.assert_array_equal(side.members, [-0.5])
    assert side.sign == -1


def test_the_distance_from_the_members_is_in_the_attribute_s_unit():
    asked = Attribute(Brightness(), "mean", 0.0, 0.1)
    grey = np.ones((8, 4, 4, 3), np.float32)
    columns = asked.side_of(asked.values(0.5 * grey)).measure(asked.values(0.25 * grey))
    assert columns["w1"] == columns["w1_low"] == columns["w1_high"] == pytest.approx(0.25)
