"""k-means on features: one call that checks its input and chooses how to run.

The arithmetic is in `lloyd` (pure functions), the errors that a user can fix are in `checks`.
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike
from jaxtyping import Array, Int, PRNGKeyArray

from cgjax.clustering.kmeans import gram
from cgjax.clustering.kmeans.checks import (
    check_backend,
    check_counts,
    check_features,
    check_mesh,
    check_numbers,
    check_options,
    check_source,
    check_weights,
)
from cgjax.clustering.kmeans.lloyd import assign_best, fit, fit_sharded
from cgjax.clustering.kmeans.options import Method, Options
from cgjax.clustering.kmeans.results import KMeansResult
from cgjax.clustering.kmeans.sources import OnBlock, RowSource, not_finite
from cgjax.clustering.kmeans.streamed import fit_streamed
from cgjax.errors import UserError
from cgjax.numerics.arguments import check_differences
from cgjax.runtime.keys import check_key
from cgjax.runtime.mesh import (
    DATA_AXIS,
    all_sum,
    is_split,
    over_processes,
    process_mesh,
    shard_rows,
)

_fit = jax.jit(fit)
_assign_best = jax.jit(assign_best)


@overload
def kmeans(
    features: ArrayLike | RowSource,
    num_clusters: int,
    *,
    key: PRNGKeyArray,
    num_init: int = 10,
    max_iter: int = 100,
    tol: float = 1e-4,
    init: Method | ArrayLike = "k-means++",
    backend: Literal["jax", "faiss"] = "jax",
    mesh: Mesh | None = None,
    weights: ArrayLike | None = None,
    on_block: OnBlock | None = None,
) -> KMeansResult: ...


@overload
def kmeans(
    features: ArrayLike | RowSource,
    num_clusters: Sequence[int],
    *,
    key: PRNGKeyArray,
    num_init: int = 10,
    max_iter: int = 100,
    tol: float = 1e-4,
    init: Method | ArrayLike = "k-means++",
    backend: Literal["jax", "faiss"] = "jax",
    mesh: Mesh | None = None,
    weights: ArrayLike | None = None,
    on_block: OnBlock | None = None,
) -> tuple[KMeansResult, ...]: ...


def kmeans(
    features: ArrayLike | RowSource,
    num_clusters: int | Sequence[int],
    *,
    key: PRNGKeyArray,
    num_init: int = 10,
    max_iter: int = 100,
    tol: float = 1e-4,
    init: Method | ArrayLike = "k-means++",
    backend: Literal["jax", "faiss"] = "jax",
    mesh: Mesh | None = None,
    weights: ArrayLike | None = None,
    on_block: OnBlock | None = None,
) -> KMeansResult | tuple[KMeansResult, ...]:
    """Cluster features by k-means: sum_y min_c ||y - mu_c||^2, the best of `num_init` restarts.

    All restarts run at once, on one pass over the data per iteration. O(n r k f) time per
    iteration, O(n r k) memory beside the input, which is not copied; on a CPU O(n (r + k)) for many
    clusters (at least 64, and at least half the number of features).

    Several numbers of clusters share the passes and the seeding too; with backend "faiss" they run
    one after the other.

    Features that do not fit into memory are given as a source of rows that reads them when they
    are needed (`cgjax.clustering.kmeans.sources`): the result is that of the array up to rounding.

    Over a mesh every device reads its own rows, and each iteration takes one sum over the devices;
    the labels are those of one device. A mesh of several processes takes features whose rows are
    split over it (`jax.make_array_from_process_local_data`; where they do not divide, pad with rows
    of weight 0), or in each process a source of its own rows (the same number in all of them).
    Labels and margins come back split the same way:
    `jax.experimental.multihost_utils.process_allgather(result.labels, tiled=True)` gathers them.

    Args:
        features: (n, f) or (n, h, w, c), finite; all axes after the first are flattened. Or a
            `RowSource`.
        num_clusters: k, from 1 to n, or several of them.
        key: random key (`jax.random.key(seed)`).
        num_init: restarts, at least 1.
        max_iter: most iterations of a restart, at least 1.
        tol: a restart has converged when the squared movement of its centroids is at most this
            times the mean variance of the features; 0 stops when nothing moves.
        init: "k-means++" (greedy), "random" rows, or centroids to start from: (k, f), or (r, k, f)
            for r restarts (`num_init` is then ignored).
        backend: "jax", or "faiss" where the extra is installed.
        mesh: devices to split the rows over (`cgjax.runtime.mesh.data_mesh()`); default: the one
            that holds the features. Any n works: rows are padded where they do not divide.
        weights: (n,) 1 for rows that count and 0 for padding, whose labels mean nothing; no other
            numbers. With a source, of its rows. Default: all rows count.
        on_block: with a source only: called after every block with what is being done, the rows
            done and the rows of this pass; may raise to stop.

    Returns:
        A `KMeansResult`, or a tuple of them for several numbers of clusters. Clusters are ordered
        by descending share, ties by first member.

    Raises:
        UserError: for impossible shapes, numbers or options, weights other than 0 and 1, rows that
            hold NaN or Inf, or rows whose squared distances overflow or underflow float32.

    Example:
        >>> points = jnp.array([[0.0], [1.0], [2.0], [10.0], [11.0]])
        >>> result = kmeans(points, 2, key=jax.random.key(0))
        >>> result.centroids.ravel().tolist(), result.labels.tolist()
        ([1.0, 10.5], [0, 0, 0, 1, 1])
    """
    numbers = check_numbers(num_clusters)
    check_backend(backend)
    check_key(key)
    check_mesh(mesh)
    options_for = partial(
        check_options, numbers, init=init, num_init=num_init, max_iter=max_iter, tol=tol
    )
    if isinstance(features, RowSource):
        if backend == "faiss":
            raise UserError(
                "streamed features cannot be clustered with backend=faiss; use backend=jax, or "
                "hold the features in memory by raising --config.cluster.memory_mb"
            )
        check_source(features)
        options = options_for(features.dim)
        results = _streamed(features, key, options, mesh, weights, on_block)
    else:
        flat = check_features(features)
        options = options_for(flat.shape[1])
        if backend == "jax":
            results = _in_memory(flat, key, options, mesh, weights)
        elif mesh is None and weights is None:
            results = _by_faiss(flat, key, options)
        else:
            raise UserError("backend=faiss takes neither mesh nor weights; use backend=jax")
    for result in results:
        check_differences("the centroids", np.asarray(result.centroids))
    return results if isinstance(num_clusters, Sequence) else results[0]


def _streamed(
    source: RowSource,
    key: PRNGKeyArray,
    options: Options,
    mesh: Mesh | None,
    weights: ArrayLike | None,
    on_block: OnBlock | None,
) -> tuple[KMeansResult, ...]:
    counted, own = check_weights(weights, source.num_rows), process_mesh(mesh)
    check_counts(int(over_processes(all_sum, own)(jnp.sum(counted))), options.numbers)
    return fit_streamed(source, key, options, weights=counted, mesh=own, on_block=on_block)


def _by_faiss(
    flat: Array | np.ndarray, key: PRNGKeyArray, options: Options
) -> tuple[KMeansResult, ...]:
    from cgjax.clustering.faiss_backend import fit_faiss

    check_counts(flat.shape[0], options.numbers)
    bad = _bad_rows(flat)
    if len(bad):
        raise not_finite(bad)
    return fit_faiss(jnp.asarray(flat), key, options)


def _in_memory(
    flat: Array | np.ndarray,
    key: PRNGKeyArray,
    options: Options,
    mesh: Mesh | None,
    weights: ArrayLike | None,
) -> tuple[KMeansResult, ...]:
    num_rows, dim = flat.shape
    counted = None if weights is None else check_weights(weights, num_rows)
    check_counts(num_rows if counted is None else int(jnp.sum(counted)), options.numbers)
    is_on_one_device = not isinstance(flat, jax.Array) or len(flat.sharding.device_set) == 1
    if (
        mesh is None
        and counted is None
        and is_on_one_device
        and gram.is_cheaper_in_memory(num_rows, dim, options)
    ):
        bests = gram.fit_in_memory(np.asarray(flat), key, options)
        return tuple(_assign_best(flat, best) for best in bests)
    if mesh is None:
        results = _fit(flat, key, options, counted)
    else:
        rows, counted = _split(flat, counted, mesh)
        results = fit_sharded(rows, key, options, counted, mesh=mesh)
        if len(rows) != num_rows:
            results = tuple(
                result._replace(labels=result.labels[:num_rows], margins=result.margins[:num_rows])
                for result in results
            )
    if not all(np.isfinite(result.inertia) for result in results):
        # One bad number makes the mean, and so everything, non-finite: only then does a pass look
        # for it.
        raise not_finite(_bad_rows(flat))
    return results


def _split(features: Array | np.ndarray, weights: Array | None, mesh: Mesh) -> tuple[Array, Array]:
    """Return features and weights with their rows split over the mesh."""
    if is_split(features, mesh):
        counted = np.ones(features.shape[0], np.float32) if weights is None else weights
        return jnp.asarray(features), jax.device_put(counted, NamedSharding(mesh, P(DATA_AXIS)))
    if mesh.is_multi_process:
        raise UserError(
            "the mesh spans several processes but the features are not split over it; make them "
            "with jax.make_array_from_process_local_data, each process from its own rows"
        )
    rows, is_real = shard_rows(features, mesh)
    return rows, is_real if weights is None else shard_rows(np.asarray(weights), mesh)[0]


def _bad_rows(features: Array | np.ndarray) -> Int[np.ndarray, " b"]:
    """Return which rows hold NaN or Inf."""
    sharding = getattr(features, "sharding", None)
    if isinstance(sharding, NamedSharding):
        # A process can read only its own rows of a split array.
        sharding = NamedSharding(sharding.mesh, P())
    return np.flatnonzero(~np.asarray(jax.jit(_is_finite, out_shardings=sharding)(features)))


def _is_finite(features: Array) -> Array:
    return jnp.all(jnp.isfinite(features), axis=1)
