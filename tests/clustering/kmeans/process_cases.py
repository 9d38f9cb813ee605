"""Streamed clustering by several processes compared with one: the cases that each of them runs.

Every case is called by all processes, which stop at the first that fails. What one process finds in
memory is computed before, by the test that starts them (`save_expected`).
"""

import os
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cgjax.clustering import KMeansResult, kmeans
from cgjax.clustering.kmeans.sources import ArrayRows
from cgjax.clustering.kmeans.streamed import extend
from cgjax.errors import Interrupted, UserError
from cgjax.runtime.mesh import data_mesh, gather_rows, own_rows, process_mesh
from cgjax.runtime.processes import start_processes
from tests.clustering.kmeans.device_cases import points

FIELDS = ("labels", "counts", "centroids", "inertia", "inertias", "margins")


def own_source(data, block=16):
    """This process's rows, padded with a row that would be a cluster of its own."""
    own = np.asarray(own_rows(len(data), data_mesh()))
    is_real = own < len(data)
    rows = np.where(is_real[:, None], data[np.where(is_real, own, 0)], np.float32(1e3))
    return ArrayRows(rows, block), is_real.astype(np.float32)


EMPTY = np.array([[0.0] * 5, [50.0] * 5, [99.0] * 5])
CASES: tuple[tuple[int, int | tuple[int, ...], dict[str, Any]], ...] = (
    (203, (1, 3), {"num_init": 4}),
    (203, 6, {"num_init": 1, "max_iter": 3}),
    (203, 2, {"num_init": 3, "init": "random"}),
    (203, 3, {"init": EMPTY, "max_iter": 1}),  # empty clusters take the farthest rows of all
    (3, 2, {"num_init": 4}),  # fewer rows than a process could hold
)
"""The number of rows and of clusters, and options: those of other tests, where that is possible."""


def save_expected(path: Path) -> None:
    """Save what one process finds in memory."""
    found = {}
    for case, (num, k, options) in enumerate(CASES):
        results = kmeans(points(num), k, key=jax.random.key(0), **options)
        for i, result in enumerate([results] if isinstance(k, int) else results):
            found |= {f"{case} {i} {field}": getattr(result, field) for field in FIELDS}
    few = kmeans(points(203)[:80], 3, key=jax.random.key(0))
    np.savez(path, **found, **{f"few {field}": array for field, array in few._asdict().items()})


def every_case_gives_the_result_of_one(expected):
    for case, (num, k, options) in enumerate(CASES):
        data = points(num)
        source, weights = own_source(data)
        options = options | {"key": jax.random.key(0), "mesh": data_mesh(), "weights": weights}
        results = kmeans(source, k, **options)
        for i, many in enumerate([results] if isinstance(k, int) else results):
            one = {field: expected[f"{case} {i} {field}"] for field in FIELDS}
            np.testing.assert_array_equal(gather_rows(many.labels, num), one["labels"])
            np.testing.assert_array_equal(many.counts, one["counts"])
            # Sums of up to a hundred float32 numbers in another order, distances from another
            # origin; a margin is a difference of two such distances.
            np.testing.assert_allclose(many.centroids, one["centroids"], rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(many.inertia, one["inertia"], rtol=1e-5)
            np.testing.assert_allclose(many.inertias, one["inertias"], rtol=1e-5)
            margins = gather_rows(many.margins, num)
            np.testing.assert_allclose(margins, one["margins"], rtol=1e-3, atol=1e-4)


def rows_assigned_later_join_the_clusters(expected):
    data = points(203)
    few = KMeansResult(*(jnp.asarray(expected[f"few {field}"]) for field in KMeansResult._fields))
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
    with np.load(sys.argv[1]) as held:
        in_memory = dict(held)
    every_case_gives_the_result_of_one(in_memory)
    rows_assigned_later_join_the_clusters(in_memory)
    a_bad_row_is_named_by_all()
    all_stop_at_the_same_block()
