"""Clustering by inner products equals clustering in memory, and is chosen where it is cheaper."""

import jax
import numpy as np
import pytest

from cgjax.clustering import kmeans
from cgjax.clustering.assignment import assign
from cgjax.clustering.kmeans import gram
from cgjax.clustering.kmeans.options import Options
from cgjax.clustering.kmeans.sources import ArrayRows
from cgjax.errors import Interrupted, UserError
from tests.clustering.kmeans.helpers import tolerance_between
from tests.clustering.kmeans.test_streamed import assert_same

NUM, DIM = 60, 333


class CountedColumns(ArrayRows):
    """Rows that remember how many numbers were read as columns, and how many rows as rows."""

    def __init__(self, rows, block=16):
        super().__init__(rows, block)
        self.columns = self.rows = 0

    def read(self, index):
        self.rows += len(index)
        return super().read(index)

    def read_columns(self, begin, out):
        self.columns += out.shape[1]
        super().read_columns(begin, out)


def noise(num=NUM, seed=0):
    return np.random.default_rng(seed).normal(size=(num, DIM)).astype(np.float32)


def planted(num=NUM):
    """Three groups of unequal size, and whose row is whose."""
    truth = np.sort(np.random.default_rng(1).choice(3, num, p=[0.5, 0.3, 0.2]))
    return noise(num) + 2.0 * noise(3, seed=2)[truth], truth


DATA = {
    "random": noise(),
    "clustered": planted()[0],
    "duplicates": np.repeat(noise(20), 3, axis=0),
    "of rank 4": noise()[:, :4] @ noise(4, seed=3),
    "far from the origin": planted()[0] + np.float32(1e3),
}


@pytest.fixture(autouse=True)
def _slabs_of_64_columns(monkeypatch):
    """So that there are several, and the last is not full."""
    monkeypatch.setattr(gram, "_SLAB_MB", NUM * 64 * 4 / 2**20)


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("options", [{}, {"init": "random", "max_iter": 2}], ids=["", "unfinished"])
def test_the_result_is_that_of_memory(name, options, key):
    options = {"key": key, "num_init": 4} | options
    source = CountedColumns(DATA[name])
    result = kmeans(source, 3, **options)
    assert source.columns == 2 * DIM, "one pass for the products, one to assign"
    assert source.rows == source.block, "the first block, for the origin"
    # Coordinates of 1,000 have 4 digits behind the point.
    rtol = 1e-4 if "far" in name else 1e-5
    assert_same(result, kmeans(DATA[name], 3, **options), rtol=rtol)
    labels, margins = assign(DATA[name], result.centroids)
    np.testing.assert_array_equal(result.labels, labels)
    np.testing.assert_allclose(result.margins, margins, rtol=1e-3, atol=1e-4)


def test_the_tolerance_is_a_share_of_the_mean_variance_of_a_feature(key):
    rows = DATA["of rank 4"]  # in many dimensions few rows settle at once
    options = {"key": key, "num_init": 1, "init": "random"}
    centroids = kmeans(rows, 3, max_iter=1, tol=0, **options).centroids
    tol, num_iter = tolerance_between(rows, np.asarray(centroids), 3, 4)
    source = CountedColumns(rows)
    result = kmeans(source, 3, tol=tol, **options)
    assert source.columns == 2 * DIM, "by inner products"
    assert (int(result.num_iter), bool(result.converged)) == (1 + num_iter, True)


def test_planted_groups_are_found(key):
    data, truth = planted()
    result = kmeans(CountedColumns(data), 3, key=key)
    np.testing.assert_array_equal(result.labels, truth)
    for c in range(3):
        np.testing.assert_allclose(result.centroids[c], data[truth == c].mean(0), atol=1e-5)


def test_a_file_that_is_mapped_is_read_by_columns(tmp_path, key):
    np.save(tmp_path / "features.npy", DATA["random"])
    source = CountedColumns(np.load(tmp_path / "features.npy", mmap_mode="r"))
    assert_same(kmeans(source, 2, key=key), kmeans(DATA["random"], 2, key=key))
    assert source.columns == 2 * DIM


@pytest.mark.parametrize("k", [1, 5])
def test_fewer_distinct_rows_than_clusters_reach_zero_inertia(k, key):
    data = np.repeat(noise(min(k, 4)), 15, axis=0)
    result = kmeans(CountedColumns(data), k, key=key, num_init=2)
    assert np.isfinite(result.centroids).all()
    assert float(result.inertia) < 1e-4
    assert result.counts.sum() == len(data)
    groups = np.asarray(result.labels).reshape(-1, 15)
    np.testing.assert_array_equal(groups, np.repeat(groups[:, :1], 15, axis=1))


def test_a_cluster_left_empty_by_the_last_step_is_on_a_row():
    """Random rows are copies of one; the only step gives all of them to the first cluster."""
    data = np.concatenate([np.repeat(noise(1), NUM - 2, axis=0), noise(2, seed=5)])
    key = jax.random.key(1)  # draws rows 26, 32 and 25
    options = {"key": key, "init": "random", "num_init": 1, "max_iter": 1}
    result = kmeans(CountedColumns(data), 3, **options)
    assert_same(result, kmeans(data, 3, **options))
    assert result.counts.tolist() == [NUM - 2, 1, 1]
    np.testing.assert_allclose(result.centroids[0], data.mean(0), atol=1e-5)
    np.testing.assert_allclose(result.centroids[1:], data[-2:], atol=1e-6)


def test_embedded_rows_keep_their_inner_products():
    data = DATA["of rank 4"].astype(np.float64)
    rows = gram.embed(data @ data.T)
    np.testing.assert_allclose(rows @ rows.T, data @ data.T, atol=1e-5 * (data**2).sum(1).max())
    assert not rows[:, 4:].any()


def test_the_rule_weighs_products_against_passes():
    options = Options((2,), num_init=10, max_iter=25)
    assert gram.is_cheaper(2_000, 524_288, options)
    assert not gram.is_cheaper(100_000, 524_288, options), "the products take longer"
    assert not gram.is_cheaper(2_000, 524_288, options._replace(max_iter=1))
    assert not gram.is_cheaper(203, 5, options), "the rows are shorter than their products"
    many = options._replace(numbers=(100,))
    assert not gram.is_cheaper(20_000, 10**6, many), "the products do not fit"


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("init", ["k-means++", "random"])
def test_rows_in_memory_may_be_clustered_by_inner_products_too(name, init, key, monkeypatch):
    data, options = DATA[name], {"key": key, "num_init": 4, "init": init}
    expected, calls = kmeans(data, (3, 2), **options), []
    monkeypatch.setattr(gram, "_LARGE_MB", 0)
    multiply = gram._multiply
    monkeypatch.setattr(gram, "_multiply", lambda *args: calls.append(1) or multiply(*args))
    result = kmeans(data, (3, 2), **options)
    assert len(calls) == -(-DIM // 64), "one pass by slabs for both numbers"
    for one, other in zip(result, expected, strict=True):
        assert_same(one, other, rtol=1e-4 if "far" in name else 1e-5)
        labels, margins = assign(data, one.centroids)
        np.testing.assert_array_equal(one.labels, labels)
        np.testing.assert_array_equal(one.margins, margins)


def test_small_arrays_and_long_products_stay_with_the_iteration():
    options = Options((8,), num_init=10, max_iter=25)
    assert gram.is_cheaper_in_memory(2_000, 524_288, options)
    assert not gram.is_cheaper_in_memory(200, 5_242, options), "it is in the caches"
    assert not gram.is_cheaper_in_memory(5_500, 65_536, options._replace(numbers=(2,)))
    assert not gram.is_cheaper_in_memory(2_000, 40_000, options._replace(max_iter=1, num_init=1))


@pytest.mark.parametrize("row", [3, 40])
def test_bad_rows_in_memory_are_named(row, key, monkeypatch):
    monkeypatch.setattr(gram, "_LARGE_MB", 0)
    data = noise()
    data[row, 300] = np.inf
    with pytest.raises(UserError, match=f"1 features hold NaN or Inf .rows {row}.:"):
        kmeans(data, 2, key=key)


def test_starting_centroids_are_compared_with_rows(key):
    source = CountedColumns(noise())
    init = noise(2, seed=5)
    assert_same(kmeans(source, 2, key=key, init=init), kmeans(noise(), 2, key=key, init=init))
    assert source.columns == 0


@pytest.mark.parametrize("row", [3, 40])
def test_bad_rows_are_named(row, key):
    data = noise()
    data[row, 300] = np.nan
    with pytest.raises(UserError, match=f"1 features hold NaN or Inf .rows {row}.:"):
        kmeans(CountedColumns(data), 2, key=key)


def test_squares_that_overflow_are_reported(key):
    with pytest.raises(UserError, match="divide them by a constant"):
        kmeans(CountedColumns(noise() * np.float32(1e19)), 2, key=key)


@pytest.mark.parametrize("stage", ["inner products", "assignment"])
def test_it_stops_between_slabs(stage, key):
    seen = []

    def stop(what, done, total):
        seen.append((what, done, total))
        if what == stage and done >= 128:
            raise Interrupted("asked to")

    with pytest.raises(Interrupted):
        kmeans(CountedColumns(noise()), 2, key=key, on_block=stop)
    assert seen[-1] == (stage, 128, DIM)
