"""Partitions from one tree, valleys, the null of one Gaussian, stability, criteria and splits."""

import jax
import numpy as np
import pytest
from scipy.stats import kstest
from sklearn.metrics import silhouette_score

from cgjax.clustering import kmeans
from cgjax.clustering.selection.criteria import gap_statistic, silhouettes
from cgjax.clustering.selection.null import gaussian_p_values
from cgjax.clustering.selection.partitions import assign, inertia, partition_all, products
from cgjax.clustering.selection.stability import hennig, measure_stability
from cgjax.clustering.selection.valleys import find_groups, num_tests, valley_p_values
from cgjax.clustering.selection.within import splits_within
from cgjax.testing.clouds import make_clouds


def draw(num_rows, *args, seed=0, **kinds):
    return make_clouds(*args, **kinds).draw(np.random.default_rng(seed), num_rows)


def test_partitions_reach_the_objective_of_kmeans_with_ten_restarts():
    rows, _ = draw(600, 5, 8, ratio=10.0)
    best = float(kmeans(rows, 5, key=jax.random.key(0)).inertia)
    assert inertia(rows, partition_all(rows, 5)[4]) <= 1.001 * best


def test_the_centroid_of_one_cluster_is_the_mean_and_shares_descend():
    rows, _ = draw(500, 3, 8, ratio=5.0)
    one, *others = partition_all(rows, 4)
    np.testing.assert_allclose(one.centroids[0], rows.mean(axis=0), atol=1e-5)
    for part in others:
        assert (np.diff(np.bincount(part.labels)) <= 0).all()


def test_rows_that_coincide_are_clustered():
    rows = np.repeat(np.array([[0.0], [1.0]], np.float32), 20, axis=0)
    parts = partition_all(rows, 4)
    assert inertia(rows, parts[1]) == 0.0
    assert all(np.isfinite(part.centroids).all() for part in parts)


def test_products_in_blocks_equal_the_product():
    rows = np.random.default_rng(0).normal(size=(300, 7)).astype(np.float32)
    np.testing.assert_allclose(products(rows, rows[:5]), rows @ rows[:5].T, rtol=1e-5, atol=1e-5)
    assert products(rows[:3], rows[:5]).shape == (3, 5)


CLOUDS_WITHOUT_VALLEYS = {
    "round": lambda rng: rng.normal(size=(3000, 6)),
    "ten times as long": lambda rng: rng.normal(size=(3000, 6)) * [10, 1, 1, 1, 1, 1],
    "a flat line": lambda rng: rng.uniform(size=(3000, 1)),
    "flat and long": lambda rng: rng.uniform(size=(3000, 6)) * [10, 1, 1, 1, 1, 1],
    "skewed": lambda rng: rng.exponential(size=(3000, 6)),
    "long tails": lambda rng: rng.standard_t(4, size=(3000, 6)),
}


def count_groups(rows, most, alpha=0.05):
    parts = partition_all(rows[: len(rows) // 3], most)
    p_values = [valley_p_values(rows[len(rows) // 3 :], part.centroids) for part in parts]
    return [1 + int(groups.max()) for groups in find_groups(p_values, alpha)]


@pytest.mark.parametrize("cloud", CLOUDS_WITHOUT_VALLEYS)
def test_a_cloud_with_one_peak_has_no_valley_whatever_its_shape(cloud):
    rows = CLOUDS_WITHOUT_VALLEYS[cloud](np.random.default_rng(3)).astype(np.float32)
    assert count_groups(rows, 16) == [1] * 16


def test_p_values_of_no_valley_are_at_most_uniform_where_a_cloud_is_flat():
    rng = np.random.default_rng(0)
    centroids = np.array([[0.3], [0.7]], np.float32)
    p_values = [
        valley_p_values(rng.uniform(size=(400, 1)).astype(np.float32), centroids)[0, 1]
        for _ in range(300)
    ]
    for level in (0.01, 0.05, 0.2):
        # Three standard deviations of a share of 300 above what is allowed.
        assert np.mean(np.array(p_values) <= level) <= level + 3 * np.sqrt(level / 300)


def test_clusters_cut_in_parts_are_joined_again():
    rows, _ = draw(4000, 3, 16, ratio=4.0)
    # More parts leave fewer rows for each valley; never do they make more groups.
    num_groups = count_groups(rows, 8)
    assert num_groups[:3] == [1, 2, 3]
    assert max(num_groups) == 3


def test_the_cells_of_a_round_cloud_are_one_group():
    rows, _ = draw(10_000, 1, 64)  # between two of many cells of it lie few rows of both
    assert count_groups(rows, 4) == [1] * 4


def test_the_level_steps_down_with_the_groups_that_are_sure():
    assert [num_tests(g, 4) for g in (1, 2, 3)] == [6, 3, 1]
    nan = np.nan
    chain = np.array([[nan, 1e-9, nan], [1e-9, nan, 0.03], [nan, 0.03, nan]])
    two = np.array([[nan, 1e-9], [1e-9, nan]])
    # 0.03 is too much among three tests, and not once two groups are sure and one test is left.
    assert find_groups([np.array([[nan]]), two, chain], 0.05)[2].tolist() == [0, 1, 2]
    doubtful = np.where(chain == 1e-9, 0.03, chain)
    assert find_groups([np.array([[nan]]), two + 1, doubtful], 0.05)[2].tolist() == [0, 0, 0]


def test_p_values_of_one_gaussian_are_uniform_whatever_its_covariance():
    rng = np.random.default_rng(0)
    p_values = []
    for i in range(60):
        rows, _ = draw(900, 1, 4, shape="long", seed=i)
        centroids = [part.centroids for part in partition_all(rows[:300], 3)]
        p_values.append(gaussian_p_values(rows[300:], centroids, rng)[1:])
    assert kstest(np.array(p_values)[:, 0], "uniform").pvalue > 0.01
    assert kstest(np.array(p_values)[:, 1], "uniform").pvalue > 0.01


def test_two_clusters_are_told_from_one_gaussian():
    rows, _ = draw(1500, 2, 8)
    centroids = [part.centroids for part in partition_all(rows[:500], 2)]
    one, two = gaussian_p_values(rows[500:], centroids, np.random.default_rng(0))
    assert np.isnan(one)
    assert two < 1e-6


def test_stability_of_the_same_partition_is_one_and_of_an_unrelated_one_low():
    rng = np.random.default_rng(0)
    same = measure_stability(np.array([[[60, 0], [0, 40]]] * 2), rng)
    assert same.prediction_strength == same.adjusted_rand == same.jaccard[0] == (1.0, 1.0, 1.0)
    other = measure_stability(np.array([[[30, 30], [20, 20]]]), rng)
    assert other.adjusted_rand.value == pytest.approx(0.0, abs=0.02)
    assert other.jaccard[1].value < 0.6


def test_intervals_hold_the_value_and_shrink_with_more_rows():
    rng = np.random.default_rng(0)
    few = measure_stability(np.array([[[27, 3], [2, 18]]]), rng).adjusted_rand
    many = measure_stability(100 * np.array([[[27, 3], [2, 18]]]), rng).adjusted_rand
    for measure in (few, many):
        assert measure.low < measure.value < measure.high
    assert many.high - many.low < 0.3 * (few.high - few.low)


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


def test_the_gap_statistic_finds_three_round_clusters():
    rows, _ = draw(300, 3, 3, accuracy=0.999)
    gaps, spreads = np.transpose(gap_statistic(rows, 5, np.random.default_rng(0)))
    assert (gaps[:-1] >= gaps[1:] - spreads[1:]).argmax() == 2


def test_a_split_remains_within_two_clusters_taken_as_one_and_not_within_one():
    rows, _ = draw(3000, 2, 6)
    sets = (rows[:1000], rows[1000:2000], rows[2000:])
    (split,) = splits_within(sets, [np.zeros(1000, int)] * 3, 1)
    assert split.stability > 0.9
    assert split.p_value < 1e-3
    part = partition_all(sets[0], 2)[1]
    halves = [assign(each, part.centroids) for each in sets]
    assert all(split.p_value > 0.05 for split in splits_within(sets, halves, 2))
    assert splits_within(sets, [np.arange(1000)] * 3, 3) == [None] * 3
