"""Agreement scores equal scikit-learn's, each alone and all together."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from cgjax.errors import UserError
from cgjax.evaluation import agreement

two_partitions = st.integers(1, 40).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 4), min_size=n, max_size=n),
        st.lists(st.integers(0, 3), min_size=n, max_size=n),
    )
)


@settings(max_examples=80, deadline=None)
@given(two_partitions)
@pytest.mark.parametrize("average", ["arithmetic", "geometric"])
def test_nmi_equals_scikit_learns(average, pair):
    labels, classes = pair
    want = metrics.normalized_mutual_info_score(classes, labels, average_method=average)
    # scikit-learn returns 0 if the geometric mean vanishes; both clip rounding errors at zero.
    assert agreement.nmi(labels, classes, average=average) == pytest.approx(want, abs=1e-7)


@settings(max_examples=80, deadline=None)
@given(two_partitions)
def test_adjusted_rand_index_equals_scikit_learns(pair):
    labels, classes = pair
    want = metrics.adjusted_rand_score(classes, labels)
    assert agreement.adjusted_rand_index(labels, classes) == pytest.approx(want, abs=1e-12)


def test_adjusted_rand_index_of_many_points_does_not_overflow():
    rng = np.random.default_rng(0)
    labels, classes = rng.integers(0, 2, 300_000), rng.integers(0, 2, 300_000)
    want = metrics.adjusted_rand_score(classes, labels)
    assert agreement.adjusted_rand_index(labels, classes) == pytest.approx(want, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(two_partitions)
def test_purities_equal_the_sums_over_scikit_learns_table(pair):
    labels, classes = pair
    table = metrics.cluster.contingency_matrix(classes, labels)  # (classes, clusters)
    assert agreement.purity(labels, classes) == pytest.approx(table.max(axis=0).sum() / len(labels))
    assert agreement.inverse_purity(labels, classes) == pytest.approx(
        table.max(axis=1).sum() / len(labels)
    )
    assert agreement.mutual_information(labels, classes) == pytest.approx(
        metrics.mutual_info_score(classes, labels), abs=1e-12
    )


def test_purity_and_inverse_purity_are_distinguished():
    labels, classes = np.arange(6), np.array([0, 0, 0, 1, 1, 1])  # every point its own cluster
    assert agreement.purity(labels, classes) == 1
    assert agreement.inverse_purity(labels, classes) == pytest.approx(2 / 6)


@settings(max_examples=60, deadline=None)
@given(two_partitions)
def test_matched_accuracy_is_the_best_over_all_renamings(pair):
    labels, classes = pair
    names = range(5)
    want = max(
        np.mean([renamed[label] == true for label, true in zip(labels, classes, strict=True)])
        for renamed in itertools.permutations(names)
    )
    assert agreement.matched_accuracy(labels, classes) == pytest.approx(want)


def test_scores_do_not_change_when_clusters_are_renamed():
    rng = np.random.default_rng(1)
    labels, classes = rng.integers(0, 4, 200), rng.integers(0, 3, 200)
    renamed = np.array(["d", "a", "c", "b"])[labels]
    for score in (
        agreement.purity,
        agreement.inverse_purity,
        agreement.nmi,
        agreement.adjusted_rand_index,
        agreement.matched_accuracy,
    ):
        assert score(renamed, classes) == pytest.approx(score(labels, classes), abs=1e-12)


def test_random_partitions_score_at_chance_level():
    rng = np.random.default_rng(2)
    labels, classes = rng.integers(0, 2, 4000), rng.integers(0, 2, 4000)
    assert abs(agreement.adjusted_rand_index(labels, classes)) < 0.01
    assert agreement.matched_accuracy(labels, classes) < 0.55


@settings(max_examples=60, deadline=None)
@given(two_partitions)
def test_the_scores_of_a_summary_are_those_of_single_functions(pair):
    assert agreement.agreement_scores(*pair) == {
        "nmi_arithmetic": agreement.nmi(*pair),
        "nmi_geometric": agreement.nmi(*pair, average="geometric"),
        "adjusted_rand": agreement.adjusted_rand_index(*pair),
        "purity": agreement.purity(*pair),
        "inverse_purity": agreement.inverse_purity(*pair),
        "accuracy": agreement.matched_accuracy(*pair),
    }


@pytest.mark.usefixtures("untyped")
def test_agreement_refuses_arrays_of_different_lengths():
    with pytest.raises(UserError, match=r"\(3,\).*\(2,\)"):
        agreement.nmi([0, 1, 1], [0, 1])
    with pytest.raises(UserError, match="arithmetic"):
        agreement.nmi([0, 1], [0, 1], average="harmonic")
