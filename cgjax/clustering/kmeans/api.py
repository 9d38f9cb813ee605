"""k-means on features: one call that checks its input and picks how to run.

The arithmetic is in `lloyd` (pure functions); here are the errors a user can act on, the choice of
backend, and the flattening of feature maps.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, PRNGKeyArray

from cgjax.clustering.kmeans import gram
from cgjax.clustering.kmeans.lloyd import describe, fit_numbers
from cgjax.clustering.kmeans.results import BestRestart, KMeansResult
from cgjax.clustering.kmeans.seeding import INITS
from cgjax.clustering.kmeans.sharded import fit_sharded
from cgjax.clustering.kmeans.sources import OnBlock, RowSource, not_finite
from cgjax.clustering.kmeans.streamed import fit_streamed
from cgjax.errors import UserError
from cgjax.runtime.mesh import (
    DATA_AXIS,
    all_sum,
    is_split,
    over_processes,
    process_mesh,
    shard_rows,
)

BACKENDS = ("jax", "faiss")

_fit = partial(jax.jit, static_argnames=("numbers", "num_init", "method"))(fit_numbers)


@jax.jit
def _describe(features: Float[Array, "n f"], bests: list[BestRestart]) -> tuple[KMeansResult, ...]:
    weights = jnp.ones((features.shape[0],), jnp.float32)
    return tuple(describe(features, best, weights=weights) for best in bests)


@overload
def kmeans(
    features: ArrayLike | RowSource,
    num_clusters: int,
    *,
    key: PRNGKeyArray,
    num_init: int = 10,
    max_iter: int = 100,
    tol: float = 1e-4,
    init: Literal["k-means++", "random"] | ArrayLike = "k-means++",
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
    init: Literal["k-means++", "random"] | ArrayLike = "k-means++",
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
    init: Literal["k-means++", "random"] | ArrayLike = "k-means++",
    backend: Literal["jax", "faiss"] = "jax",
    mesh: Mesh | None = None,
    weights: ArrayLike | None = None,
    on_block: OnBlock | None = None,
) -> KMeansResult | tuple[KMeansResult, ...]:
    """Cluster features by k-means: sum_y min_c ||y - mu_c||^2, the best of `num_init` restarts.

    All restarts run at once on one read of the data per iteration. O(n r k f) time per iteration,
    O(n r k) memory beside the input, which is not copied.

    Several numbers of clusters share the reads too, and the seeding; with backend "faiss" one comes
    after the other.

    Features that do not fit into memory are given as a source of rows that reads them when they
    are needed (`cgjax.clustering.kmeans.sources`): the result is that of the array up to rounding.

    Over a mesh every device reads its own rows and one sum a iteration goes over the devices; the
    labels are those of one device. A mesh of several processes takes features whose rows are split
    over it (`jax.make_array_from_process_local_data`; fill up with rows of weight 0 what does not
    divide), or in each process a source of its own rows (as many in all of them). Labels and
    margins come back split the same way:
    `jax.experimental.multihost_utils.process_allgather(result.labels, tiled=True)` gathers them.

    Args:
        features: (n, f) or (n, h, w, c), finite; anything behind the first axis is flattened. Or a
            `RowSource`.
        num_clusters: k, from 1 to n, or several of them.
        key: random key (`jax.random.key(seed)`).
        num_init: restarts, at least 1.
        max_iter: most iterations of a restart, at least 1.
        tol: a restart has converged when the squared movement of its centroids is at most this
            times the mean variance of the features; 0 stops when nothing moves.
        init: "k-means++" (greedy), "random" rows, or centroids to start from: (k, f), or (r, k, f)
            for r restarts (`num_init` then does not matter).
        backend: "jax", or "faiss" where the extra is installed.
        mesh: devices to split the rows over (`cgjax.runtime.mesh.data_mesh()`); default: the one
            that holds the features. Any n will do: what does not divide is padded.
        weights: (n,) 1 for rows that count and 0 for padding, which gets some label; default: all
            rows count. With a source, of its rows.
        on_block: of a source only: called after every block with what is being done, rows done and
            rows of this reading; may raise to stop.

    Returns:
        A `KMeansResult`; clusters are ordered by descending share, ties by first member. Of several
        numbers a tuple of them.

    Raises:
        UserError: if the shape, the numbers or the options make no sense.

    Example:
        >>> points = jnp.array([[0.0], [1.0], [2.0], [10.0], [11.0]])
        >>> result = kmeans(points, 2, key=jax.random.key(0))
        >>> result.centroids.ravel().tolist(), result.labels.tolist()
        ([1.0, 10.5], [0, 0, 0, 1, 1])
    """
    is_single = not isinstance(num_clusters, Sequence)
    numbers = (num_clusters,) if not isinstance(num_clusters, Sequence) else tuple(num_clusters)
    if not numbers or not (is_single or isinstance(init, str)):
        raise UserError(
            f"num_clusters={numbers}: expected one or more numbers, and a single one where init "
            "gives centroids; try num_clusters=(2, 3, 4)"
        )
    check_options(num_init=num_init, max_iter=max_iter, tol=tol, backend=backend)
    options: dict[str, Any] = {"num_init": num_init, "max_iter": max_iter, "tol": tol}
    if isinstance(features, RowSource):
        if backend == "faiss":
            raise UserError(
                "features that are streamed do not go to backend=faiss; use backend=jax, or hold "
                "them in memory (--config.cluster.memory_mb)"
            )
        options |= {"init": init, "mesh": process_mesh(mesh), "weights": weights}
        results = _kmeans_streamed(features, numbers, key, on_block=on_block, **options)
    elif backend == "faiss":
        if mesh is not None or weights is not None:
            raise UserError("backend=faiss takes neither mesh nor weights; use backend=jax")
        results = tuple(_kmeans_faiss(features, k, key, init=init, **options) for k in numbers)
    else:
        results = _kmeans_in_memory(
            features, numbers, key, init=init, mesh=mesh, weights=weights, **options
        )
    return results[0] if is_single else results


def _kmeans_streamed(
    source: RowSource,
    numbers: tuple[int, ...],
    key: PRNGKeyArray,
    *,
    init: str | ArrayLike,
    mesh: Mesh | None,
    weights: ArrayLike | None,
    **options: Any,
) -> tuple[KMeansResult, ...]:
    counted = check_weights(weights, source.num_rows)
    num_rows = int(over_processes(all_sum, mesh)(jnp.sum(counted)))
    for num_clusters in numbers:
        check_counts(num_rows, num_clusters)
    method, starts = check_init(init, max(numbers), source.dim)
    return fit_streamed(
        source,
        key,
        numbers=numbers,
        method=method,
        centroids=starts,
        weights=counted,
        mesh=mesh,
        **options,
    )


def _kmeans_faiss(
    features: ArrayLike,
    num_clusters: int,
    key: PRNGKeyArray,
    *,
    init: str | ArrayLike,
    num_init: int,
    max_iter: int,
    tol: float,
) -> KMeansResult:
    from cgjax.clustering.faiss_backend import fit_faiss

    flat = check_features(features, num_clusters)
    check_init(init, num_clusters, flat.shape[1])
    num, bad = _bad_rows(flat)
    if num:
        raise not_finite(num, bad)
    options = {"num_clusters": num_clusters, "num_init": num_init, "max_iter": max_iter}
    return fit_faiss(jnp.asarray(flat), key, **options)


def _kmeans_in_memory(
    features: ArrayLike,
    numbers: tuple[int, ...],
    key: PRNGKeyArray,
    *,
    init: str | ArrayLike,
    mesh: Mesh | None,
    weights: ArrayLike | None,
    num_init: int,
    max_iter: int,
    tol: float,
) -> tuple[KMeansResult, ...]:
    flat = check_features(features, max(numbers), weights)
    check_counts(flat.shape[0], min(numbers))
    method, starts = check_init(init, max(numbers), flat.shape[1])
    counts: dict[str, Any] = {"numbers": numbers, "num_init": num_init, "max_iter": max_iter}
    if (
        mesh is None
        and weights is None
        and starts is None
        and _is_in_one_place(flat)
        and gram.is_cheaper_in_memory(*flat.shape, **counts)
    ):
        bests = gram.fit_in_memory(np.asarray(flat), key, tol=tol, method=method, **counts)
        return _describe(flat, bests)
    options = {
        "numbers": numbers,
        "num_init": num_init,
        "max_iter": jnp.int32(max_iter),
        "tol": jnp.float32(tol),
        "method": method,
        "centroids": starts,
    }
    if mesh is None:
        counted = None if weights is None else jnp.asarray(weights, jnp.float32)
        results = _fit(flat, key, weights=counted, **options)
    else:
        rows, counted = _split(flat, weights, mesh)
        results = fit_sharded(rows, counted, key, mesh=mesh, **options)
        if rows.shape[0] != flat.shape[0]:
            num_rows = flat.shape[0]
            results = tuple(
                result._replace(labels=result.labels[:num_rows], margins=result.margins[:num_rows])
                for result in results
            )
    if not all(np.isfinite(result.inertia) for result in results):
        # One bad number makes the mean, and so everything, non-finite: no read is spent on looking
        # for it unless it is there.
        raise not_finite(*_bad_rows(flat))
    return results


def _is_in_one_place(features: Array | np.ndarray) -> bool:
    return not isinstance(features, jax.Array) or len(features.sharding.device_set) == 1


def _split(
    features: Array | np.ndarray, weights: ArrayLike | None, mesh: Mesh
) -> tuple[Array, Array]:
    """Return features and weights with their rows split over the mesh."""
    if is_split(features, mesh):
        if weights is None:
            weights = np.ones(features.shape[0], np.float32)
        sharding = NamedSharding(mesh, P(DATA_AXIS))
        return jnp.asarray(features), jax.device_put(weights, sharding)
    if mesh.is_multi_process:
        raise UserError(
            "the mesh spans several processes and the features are not split over it; make them "
            "with jax.make_array_from_process_local_data, each process from its own rows"
        )
    rows, is_real = shard_rows(features, mesh)
    if weights is None:
        return rows, is_real
    return rows, shard_rows(np.asarray(weights, np.float32), mesh)[0]


def check_features(
    features: ArrayLike, num_clusters: int, weights: ArrayLike | None = None
) -> Array | np.ndarray:
    """Return the features as (n, f) float32, on the host if they are, or raise `UserError`."""
    if np.ndim(features) < 2:
        raise UserError(
            f"features have shape {np.shape(features)}: expected (n, f) or (n, h, w, c), "
            "one row for each latent"
        )
    num = np.shape(features)[0]
    check_counts(
        num if weights is None else int(jnp.sum(check_weights(weights, num))), num_clusters
    )
    module = jnp if isinstance(features, jax.Array) else np
    return module.reshape(module.asarray(features, np.float32), (num, -1))


def check_weights(weights: ArrayLike | None, num_rows: int) -> Array:
    """Return the weights as (n,) float32, ones by default, or raise `UserError`."""
    if weights is None:
        return jnp.ones((num_rows,), jnp.float32)
    if np.shape(weights) != (num_rows,):
        raise UserError(f"weights have shape {np.shape(weights)}: expected ({num_rows},)")
    return jnp.asarray(weights, jnp.float32)


def check_counts(num_rows: int, num_clusters: int) -> None:
    """Raise `UserError` if there cannot be so many clusters."""
    if num_clusters < 1:
        raise UserError(
            f"num_clusters={num_clusters}: expected at least 1; try --config.cluster.num_clusters=2"
        )
    if num_rows < num_clusters:
        raise UserError(
            f"num_clusters={num_clusters} but there are only {num_rows} features: "
            "expected at least as many features as clusters; raise --config.latents.num"
        )


def check_init(init: str | ArrayLike, num_clusters: int, dim: int) -> tuple[str, Array | None]:
    """Return the method and the starting centroids (r, k, f), if given, or raise `UserError`."""
    if isinstance(init, str):
        if init not in INITS:
            raise UserError(f"init={init!r}: expected one of {', '.join(INITS)}, or centroids")
        return init, None
    shape = np.shape(init)
    if len(shape) not in (2, 3) or shape[-2:] != (num_clusters, dim):
        raise UserError(
            f"init has shape {shape}: expected ({num_clusters}, {dim}) or "
            f"(restarts, {num_clusters}, {dim}), one row for each cluster"
        )
    return "given", jnp.asarray(init, jnp.float32).reshape(-1, num_clusters, dim)


def check_options(*, num_init: int, max_iter: int, tol: float, backend: str) -> None:
    """Raise `UserError` for an option outside its range, naming the legal values."""
    if num_init < 1:
        raise UserError(
            f"num_init={num_init}: expected at least 1; try --config.cluster.num_init=10"
        )
    if max_iter < 1:
        raise UserError(
            f"max_iter={max_iter}: expected at least 1; try --config.cluster.max_iter=100"
        )
    if not tol >= 0.0:
        raise UserError(f"tol={tol}: expected 0 or more; try --config.cluster.tol=1e-4")
    if backend not in BACKENDS:
        raise UserError(
            f"backend={backend!r}: expected one of {', '.join(BACKENDS)}; "
            "try --config.cluster.backend=jax"
        )


def _bad_rows(features: Array | np.ndarray) -> tuple[int, Int[np.ndarray, " b"]]:
    """Return how many rows hold NaN or Inf, and which."""
    place = getattr(features, "sharding", None)
    if isinstance(place, NamedSharding):
        # Of a split array a process can read its own rows only.
        place = NamedSharding(place.mesh, P())
    bad = np.flatnonzero(~np.asarray(jax.jit(_is_finite, out_shardings=place)(features)))
    return len(bad), bad


def _is_finite(features: Array) -> Array:
    return jnp.all(jnp.isfinite(features), axis=1)
