"""Streamed k-means equals k-means in memory, whatever the block and wherever the rows come from."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgjax.clustering import kmeans
from cgjax.clustering.kmeans.sources import ArrayRows
from cgjax.clustering.kmeans.streamed import extend
from cgjax.errors import Interrupted, UserError
from cgjax.runtime.address import COORDINATOR, PROCESS, PROCESSES
from cgjax.runtime.mesh import data_mesh
from launch.local import free_port
from tests.clustering.kmeans.device_cases import points
from tests.clustering.kmeans.process_cases import save_expected


class CountedRows(ArrayRows):
    """Rows that remember how often each of them was read."""

    def __init__(self, rows, block):
        super().__init__(rows, block)
        self.reads = np.zeros(len(rows), int)

    def read(self, index):
        self.reads[index] += 1
        return super().read(index)


def assert_same(streamed, held, rtol=1e-5):
    np.testing.assert_array_equal(streamed.labels, held.labels)
    np.testing.assert_array_equal(streamed.counts, held.counts)
    # Distances from another origin, sums in another order.
    scale = float(jnp.max(jnp.abs(held.centroids)))
    np.testing.assert_allclose(streamed.centroids, held.centroids, rtol=rtol, atol=rtol * scale)
    np.testing.assert_allclose(streamed.inertia, held.inertia, rtol=rtol, atol=1e-6)
    np.testing.assert_allclose(streamed.inertias, held.inertias, rtol=rtol, atol=1e-6)
    np.testing.assert_allclose(streamed.margins, held.margins, rtol=1e-3, atol=10 * rtol * scale)
    # Restarts that end in the same clustering tie up to rounding: either may be the one kept.
    if int(jnp.argmin(streamed.inertias)) == int(jnp.argmin(held.inertias)):
        assert int(streamed.num_iter) == int(held.num_iter)
        assert bool(streamed.converged) == bool(held.converged)


@pytest.fixture(scope="module")
def held():
    return kmeans(points(203), 3, key=jax.random.key(0), num_init=5)


@pytest.mark.parametrize("block", [1, 64, 203, 1000])
def test_the_block_does_not_change_the_result(block, held, key):
    assert_same(kmeans(ArrayRows(points(203), block), 3, key=key, num_init=5), held)


@pytest.mark.parametrize(
    ("k", "options"),
    [
        (1, {}),
        (2, {"init": "random", "num_init": 3}),
        (3, {"init": points(203)[:3], "max_iter": 2}),
        (3, {"init": np.array([[0.0] * 5, [50.0] * 5, [99.0] * 5]), "max_iter": 1}),
    ],
    ids=["mean", "random rows", "given, not converged", "given, empty clusters"],
)
def test_every_start_gives_the_result_of_memory(k, options, key):
    streamed = kmeans(ArrayRows(points(203), 64), k, key=key, **options)
    assert_same(streamed, kmeans(points(203), k, key=key, **options))


def test_far_from_the_origin_the_labels_are_those_of_memory(key):
    data = points(203) + np.float32(1000.0)
    # The coordinates themselves have 4 digits behind the point.
    assert_same(kmeans(ArrayRows(data, 64), 3, key=key), kmeans(data, 3, key=key), rtol=1e-4)


def test_rows_whose_label_cannot_change_are_not_read_again(key):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 1000)
    data = (rng.normal(size=(1000, 4)) + 20.0 * truth[:, None]).astype(np.float32)
    source = CountedRows(data, 100)
    result = kmeans(source, 2, key=key, num_init=8, tol=0.0)
    assert int(result.num_iter) >= 2
    # The first block, two centres, the first iteration, the assignment: and no more.
    assert source.reads.mean() < 4.5


@pytest.mark.parametrize("num_init", [1, 16])
def test_several_centres_share_a_read_as_in_memory(num_init, key):
    seen = []
    data = points(203)
    options = {"key": key, "num_init": num_init, "max_iter": 3}
    streamed = kmeans(
        ArrayRows(data, 64), 6, on_block=lambda what, *_: seen.append(what), **options
    )
    assert_same(streamed, kmeans(data, 6, **options), rtol=1e-4)
    passes = {what for what in seen if what.startswith("k-means++")}
    # One for the first centre; alone, a restart has candidates enough for several in each other.
    assert len(passes) == 6 if num_init == 16 else len(passes) <= 4


def test_a_file_that_is_mapped_is_a_source(tmp_path, held, key):
    np.save(tmp_path / "features.npy", points(203))
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    assert_same(kmeans(ArrayRows(mapped, 50), 3, key=key, num_init=5), held)


def test_a_fit_reports_progress_and_stops_between_blocks(key):
    seen = []

    def stop(what, done, total):
        seen.append((what, done, total))
        if what == "iteration 1" and done == 128:
            raise Interrupted("asked to")

    with pytest.raises(Interrupted):
        kmeans(ArrayRows(points(203), 64), 2, key=key, num_init=2, on_block=stop)
    assert ("k-means++ 2/2", 203, 203) in seen
    assert seen[-1] == ("iteration 1", 128, 203)


def test_rows_assigned_later_join_the_clusters(key):
    data = points(203)
    few = kmeans(data[:80], 3, key=key)
    result = extend(few, ArrayRows(data[80:], 50))
    assert result.counts.tolist() == sorted(result.counts.tolist(), reverse=True)
    assert int(result.counts.sum()) == 203
    distance = ((data[:, None] - np.asarray(result.centroids)[None]) ** 2).sum(-1)
    np.testing.assert_array_equal(result.labels, distance.argmin(1))
    np.testing.assert_allclose(result.inertia, distance.min(1).sum(), rtol=1e-5)
    two = np.sort(np.sqrt(distance), axis=1)[:, :2]
    np.testing.assert_allclose(result.margins, two[:, 1] - two[:, 0], atol=1e-4)


def test_weights_leave_padding_out_and_a_mesh_of_one_process_is_one(key):
    padded = np.concatenate([np.full((7, 5), 1e3, np.float32), points(203)])
    result = kmeans(
        ArrayRows(padded, 64), 3, key=key, weights=np.arange(210) >= 7, mesh=data_mesh(2)
    )
    np.testing.assert_array_equal(result.labels[7:], kmeans(points(203), 3, key=key).labels)
    assert int(result.counts.sum()) == 203


def test_two_processes_stream_to_the_result_of_one(tmp_path):
    save_expected(tmp_path / "expected.npz")
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=1"
    same = {COORDINATOR: f"127.0.0.1:{free_port()}", PROCESSES: "2", "XLA_FLAGS": flags}
    started = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.clustering.kmeans.process_cases",
                tmp_path / "expected.npz",
            ],
            env=os.environ | same | {PROCESS: str(index), "JAX_PLATFORMS": "cpu"},
            cwd=Path(__file__).parents[3],
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    said = [process.communicate(timeout=300)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], said


@pytest.mark.parametrize("row", [3, 171])
@pytest.mark.parametrize("init", ["k-means++", "random"])
def test_bad_rows_are_named(row, init, key):
    data = points(203)
    data[row, 1] = np.inf
    with pytest.raises(UserError, match=f"1 features hold NaN or Inf .rows {row}.:"):
        kmeans(ArrayRows(data, 64), 2, key=key, init=init, num_init=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "faiss"}, "cluster.memory_mb"),
        ({"num_init": 0}, "num_init=0"),
        ({"num_clusters": 204}, "only 203 features"),
        ({"init": np.zeros((2, 7))}, r"\(2, 5\)"),
    ],
)
def test_impossible_options_are_refused(options, message, key):
    with pytest.raises(UserError, match=message):
        kmeans(ArrayRows(points(203), 64), **({"num_clusters": 2, "key": key} | options))
