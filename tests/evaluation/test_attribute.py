"""An attribute is counted among the faces that were found, and among all images."""

import numpy as np
import pytest

from cgjax.evaluation.attribute import judged_accuracy
from cgjax.numerics.intervals import wilson_interval


def test_judged_accuracy_counts_no_face_as_wrong_only_in_the_strict_column():
    yaw = np.array([15.0, 20.0, 3.0, np.nan, np.nan])
    got = judged_accuracy(yaw, lambda values: values >= 10)
    assert got.accuracy == pytest.approx(2 / 3)
    assert got.found == pytest.approx(3 / 5)
    assert got.strict == pytest.approx(2 / 5)
    assert got.interval == wilson_interval(2, 3)
    assert got.strict_interval == wilson_interval(2, 5)


def test_judged_accuracy_without_any_face_claims_nothing():
    got = judged_accuracy([np.nan, np.nan], lambda values: values >= 10)
    assert np.isnan(got.accuracy)
    assert got.interval == (0.0, 1.0)
    assert (got.found, got.strict) == (0.0, 0.0)
