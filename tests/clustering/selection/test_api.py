"""The number that was planted is chosen, and the reason says why."""

import jax
import numpy as np
import pytest

from cgjax.clustering.selection import SelectionOptions, check_rows, select_number
from cgjax.clustering.selection.words import table_text, tree_text
from cgjax.errors import UserError
from cgjax.testing.clouds import make_clouds

QUICK = SelectionOptions(num_fit=1000, num_third=1400, num_repeats=2, num_null=19)


def choose(*args, most=6, rows=3400, seed=0, **kinds):
    drawn, _ = make_clouds(*args, seed=seed, **kinds).draw(np.random.default_rng(seed), rows)
    return select_number(drawn, most, key=jax.random.key(seed), options=QUICK)


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
    found = choose(number, 64, **kinds)
    assert found.number == number
    assert found.verdict == ("one cluster" if number == 1 else "several clusters")


def test_few_wide_features_give_the_planted_number_too():
    found = choose(3, 1024, rows=1500, most=4)
    assert found.number == 3
    assert "leading 64 components" in found.basis


@pytest.fixture(scope="module")
def long_cloud():
    return choose(1, 64, shape="long")


def test_two_stable_clusters_of_one_long_gaussian_are_called_a_cut(long_cloud):
    two = long_cloud.table[1]
    assert two.prediction_strength.value > 0.9  # which is why stability alone would say two
    assert long_cloud.alternatives.prediction_strength >= 2
    assert long_cloud.p_value > 0.01
    assert "only cut the main axis" in long_cloud.reason
    assert long_cloud.clusters == ((1.0, (1.0, 1.0)),)


def test_nothing_is_chosen_silently(long_cloud):
    table = table_text(long_cloud).splitlines()
    assert len(table) == 1 + 6 == 1 + len(long_cloud.table)
    assert table[1].startswith("*")
    assert [row.number for row in long_cloud.table] == list(range(1, 7))
    assert len(tree_text(long_cloud.tree).splitlines()) == 5


def test_long_clusters_that_kmeans_cuts_first_are_counted_right_and_said():
    found = choose(2, 64, shape="long", ratio=10.0)
    assert found.number == 2
    assert found.found_at > 2
    assert found.agreement < 0.5
    assert "does not find them" in found.reason


def test_more_clusters_than_asked_for_is_a_verdict():
    found = choose(5, 16, most=4)
    assert (found.number, found.verdict) == (4, "more clusters than asked for")
    assert "At least 5 groups" in found.reason


def test_one_is_the_only_choice_among_one():
    found = choose(1, 8, most=1, rows=600)
    assert (found.number, len(found.table), found.tree) == (1, 1, ())


def test_a_function_is_asked_for_fresh_rows_and_the_same_key_gives_the_same():
    clouds = make_clouds(2, 8)
    asked = []

    def draw(key, num):
        asked.append(num)
        return clouds.draw(np.random.default_rng(int(jax.random.bits(key))), num)[0]

    first, second = (select_number(draw, 3, key=jax.random.key(4), options=QUICK) for _ in range(2))
    assert (first.reason, table_text(first)) == (second.reason, table_text(second))
    assert sum(asked) == 2 * (2 * QUICK.num_fit + QUICK.num_third)
    assert max(asked) <= 1024  # projected block by block: wide rows need not fit
    assert first.number == 2


def test_features_may_be_images_and_a_constant_one_does_not_matter():
    rows, _ = make_clouds(2, 8).draw(np.random.default_rng(0), 1000)
    images = np.concatenate([rows, np.ones_like(rows)], axis=1).reshape(1000, 2, 4, 2)
    assert select_number(images, 3, key=jax.random.key(0), options=QUICK).number == 2


def test_rows_that_are_all_the_same_are_one_cluster():
    found = select_number(np.ones((400, 3)), 3, key=jax.random.key(0), options=QUICK)
    assert found.number == 1


def test_too_few_rows_are_refused_before_anything_is_computed():
    with pytest.raises(UserError, match=r"at least 960 latents, not 959; give --config\.latents"):
        check_rows(959, 16)
    check_rows(960, 16)
    with pytest.raises(UserError, match="max_number=0"):
        check_rows(1000, 0)
    with pytest.raises(UserError, match="needs at least 300 latents, not 100"):
        select_number(np.zeros((100, 3)), 2, key=jax.random.key(0))


def test_rows_that_are_not_finite_are_refused():
    rows = np.zeros((400, 3))
    rows[17, 1] = np.nan
    with pytest.raises(UserError, match="first in row 17"):
        select_number(rows, 2, key=jax.random.key(0))
