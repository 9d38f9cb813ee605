"""Transfer is counted under the best matching, beside what that matching reaches by chance."""

import numpy as np
import pytest

from cgjax.errors import UserError
from cgjax.evaluation.transfer import transfer_figure, transfer_score


def test_renamed_clusters_agree_fully():
    asked = np.repeat([0, 1, 2], 20)
    score = transfer_score(asked, np.array([2, 0, 1])[asked], 3)
    assert score.agreement == 1
    np.testing.assert_array_equal(score.matching, [2, 0, 1])
    np.testing.assert_array_equal(score.by_cluster, 1)
    assert score.interval[0] > 0.9


def test_unrelated_clusters_agree_as_chance_says():
    rng = np.random.default_rng(1)
    asked, own = rng.integers(0, 4, 400), rng.integers(0, 4, 400)
    score = transfer_score(asked, own, 4)
    assert score.chance >= 0.25
    assert abs(score.agreement - score.chance) < 0.05


def test_chance_is_above_one_in_k_where_one_cluster_has_most():
    asked = np.repeat([0, 1], 50)
    own = np.zeros(100, int)
    score = transfer_score(asked, own, 2)
    assert score.agreement == score.chance == 0.5
    skewed = transfer_score(np.array([0] * 90 + [1] * 10), np.array([0] * 10 + [1] * 90), 2)
    assert skewed.chance > 0.75


def test_a_known_share_is_found():
    asked = np.repeat([0, 1], 100)
    own = asked.copy()
    own[:30] = 1
    score = transfer_score(asked, own, 2)
    assert score.agreement == pytest.approx(0.85)
    np.testing.assert_allclose(score.by_cluster, [0.7, 1.0])


def test_a_cluster_that_was_not_asked_for_has_no_agreement():
    score = transfer_score(np.zeros(5, int), np.zeros(5, int), 3)
    assert score.agreement == 1
    assert np.isnan(score.by_cluster[1:]).all()


@pytest.mark.parametrize(
    ("asked", "own"), [([0, 1], [0]), ([], []), ([0, 3], [0, 1]), ([0, -1], [0, 1])]
)
def test_wrong_input_is_refused(asked, own):
    with pytest.raises(UserError):
        transfer_score(np.array(asked, int), np.array(own, int), 2)


def test_the_figure_puts_the_classes_of_a_latent_side_by_side():
    # Every class has a grey value of its own, every cluster a row.
    images = [[np.full((2, 8, 8, 3), v, np.float32) for _ in range(2)] for v in (-1.0, 0.0, 1.0)]
    sheet = np.asarray(transfer_figure(images, ["a", "b", "c"], ["left", "right"]))
    row = sheet[sheet.shape[0] // 4]
    values = [v for v in row[:, 0].tolist() if v in (0, 128)]
    first, last = values.index(0), len(values) - 1 - values[::-1].index(128)
    assert first < values.index(128) < last
