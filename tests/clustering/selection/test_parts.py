"""Partitions from one tree, gaps, the null of one Gaussian, stability, criteria and the tree."""

import jax
import numpy as np
import pytest
from sklearn.metrics import silhouette_score

from cgjax.clustering import kmeans
from cgjax.clustering.selection.criteria import elbow, gap_choice, gap_statistic, silhouettes
from cgjax.clustering.selection.gaps import gaps_of, groups_of
from cgjax.clustering.selection.inner import split_within
from cgjax.clustering.selection.null import one_gaussian_p_value, one_gaussian_p_value_of_two
from cgjax.clustering.selection.partitions import inertia, nearest, partition_all, products
from cgjax.clustering.selection.stability import hennig, measure_stability
from cgjax.clustering.selection.tree import split_tree
from cgjax.errors import UserError
from cgjax.testing.clouds import make_clouds


def draw(num_rows, *args, seed=0, **kinds):
    return make_clouds(*args, **kinds).draw(np.random.default_rng(seed), num_rows)


def assign(rows, centroids):
    return nearest(products(rows, centroids), centroids)


def test_partitions_reach_the_objective_of_kmeans_with_ten_restarts():
    rows, _ = draw(600, 5, 8, ratio=10.0)
    best = float(kmeans(rows, 5, key=jax.random.key(0)).inertia)
    assert inertia(rows, partition_all(rows, 5)[4]) <= 1.001 * best


def test_one_cluster_s_centroid_is_the_mean_and_shares_descend():
    rows, _ = draw(500, 3, 8, ratio=5.0)
    one, *others = partition_all(rows, 4)
    np.testing.assert_allclose(one.centroids[0], rows.mean(axis=0), atol=1e-5)
    for part in others:
        assert (np.diff(np.bincount(part.labels)) <= 0).all()


def test_rows_that_coincide_are_survived():
    rows = np.repeat(np.array([[0.0], [1.0]], np.float32), 20, axis=0)
    parts = partition_all(rows, 4)
    assert inertia(rows, parts[1]) == 0.0
    assert all(np.isfinite(part.centroids).all() for part in parts)


def test_products_in_blocks_equal_the_product():
    rows = np.random.default_rng(0).normal(size=(300, 7)).astype(np.float32)
    np.testing.assert_allclose(products(rows, rows[:5]), rows @ rows[:5].T, rtol=1e-5, atol=1e-5)
    assert products(rows[:3], rows[:5]).shape == (3, 5)


CLOUDS_WITHOUT_GAPS = {
    "round": lambda rng: rng.normal(size=(3000, 6)),
    "ten times as long": lambda rng: rng.normal(size=(3000, 6)) * [10, 1, 1, 1, 1, 1],
    "flat": lambda rng: rng.uniform(size=(3000, 6)) * [10, 1, 1, 1, 1, 1],
    "skewed": lambda rng: rng.exponential(size=(3000, 6)),
    "long tails": lambda rng: rng.standard_t(4, size=(3000, 6)),
}


@pytest.mark.parametrize("cloud", CLOUDS_WITHOUT_GAPS)
def test_a_cloud_with_one_peak_has_no_gap_whatever_its_shape(cloud):
    rows = CLOUDS_WITHOUT_GAPS[cloud](np.random.default_rng(3)).astype(np.float32)
    train, held_out = rows[:1000], rows[1000:]
    for part in partition_all(train, 8)[1:]:
        gaps, _ = gaps_of(train, part.labels, held_out, part.centroids)
        assert groups_of(gaps, 1e-3).max() == 0


def test_clusters_cut_in_parts_are_joined_again():
    rows, _ = draw(4000, 3, 16, ratio=4.0)
    train, held_out = rows[:1500], rows[1500:]
    found = []
    for part in partition_all(train, 8)[2:]:
        gaps, _ = gaps_of(train, part.labels, held_out, part.centroids)
        found.append(int(groups_of(gaps, 0.01).max()) + 1)
    # More parts leave fewer rows for each gap; never do they make more groups.
    assert found[0] == 3
    assert max(found[1:]) == 3


def test_the_cells_of_a_round_cloud_are_one_group():
    rows, _ = draw(10_000, 1, 64)  # between two of many cells of it lie few rows of both
    train, held_out = rows[:3000], rows[3000:]
    for part in partition_all(train, 4)[1:]:
        gaps, _ = gaps_of(train, part.labels, held_out, part.centroids)
        assert groups_of(gaps, 0.01).max() == 0


def cut_in_two(rows):
    train, held_out = rows[: len(rows) // 3], rows[len(rows) // 3 :]
    part = partition_all(train, 2)[1]
    return held_out, part.centroids, gaps_of(train, part.labels, held_out, part.centroids)[1]


def both_p_values(rows, num_draws):
    cut, rng, apart = cut_in_two(rows), np.random.default_rng(0), ~np.eye(2, dtype=bool)
    return (
        one_gaussian_p_value_of_two(*cut, rng, num_draws=num_draws),
        one_gaussian_p_value(*cut, apart, rng, num_draws=num_draws),
    )


def test_p_values_of_one_long_gaussian_are_uniform_enough():
    rng = np.random.default_rng(0)
    cuts = [cut_in_two(draw(900, 1, 4, shape="long", seed=i)[0]) for i in range(40)]
    p_values = [one_gaussian_p_value_of_two(*cut, rng) for cut in cuts]
    # The median of 40 uniform numbers has a standard deviation of 0.08.
    assert 0.25 < np.median(p_values) < 0.75
    assert min(p_values) > 1e-3


def test_two_clusters_are_told_from_one_gaussian_both_ways():
    assert max(both_p_values(draw(1500, 2, 8)[0], 99)) == 0.01


def test_the_quick_p_value_of_two_clusters_agrees_with_the_general_one():
    quick, general = both_p_values(draw(1500, 1, 8, shape="long", seed=5)[0], 499)
    # Monte Carlo: 0.022 each with 499 draws.
    assert quick == pytest.approx(general, abs=0.08)


def test_stability_of_the_same_partition_is_one_and_of_an_unrelated_one_low():
    rng = np.random.default_rng(0)
    same = measure_stability(np.array([[[60, 0], [0, 40]]] * 2), rng)
    assert same.prediction_strength == same.adjusted_rand == same.jaccard[0] == (1.0, (1.0, 1.0))
    other = measure_stability(np.array([[[30, 30], [20, 20]]]), rng)
    assert other.adjusted_rand.value == pytest.approx(0.0, abs=0.02)
    assert other.jaccard[1].value < 0.6


def test_intervals_hold_the_value_and_shrink_with_more_rows():
    rng = np.random.default_rng(0)
    few = measure_stability(np.array([[[27, 3], [2, 18]]]), rng).adjusted_rand
    many = measure_stability(100 * np.array([[[27, 3], [2, 18]]]), rng).adjusted_rand
    for measure in (few, many):
        assert measure.interval.low < measure.value < measure.interval.high
    assert np.ptp(many.interval) < 0.3 * np.ptp(few.interval)


def test_hennigs_words():
    words = [hennig(value) for value in (0.5, 0.7, 0.8, 0.9)]
    assert words[0] == "not stable"
    assert words[3] == "highly stable"
    assert len(set(words)) == 4


def test_silhouettes_equal_scikit_learns():
    rows, labels = draw(300, 4, 6)
    labelings = [labels, np.arange(300) % 2, np.where(np.arange(300) == 7, 5, labels % 2)]
    want = [silhouette_score(rows.astype(np.float64), each) for each in labelings]
    assert silhouettes(rows, labelings) == pytest.approx(want, abs=1e-6)
    assert np.isnan(silhouettes(rows, [np.zeros(300, int)])[0])


def test_elbow_and_gap_rules():
    assert elbow([100.0, 20.0, 15.0, 12.0, 10.0]) == 2
    assert elbow([1.0, 1.0, 1.0]) == 1
    assert gap_choice([(0.1, 0.1), (0.5, 0.1), (0.55, 0.1)]) == 2
    assert gap_choice([(0.1, 0.01), (0.5, 0.01), (0.9, 0.01)]) == 3


def test_the_gap_statistic_finds_three_round_clusters_and_needs_two_references():
    rows, _ = draw(300, 3, 3, accuracy=0.999)
    assert gap_choice(gap_statistic(rows, 5, np.random.default_rng(0))) == 3
    with pytest.raises(UserError, match="num_references=1"):
        gap_statistic(rows, 5, np.random.default_rng(0), num_references=1)


def test_a_split_remains_within_two_clusters_taken_as_one_and_not_within_one():
    rng = np.random.default_rng(0)
    rows, _ = draw(3000, 2, 6)
    sets = (rows[:1000], rows[1000:2000], rows[2000:])
    whole = [np.zeros(1000, int)] * 3
    split = split_within(sets, whole, 0, rng)
    assert split.stability > 0.9
    assert split.gap_p_value < 1e-3
    assert split.gaussian_p_value < 1e-3
    part = partition_all(sets[0], 2)[1]
    halves = [assign(each, part.centroids) for each in sets]
    assert all(split_within(sets, halves, c, rng).gap_p_value > 0.01 for c in (0, 1))
    assert split_within(sets, [np.arange(1000)] * 3, 4, rng) is None


def test_the_tree_names_the_parent_that_holds_most():
    two, three = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 2, 1, 1, 1])
    tree = split_tree([np.zeros(6, int), two, three])
    assert [(b.number, b.cluster, b.parent) for b in tree] == [
        (2, 0, 0), (2, 1, 0), (3, 0, 0), (3, 1, 1), (3, 2, 0)
    ]  # fmt: skip
    assert tree[3].from_parent == pytest.approx(2 / 3)
