"""Transfer is the agreement under the best matching, compared with chance under the same."""

import numpy as np
import pytest

from cgjax.errors import UserError
from cgjax.evaluation.transfer import transfer_score
from cgjax.figures.transfer import transfer_figure


def test_renamed_clusters_agree_fully():
    asked = np.repeat([0, 1, 2], 20)
    score = transfer_score(asked, np.array([2, 0, 1])[asked], 3)
    assert score.agreement == 1
    np.testing.assert_array_equal(score.matching, [2, 0, 1])
    np.testing.assert_array_equal(score.by_cluster, 1)
    assert score.interval[0] > 0.9


def test_chance_is_the_agreement_of_random_clusters():
    asked = np.repeat([0, 1, 2], 200)
    score = transfer_score(asked, np.array([2, 0, 1])[asked], 3)
    # With equal clusters about a third; the best of six matchings adds a few hundredths.
    assert 1 / 3 <= score.chance < 0.4 < score.agreement == 1


def test_unrelated_clusters_agree_as_chance_says():
    rng = np.random.default_rng(1)
    asked, own = rng.integers(0, 4, 400), rng.integers(0, 4, 400)
    score = transfer_score(asked, own, 4)
    assert score.chance >= 0.25
    assert abs(score.agreement - score.chance) < 0.05


def test_chance_is_above_one_in_k_if_one_cluster_dominates():
    asked = np.repeat([0, 1], 50)
    own = np.zeros(100, int)
    score = transfer_score(asked, own, 2)
    assert score.agreement == score.chance == 0.5
    skewed = transfer_score(np.array([0] * 90 + [1] * 10), np.array([0] * 10 + [1] * 90), 2)
    assert skewed.chance > 0.75


def test_a_known_agreement_is_measured():
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


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("asked", "own"), [([0, 1], [0]), ([], []), ([0, 3], [0, 1]), ([0, -1], [0, 1])]
)
def test_wrong_input_is_refused(asked, own):
    with pytest.raises(UserError):
        transfer_score(np.array(asked, int), np.array(own, int), 2)


def test_the_figure_has_a_row_per_class_and_a_frame_around_the_source():
    # Every class has its own grey value.
    greys = (-1.0, 0.0, 0.5)
    images = [[np.full((2, 8, 8, 3), v, np.float32) for _ in range(2)] for v in greys]
    sheet = np.asarray(transfer_figure(images, ["a", "b", "c"], ["left", "right"]))
    size = 128
    column = sheet[:, -size // 2].tolist()
    for grey in (0, 128, 191):
        assert column.count([grey] * 3) == size
    order = [column.index([grey] * 3) for grey in (0, 128, 191)]
    assert order == sorted(order)
    # Two latents of two clusters in every row.
    for start in order:
        assert (sheet[start + size // 2] == sheet[start + size // 2, -size // 2]).all(
            axis=1
        ).sum() == 4 * size
    red = (sheet == [255, 0, 0]).all(axis=2).nonzero()[0]
    assert red.min() < order[0] < red.max() < order[1]
