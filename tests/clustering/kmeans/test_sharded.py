"""k-means over several devices equals one device."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from cgjax.clustering import kmeans
from cgjax.clustering.kmeans import gram
from cgjax.errors import UserError
from cgjax.runtime.mesh import DATA_AXIS, accelerator_mesh, data_mesh, shard_rows
from tests.clustering.kmeans.device_cases import compare, points
from tests.xla_flags import QUICK


@pytest.mark.parametrize(("num_devices", "n"), [(1, 121), (2, 120), (3, 121), (4, 121)])
def test_several_devices_give_the_labels_of_one(num_devices, n):
    compare(num_devices, n, 3)


@pytest.mark.parametrize(("n", "k"), [(1, 1), (3, 2)])
def test_fewer_rows_than_devices(n, k):
    compare(4, n, k)


def test_random_rows_and_given_centroids_are_the_same_starts_on_every_device(key):
    compare(3, 100, 4, init="random")
    compare(3, 100, 4, init=points(100)[:4])


@pytest.mark.parametrize(("k", "init"), [(2, "k-means++"), (3, "random")])
def test_products_that_are_tracked_between_reads_are_those_of_one_device(k, init):
    compare(3, 121, k, dim=640, init=init)


def test_several_numbers_of_clusters_are_those_of_one_device():
    compare(3, 121, (2, 4))


def test_many_clusters_are_those_of_one_device():
    compare(3, 512, 70)


def test_eight_devices_give_the_labels_of_one():
    code = "from tests.clustering.kmeans.device_cases import compare as c; c(8, 123, 3); c(8, 5, 2)"
    flags = f"{QUICK} --xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_empty_clusters_take_the_farthest_points_of_all_devices(key):
    data = np.array([[0.0], [1.0], [2.0], [10.0], [20.0]], np.float32)
    starts = np.array([[1.0], [1000.0], [2000.0]])
    one = kmeans(data, 3, key=key, init=starts, max_iter=1)
    many = kmeans(data, 3, key=key, init=starts, max_iter=1, mesh=data_mesh(3))
    np.testing.assert_allclose(many.centroids, one.centroids, rtol=1e-6)
    np.testing.assert_array_equal(many.labels, one.labels)
    assert int(many.counts.min()) > 0


def test_rows_that_are_split_stay_so_without_a_mesh(key, monkeypatch):
    """Their inner products would need all of them in one place."""
    data = points(40, 333)
    one = kmeans(data, 2, key=key)
    monkeypatch.setattr(gram, "_LARGE_MB", 0)
    monkeypatch.setattr(gram, "fit_in_memory", None)
    many = kmeans(shard_rows(data, data_mesh(4))[0], 2, key=key)
    np.testing.assert_array_equal(many.labels, one.labels)
    np.testing.assert_allclose(many.centroids, one.centroids, rtol=1e-5, atol=1e-5)


def test_rows_that_are_split_already_with_padding_anywhere(key):
    """What several processes hand over: each its own rows, filled up with rows of weight 0."""
    data, mesh = points(97), data_mesh(4)
    one = kmeans(data, 3, key=key)
    parts = np.array_split(data, 4)
    padded = np.stack([np.pad(p, [(0, 30 - len(p)), (0, 0)], constant_values=9) for p in parts])
    weights = np.concatenate([(np.arange(30) < len(p)).astype(np.float32) for p in parts])
    sharding = NamedSharding(mesh, P(DATA_AXIS))
    features = jax.device_put(padded.reshape(120, 5), sharding)
    many = kmeans(features, 3, key=key, mesh=mesh, weights=jax.device_put(weights, sharding))
    assert many.labels.sharding.is_equivalent_to(sharding, 1)
    np.testing.assert_array_equal(np.asarray(many.labels)[weights > 0], one.labels)
    np.testing.assert_allclose(many.centroids, one.centroids, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(many.counts, one.counts)


def test_weights_without_a_mesh_leave_padding_out(key):
    data = points(50)
    padded = np.concatenate([data, np.full((14, 5), 7.0, np.float32)])
    result = kmeans(padded, 3, key=key, weights=np.arange(64) < 50)
    np.testing.assert_array_equal(result.labels[:50], kmeans(data, 3, key=key).labels)
    assert int(result.counts.sum()) == 50


def test_a_bad_row_is_named_wherever_it_lies(key):
    data = points(50)
    data[41, 2] = np.nan
    with pytest.raises(UserError, match="rows 41"):
        kmeans(data, 2, key=key, mesh=data_mesh(4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": np.ones(3)}, r"weights have shape \(3,\)"),
        ({"weights": np.arange(50) < 1}, "only 1 features"),
        ({"weights": np.ones(50), "backend": "faiss"}, "backend=jax"),
    ],
)
def test_impossible_weights_are_refused(options, message, key):
    with pytest.raises(UserError, match=message):
        kmeans(points(50), 2, key=key, **options)


def test_rows_reach_their_devices_whole():
    value = np.arange(22.0, dtype=np.float32).reshape(11, 2)
    for given in (value, jnp.asarray(value)):
        rows, weights = shard_rows(given, data_mesh(4))
        assert {shard.data.shape for shard in rows.addressable_shards} == {(3, 2)}
        np.testing.assert_array_equal(rows, np.pad(value, [(0, 1), (0, 0)]))
        assert weights.tolist() == [1.0] * 11 + [0.0]


def test_the_cores_of_a_cpu_are_not_taken_for_accelerators():
    assert len(jax.devices()) == 4
    assert accelerator_mesh() is None
