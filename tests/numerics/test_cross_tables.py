"""Similarities of partitions, compared with scikit-learn and the definitions."""

import numpy as np
import pytest
from sklearn import metrics
from sklearn.metrics import adjusted_rand_score

from cgjax.numerics.cross_tables import (
    adjusted_rand,
    cross_table,
    jaccard,
    mutual_information,
    normalized_mutual_information,
    prediction_strength,
)


def labels(seed, num=200, k=4):
    return np.random.default_rng(seed).integers(0, k, num)


@pytest.mark.parametrize("noise", [0.0, 0.3, 1.0])
def test_adjusted_rand_equals_scikit_learns(noise):
    first = labels(0)
    second = np.where(np.random.default_rng(1).random(200) < noise, labels(2), first)
    got = adjusted_rand(cross_table(first, second, (4, 4)))
    assert float(got) == pytest.approx(adjusted_rand_score(first, second), abs=1e-12)


def test_adjusted_rand_of_one_cluster_against_several_is_zero():
    assert float(adjusted_rand(np.array([[3, 4, 5]]))) == 0.0
    assert float(adjusted_rand(np.array([[12]]))) == 1.0


def test_a_stack_of_tables_gives_the_same_as_each_table_alone():
    tables = np.stack([cross_table(labels(i), labels(i + 9), (4, 4)) for i in range(3)])
    for measure in (adjusted_rand, prediction_strength, jaccard):
        np.testing.assert_array_equal(measure(tables), [measure(table) for table in tables])


def test_prediction_strength_is_the_share_of_pairs_kept_in_the_worst_cluster():
    # Cluster 0 of the second is whole; of cluster 1's 6 pairs only 2 lie in one part.
    table = np.array([[3, 2], [0, 2]])
    assert float(prediction_strength(table)) == pytest.approx(2 / 6)


def test_prediction_strength_does_not_count_clusters_without_pairs():
    assert float(prediction_strength(np.array([[5, 1, 0]]))) == 1.0


def test_jaccard_is_that_of_the_most_similar_cluster():
    table = np.array([[4, 1], [0, 5], [0, 0]])
    assert jaccard(table).tolist() == [4 / 5, 5 / 6, 0.0]


def test_mutual_information_equals_scikit_learns():
    rng = np.random.default_rng(1)
    first = rng.integers(0, 4, 300)
    second = np.where(rng.random(300) < 0.6, first % 3, rng.integers(0, 3, 300))
    table = cross_table(first, second, (4, 3))
    expected = metrics.mutual_info_score(first, second)
    assert mutual_information(table) == pytest.approx(expected, abs=1e-9)
    expected = metrics.normalized_mutual_info_score(first, second)
    assert normalized_mutual_information(table) == pytest.approx(expected, abs=1e-9)
