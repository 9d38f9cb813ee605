"""Labels from clusters: induced means, matching, empty clusters, the online variant."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans

from cgjax.endtoend.data import Points
from cgjax.endtoend.experiment import Experiment
from cgjax.endtoend.methods.base import label_all
from cgjax.endtoend.methods.selfcond import (
    Online,
    SelfConditioned,
    induced_means,
    matched_order,
)
from cgjax.endtoend.state import Partition
from tests.endtoend.tiny_runs import settings

KEY = jax.random.key(0)


def groups(num=4, each=50, seed=0):
    """Rows in well-separated groups, in random order, with their group."""
    rng = np.random.default_rng(seed)
    which = rng.permutation(np.repeat(np.arange(num), each))
    rows = 10.0 * np.eye(num)[which] + rng.normal(size=(num * each, num))
    return Points(jnp.asarray(rows, jnp.float32), jnp.asarray(which, jnp.int32))


def same(rows):
    return rows


def test_induced_means_are_the_means_of_the_old_partition_in_the_new_features():
    points = groups()
    labels = np.random.default_rng(1).integers(0, 3, len(points.rows))
    found = induced_means(KEY, points.rows, labels, 3)
    expected = [np.asarray(points.rows)[labels == c].mean(axis=0) for c in range(3)]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_empty_cluster_starts_at_a_row_of_its_own():
    points = groups()
    found = induced_means(KEY, points.rows, np.zeros(len(points.rows), int), 3)
    rows = {tuple(row) for row in np.asarray(points.rows).tolist()}
    assert {tuple(row) for row in found[1:].tolist()} <= rows
    assert tuple(found[1].tolist()) != tuple(found[2].tolist())


def test_matching_changes_the_fewest_labels_of_all_permutations():
    rng = np.random.default_rng(2)
    old, new = rng.integers(0, 5, 300), rng.integers(0, 5, 300)
    order = matched_order(new, old, 5)
    renamed = np.argsort(order)[new]
    table = np.zeros((5, 5))
    np.add.at(table, (old, new), 1)
    best = table[linear_sum_assignment(-table)].sum()
    assert (renamed == old).sum() == best


@pytest.mark.parametrize("initialise", [True, False])
def test_groups_keep_their_labels_when_clustered_again(initialise):
    points = groups()
    method = SelfConditioned(4, num=100, initialise=initialise)
    permuted = jnp.asarray([2, 0, 3, 1], jnp.int32)[points.classes]
    old = Partition.clustered(permuted, np.zeros((4, 4), np.float32))
    found = method.recluster(KEY, points, same, old)
    np.testing.assert_array_equal(found.labels, permuted)


def test_without_initialising_and_matching_the_labels_are_k_means_own():
    points = groups()
    permuted = jnp.asarray([2, 0, 3, 1], jnp.int32)[points.classes]
    old = Partition.clustered(permuted, np.zeros((4, 4), np.float32))
    method = SelfConditioned(4, num=200, initialise=False, match=False)
    found = np.asarray(method.recluster(KEY, points, same, old).labels)
    pairs = {(int(a), int(b)) for a, b in zip(found, permuted, strict=True)}
    assert len(pairs) == 4  # the same groups
    assert not np.array_equal(found, permuted)  # under other names


def test_without_matching_clusters_keep_the_label_of_their_initial_mean():
    points = groups()
    permuted = jnp.asarray([2, 0, 3, 1], jnp.int32)[points.classes]
    old = Partition.clustered(permuted, np.zeros((4, 4), np.float32))
    found = SelfConditioned(4, num=200, match=False).recluster(KEY, points, same, old)
    np.testing.assert_array_equal(found.labels, permuted)


def test_the_first_labels_are_k_means_of_the_features_or_the_true_classes():
    points = groups()
    found = SelfConditioned(4, num=200).start(KEY, points, same)
    peer = KMeans(4, n_init=5, random_state=0).fit_predict(np.asarray(points.rows))
    assert len({(int(a), int(b)) for a, b in zip(found.labels, peer, strict=True)}) == 4
    true = SelfConditioned(4, num=200, supervised=True).start(KEY, points, same)
    np.testing.assert_array_equal(true.labels, points.classes)


def test_rows_that_were_not_clustered_get_the_label_of_the_nearest_mean():
    points = groups()
    found = SelfConditioned(4, num=60).start(KEY, points, same)
    distances = np.linalg.norm(np.asarray(points.rows)[:, None] - found.centroids[None], axis=2)
    np.testing.assert_array_equal(found.labels, distances.argmin(axis=1))


def test_clusterings_happen_at_every_multiple():
    method = SelfConditioned(4, every=30)
    assert [method.next_reclustering(i) for i in (0, 29, 30, 31)] == [30, 30, 60, 60]
    assert [Online(4).next_reclustering(i) for i in (0, 1, 50)] == [1, None, None]


def test_online_centroids_are_the_means_of_the_rows_that_moved_them():
    points = groups()
    begin = 10.0 * np.eye(4, dtype=np.float32) + 1
    partition = Partition.clustered(np.zeros(200, np.int32), begin)
    method = Online(4)
    for batch in np.split(np.arange(200), 10):
        made = points.rows[batch]
        labels, partition = method.label(KEY, partition, jnp.asarray(batch), lambda m=made: m)
        np.testing.assert_array_equal(labels, points.classes[batch])
    rows = np.asarray(points.rows)
    expected = [rows[np.asarray(points.classes) == c].mean(axis=0) for c in range(4)]
    np.testing.assert_allclose(partition.centroids, expected, atol=1e-4)
    np.testing.assert_array_equal(partition.counts, [50, 50, 50, 50])
    np.testing.assert_array_equal(partition.labels, points.classes)


def test_the_online_variant_is_scored_by_the_rows_current_labels():
    changes = {"train__trials": 2, "train__together": True, "train__learning_rate": 0.01}
    experiment = Experiment(settings(train__method="scgan_online", **changes))
    states = experiment.init()
    for begin, end in ((0, 1), (1, 12)):
        states, _ = experiment.advance(states, begin, end)
    kept = np.concatenate([np.asarray(state.partition.labels).ravel() for state in states])
    each = experiment.per_trial(states)
    for state, points in zip(each, experiment.points, strict=True):
        features = experiment.trainer.features(state.discriminator.arrays)
        now = label_all(points.rows, features, state.partition.centroids)
        np.testing.assert_array_equal(state.partition.labels, now.labels)
        assert float(state.partition.counts.sum()) > 0
    assert not np.array_equal(kept, np.concatenate([state.partition.labels for state in each]))


def test_k_means_starts_at_the_induced_means_and_keeps_a_partition_it_would_not_find():
    rng = np.random.default_rng(4)
    corners = np.array([[3, 1], [3, -1], [-3, 1], [-3, -1]], np.float32)
    which = np.arange(200) % 4
    rows = jnp.asarray(corners[which] + 0.1 * rng.normal(size=(200, 2)), jnp.float32)
    points = Points(rows, jnp.zeros(200, jnp.int32))
    # Upper against lower ones: each row is nearer to its own mean, though left against right is
    # the better partition.
    upper = which % 2
    old = Partition.clustered(upper.astype(np.int32), np.zeros((2, 2), np.float32))
    found = SelfConditioned(2, num=200).recluster(KEY, points, same, old)
    np.testing.assert_array_equal(found.labels, upper)
    np.testing.assert_allclose(found.centroids, induced_means(KEY, rows, upper, 2), atol=1e-5)
    alone = SelfConditioned(2, num=200, initialise=False).recluster(KEY, points, same, old)
    assert set(np.asarray(alone.labels)[which < 2]) != set(np.asarray(alone.labels)[which >= 2])
    np.testing.assert_allclose(np.abs(alone.centroids), [[3, 0], [3, 0]], atol=0.1)
