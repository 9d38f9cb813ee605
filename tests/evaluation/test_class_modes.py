"""Scores of labelled samples: planted classes, the floor of an exact sampler, other shares."""

import math

import numpy as np
import pytest
from scipy.special import rel_entr

from cgjax.errors import UserError
from cgjax.evaluation.class_modes import class_scores
from cgjax.evaluation.modes import over_repeats, reverse_kl


def test_a_sampler_of_seven_classes_has_seven_modes_and_their_kl():
    scores = class_scores(np.repeat([3, 14, 159, 265, 358, 979, 999], 50), 1000)
    assert scores.modes == 7
    assert scores.reverse_kl_nats == pytest.approx(math.log(1000 / 7), abs=1e-12)
    assert scores.reverse_kl_log10 == pytest.approx(math.log10(1000 / 7), abs=1e-12)


def test_an_exact_sampler_scores_the_floor_for_its_number_of_samples():
    rng = np.random.default_rng(0)
    found = over_repeats(
        lambda _: class_scores(rng.integers(1000, size=26_000), 1000)._asdict(), 50
    )
    assert found["modes"] == (1000, (1000, 1000))
    low, high = found["reverse_kl_nats"].interval
    # (M - 1) / 2n is 0.0192, the first-order term only.
    assert found["reverse_kl_nats"].mean == pytest.approx(0.0196, abs=4e-4)
    assert low < 0.0196 < high
    assert found["reverse_kl_log10"].mean == pytest.approx(
        found["reverse_kl_nats"].mean / math.log(10), rel=1e-12
    )


def test_the_kl_to_given_shares_equals_scipys():
    shares = np.array([0.5, 0.3, 0.2])
    found = reverse_kl(np.array([3, 2, 0]), shares)
    assert found == pytest.approx(rel_entr([0.6, 0.4, 0], shares).sum(), abs=1e-12)


def test_a_class_of_share_zero_makes_the_kl_infinite():
    shares = np.array([0.5, 0.5, 0.0])
    assert reverse_kl(np.array([1, 0, 1]), shares) == math.inf
    assert math.isfinite(reverse_kl(np.array([1, 1, 0]), shares))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "expected .n,. integers, n > 0"),
        ([0.0, 1.0], "float64; expected .n,. integers"),
        ([[0, 1]], r"shape \(1, 2\)"),
        ([0, 4], "labels from 0 to 4; expected 0 to 3"),
        ([-1, 2], "labels from -1 to 2"),
    ],
)
def test_invalid_input_is_refused_in_one_line(labels, message):
    with pytest.raises(UserError, match=message):
        class_scores(labels, 4)


def test_a_single_repeat_gives_no_interval():
    with pytest.raises(UserError, match="repeats=1: expected at least 2"):
        over_repeats(lambda _: class_scores([0, 1], 2)._asdict(), 1)
