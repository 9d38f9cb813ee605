"""Streamed clustering by several processes compared with one: the cases that each of them runs.

Every case is called by all processes, which stop at the first that fails.
"""

import os

import jax
import numpy as np

from cgjax.clustering import kmeans
from cgjax.clustering.kmeans.sources import ArrayRows
from cgjax.clustering.kmeans.streamed import extend
from cgjax.errors import Interrupted, UserError
from cgjax.runtime.mesh import data_mesh, gather_rows, own_rows, process_mesh
from cgjax.runtime.processes import start_processes
from tests.clustering.kmeans.device_cases import points


def own_source(data, block=16):
    """This process's rows, padded with a row that would be a cluster of its own."""
    own = np.asarray(own_rows(len(data), data_mesh()))
    is_real = own < len(data)
    rows = np.where(is_real[:, None], data[np.where(is_real, own, 0)], np.float32(1e3))
    return ArrayRows(rows, block), is_real.astype(np.float32)


def compare(data, *numbers, **options):
    """Assert that the processes find what one finds in memory."""
    options = {"num_init": 4, "key": jax.random.key(0)} | options
    source, weights = own_source(data)
    # A single number is passed as such: starting centroids require it.
    k = numbers if len(numbers) > 1 else numbers[0]
    results = kmeans(source, k, mesh=data_mesh(), weights=weights, **options)
    expected = kmeans(data, k, **options)
    if len(numbers) == 1:
        results, expected = (results,), (expected,)
    for many, one in zip(results, expected, strict=True):
        np.testing.assert_array_equal(gather_rows(many.labels, len(data)), one.labels)
        np.testing.assert_array_equal(many.counts, one.counts)
        # Sums of up to a hundred float32 numbers in another order, distances from another origin; a
        # margin is a difference of two such distances.
        np.testing.assert_allclose(many.centroids, one.centroids, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(many.inertia, one.inertia, rtol=1e-5)
        np.testing.assert_allclose(many.inertias, one.inertias, rtol=1e-5)
        margins = gather_rows(many.margins, len(data))
        np.testing.assert_allclose(margins, one.margins, rtol=1e-3, atol=1e-4)


def every_start_gives_the_result_of_one():
    compare(points(203), 3)
    compare(points(203), 6, num_init=1)
    compare(points(203), 2, 4)
    compare(points(203), 3, init="random")
    compare(points(203), 1)


def empty_clusters_take_the_farthest_rows_of_all():
    starts = np.array([[0.0] * 5, [50.0] * 5, [99.0] * 5])
    compare(points(203), 3, init=starts, max_iter=1)


def fewer_rows_than_a_process_could_hold():
    compare(points(3), 2)


def rows_assigned_later_join_the_clusters():
    data = points(203)
    few = kmeans(data[:80], 3, key=jax.random.key(0))
    source, weights = own_source(data[80:])
    mesh = process_mesh(data_mesh())
    many, one = (
        extend(few, source, weights=weights, mesh=mesh),
        extend(few, ArrayRows(data[80:])),
    )
    for field in ("labels", "counts"):
        np.testing.assert_array_equal(getattr(many, field), getattr(one, field))
    np.testing.assert_allclose(many.margins, one.margins, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(many.inertia, one.inertia, rtol=1e-5)


def a_bad_row_is_named_by_all():
    data = points(203)
    data[171, 1] = np.inf
    source, weights = own_source(data)
    for init in ("k-means++", "random"):
        message = ""
        try:
            kmeans(source, 2, key=jax.random.key(0), init=init, mesh=data_mesh(), weights=weights)
        except UserError as error:
            message = str(error)
        assert message.startswith("1 features hold NaN or Inf (rows 171):"), message


def all_stop_at_the_same_block():
    seen = []

    def stop(what, done, total):
        seen.append((what, done, total))
        if what == "iteration 1" and done == 64:
            raise Interrupted("asked to")

    source, weights = own_source(points(203))
    try:
        kmeans(source, 2, key=jax.random.key(0), mesh=data_mesh(), weights=weights, on_block=stop)
    except Interrupted:
        assert seen[-1] == ("iteration 1", 64, 102)
        return
    raise AssertionError("nobody stopped")


if __name__ == "__main__":
    start_processes(os.environ)
    every_start_gives_the_result_of_one()
    empty_clusters_take_the_farthest_rows_of_all()
    fewer_rows_than_a_process_could_hold()
    rows_assigned_later_join_the_clusters()
    a_bad_row_is_named_by_all()
    all_stop_at_the_same_block()
