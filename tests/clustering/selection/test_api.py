"""The number that was planted is chosen, and the reason says why."""

import json

import jax
import numpy as np
import pytest

import cgjax
from cgjax.clustering.selection import api, check_rows, choose_num_clusters
from cgjax.clustering.selection.words import table_text, tree_text
from cgjax.errors import UserError
from cgjax.testing.clouds import make_clouds


def choose(*args, most=6, rows=3400, seed=0, **kinds):
    drawn, _ = make_clouds(*args, seed=seed, **kinds).draw(np.random.default_rng(seed), rows)
    return choose_num_clusters(drawn, most, key=jax.random.key(seed), num_repeats=2)


PLANTED = [
    (1, {"shape": "round"}),
    (1, {"shape": "long"}),
    (1, {"shape": "tapering"}),
    (2, {"shape": "round"}),
    (3, {"shape": "round", "ratio": 10.0}),
    (5, {"shape": "long"}),
]


@pytest.mark.parametrize(("number", "kinds"), PLANTED)
def test_the_planted_number_is_chosen(number, kinds):
    choice = choose(number, 64, **kinds)
    assert choice.num_clusters == number
    assert choice.verdict == ("one cluster" if number == 1 else "several clusters")


def test_few_wide_features_give_the_planted_number_too():
    choice = choose(3, 1024, rows=1500, most=4)
    assert choice.num_clusters == 3
    assert "450, 450 and 600 rows in the span of 64 principal components" in choice.basis


@pytest.fixture(scope="module")
def long_cloud():
    return choose(1, 64, shape="long")


@pytest.fixture(scope="module")
def three_clouds():
    return choose(3, 16, ratio=3.0)


def test_two_stable_clusters_of_one_long_gaussian_are_called_a_cut(long_cloud):
    two = long_cloud.table[1]
    assert two.prediction_strength.value > 0.9  # which is why stability alone would say two
    assert two.valley_p_value > 0.05
    assert two.gaussian_p_value > 0.01
    assert "only cut the main axis: no valley lies between them (p = 1)" in long_cloud.reason
    assert "one Gaussian with the same covariance is cut as clearly" in long_cloud.reason


def test_nothing_is_chosen_silently(long_cloud):
    table = table_text(long_cloud).splitlines()
    assert len(table) == 1 + 6 == 1 + len(long_cloud.table)
    assert table[1].startswith("*")
    assert [row.num_clusters for row in long_cloud.table] == list(range(1, 7))
    assert len(tree_text(long_cloud).splitlines()) == 5


def test_the_chosen_row_describes_every_cluster(three_clouds):
    row = three_clouds.table[2]
    assert row.num_groups == 3
    assert row.valley_p_value <= three_clouds.alpha
    assert row.gaussian_p_value < 0.001
    for cluster in row.clusters:
        low, high = cluster.jaccard.low, cluster.jaccard.high
        assert 0.85 < low <= cluster.jaccard.value <= high
        assert cluster.meaning == "highly stable"
        assert not cluster.is_split
    assert "highly stable" in three_clouds.reason
    assert "One more only cuts one of them" in three_clouds.reason


def test_with_too_few_clusters_one_of_them_contains_a_split(three_clouds):
    two = three_clouds.table[1].clusters
    assert [cluster.is_split for cluster in two].count(True) == 1
    assert three_clouds.table[0].clusters[0].is_split
    held = [cluster.is_split for cluster in two].index(True)
    assert sorted(cluster.parent for cluster in three_clouds.table[2].clusters) == sorted(
        [held, held, 1 - held]
    )


def test_rows_are_plain_json_and_say_which_is_chosen(three_clouds):
    rows = json.loads(json.dumps(three_clouds.rows(), allow_nan=False))
    assert [row["is_chosen"] for row in rows] == [False, False, True, False, False, False]
    assert rows[0]["silhouette"] is None
    assert rows[0]["clusters"][0]["parent"] is None
    assert rows[2]["adjusted_rand"] == list(three_clouds.table[2].adjusted_rand)
    assert len(rows[4]["clusters"]) == 5


def test_long_clusters_that_kmeans_cuts_first_are_counted_right_and_explained():
    choice = choose(2, 64, shape="long", ratio=10.0)
    assert choice.num_clusters == 2
    assert choice.table[1].num_groups == 1
    assert "k-means with 2 does not find them" in choice.reason


def test_more_clusters_than_asked_for_is_a_verdict():
    choice = choose(5, 16, most=4)
    assert (choice.num_clusters, choice.verdict) == (4, "more clusters than asked for")
    assert "At least 5 groups" in choice.reason


def test_more_clusters_than_rows_of_a_criterion_are_no_obstacle(monkeypatch):
    monkeypatch.setattr(api, "_GAP_ROWS", 4)
    monkeypatch.setattr(api, "_SEED_ROWS", 4)
    rows = np.random.default_rng(0).normal(size=(360, 2)).astype(np.float32)
    assert len(choose_num_clusters(rows, 6, key=jax.random.key(0)).table) == 6


def test_one_is_the_only_choice_among_one():
    choice = choose(1, 8, most=1, rows=600)
    assert (choice.num_clusters, len(choice.table), tree_text(choice)) == (1, 1, "")


def test_a_function_is_asked_for_fresh_rows_and_the_same_key_gives_the_same():
    clouds = make_clouds(2, 8)
    asked = []

    def draw(key, num):
        asked.append(num)
        return clouds.draw(np.random.default_rng(int(jax.random.bits(key))), num)[0]

    first, second = (
        cgjax.choose_num_clusters(draw, 3, key=jax.random.key(4), num_rows=3400) for _ in range(2)
    )
    assert first == second or first.rows() == second.rows()
    assert sum(asked) == 2 * 3400
    assert max(asked) <= 1024  # projected block by block: wide rows need not fit
    assert first.num_clusters == 2


def test_a_function_that_returns_another_number_of_rows_is_refused():
    with pytest.raises(UserError, match=r"draw\(key, 120\) returned 7 rows; expected 120"):
        choose_num_clusters(
            lambda key, num: np.zeros((7, 3)), 2, key=jax.random.key(0), num_rows=400
        )


def test_features_may_be_images_and_a_constant_one_does_not_matter():
    rows, _ = make_clouds(2, 8).draw(np.random.default_rng(0), 1000)
    images = np.concatenate([rows, np.ones_like(rows)], axis=1).reshape(1000, 2, 4, 2)
    assert choose_num_clusters(images, 3, key=jax.random.key(0)).num_clusters == 2


def test_rows_that_are_all_the_same_are_one_cluster():
    assert choose_num_clusters(np.ones((400, 3)), 3, key=jax.random.key(0)).num_clusters == 1


def test_too_few_rows_are_refused_before_anything_is_computed():
    with pytest.raises(UserError, match=r"at least 960 latents, not 959; give --config\.latents"):
        check_rows(959, 16)
    check_rows(960, 16)
    with pytest.raises(UserError, match="max_clusters=0"):
        check_rows(1000, 0)
    with pytest.raises(UserError, match="needs at least 300 latents, not 100"):
        choose_num_clusters(np.zeros((100, 3)), 2, key=jax.random.key(0))


def test_rows_that_are_not_finite_are_refused():
    rows = np.zeros((400, 3))
    rows[17, 1] = np.nan
    with pytest.raises(UserError, match="first in row 17"):
        choose_num_clusters(rows, 2, key=jax.random.key(0))


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": 0}, "key=0: expected a random key"),
        ({"max_clusters": "3"}, "max_clusters='3': expected a whole number of at least 1"),
        ({"max_clusters": True}, "max_clusters=True"),
        ({"num_rows": -1}, "num_rows=-1: expected a whole number of at least 1"),
        ({"num_components": 0}, "num_components=0"),
        ({"num_repeats": 0}, "num_repeats=0"),
        ({"alpha": float("nan")}, "alpha=nan: expected a number between 0 and 1"),
        ({"alpha": 5}, "alpha=5: expected a number between 0 and 1"),
        ({"alpha": -1}, "alpha=-1"),
        ({"confidence": 2}, "confidence=2: expected a number between 0 and 1"),
        ({"confidence": "0.9"}, "confidence='0.9'"),
        ({"source": [[1.0], [1.0, 2.0]]}, "the features are not an array"),
        ({"source": None}, "the features are None"),
        ({"source": np.ones((400, 3)) * 1j}, "the features are complex128 numbers"),
    ],
)
def test_impossible_options_are_refused_in_one_line(change, message):
    given = {"source": np.zeros((400, 3)), "max_clusters": 2, "key": jax.random.key(0)}
    with pytest.raises(UserError) as caught:
        choose_num_clusters(**(given | change))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rows_whose_squares_underflow_are_refused():
    rows = np.random.default_rng(0).normal(size=(400, 3)) * 1e-18
    with pytest.raises(UserError, match=r"the features differ by .*underflow float32; multiply"):
        choose_num_clusters(rows, 2, key=jax.random.key(0))


@pytest.mark.parametrize("scale", [1e30, 1e300])
def test_rows_whose_squares_overflow_are_refused(scale):
    rows = np.random.default_rng(0).normal(size=(400, 3)) * scale
    with pytest.raises(UserError, match="too large: their squares overflow float32; divide them"):
        choose_num_clusters(rows, 2, key=jax.random.key(0))
