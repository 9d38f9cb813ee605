"""Checks of what the user passes to k-means: every error is one line.

Symbols: n rows, f features, r restarts, k clusters.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from cgjax.clustering.kmeans.options import INITS, Method, Options
from cgjax.clustering.kmeans.sources import RowSource
from cgjax.errors import UserError
from cgjax.numerics.arguments import as_float32, check_whole, is_whole, shown

BACKENDS = ("jax", "faiss")


def check_numbers(num_clusters: int | Sequence[int]) -> tuple[int, ...]:
    """Return the numbers of clusters as a tuple."""
    if isinstance(num_clusters, str) or not isinstance(num_clusters, Sequence):
        num_clusters = (num_clusters,)
    if not num_clusters:
        raise UserError("num_clusters=(): expected one or more numbers; try num_clusters=(2, 3, 4)")
    return tuple(_whole("num_clusters", k, default=2) for k in num_clusters)


def check_options(
    numbers: tuple[int, ...],
    dim: int,
    *,
    init: str | ArrayLike,
    num_init: int,
    max_iter: int,
    tol: float,
) -> Options:
    """Return the options of a search in rows of `dim` features."""
    method, centroids = _check_init(init, numbers, dim)
    try:
        is_tolerance = float(tol) >= 0.0
    except (TypeError, ValueError, OverflowError):
        is_tolerance = False
    if not is_tolerance:
        raise UserError(f"tol={tol!r}: expected 0 or more; try --config.cluster.tol=1e-4")
    return Options(
        numbers,
        num_init=_whole("num_init", num_init, default=10),
        method=method,
        max_iter=_whole("max_iter", max_iter, default=100),
        tol=float(tol),
        centroids=centroids,
    )


def check_backend(backend: str) -> None:
    """Raise `UserError` for a backend that does not exist."""
    if backend not in BACKENDS:
        raise UserError(
            f"backend={backend!r}: expected one of {', '.join(BACKENDS)}; "
            "try --config.cluster.backend=jax"
        )


def check_features(features: ArrayLike) -> Array | np.ndarray:
    """Return the features as (n, f) float32, on the host if they are there."""
    array = as_float32("features", features, "float32")
    shape = array.shape
    if len(shape) < 2 or 0 in shape[1:]:
        raise UserError(
            f"features have shape {shape}: expected (n, f) or (n, h, w, c), one row for each latent"
        )
    return array.reshape(shape[0], math.prod(shape[1:]))


def check_source(source: RowSource) -> None:
    """Raise `UserError` for a source of impossible sizes."""
    name = type(source).__name__
    for field in ("num_rows", "dim", "block"):
        if not is_whole(size := getattr(source, field)):
            raise UserError(f"{name}.{field} is {size!r}: expected a whole number of at least 1")
    if source.block > source.num_rows:
        raise UserError(
            f"{name}.block is {source.block}: expected at most num_rows={source.num_rows}"
        )


def check_weights(weights: ArrayLike | None, num_rows: int) -> Float[Array, " n"]:
    """Return the weights as float32, ones by default."""
    if weights is None:
        return jnp.ones((num_rows,), jnp.float32)
    counted = jnp.asarray(as_float32("weights", weights, f"({num_rows},) zeros and ones"))
    if counted.shape != (num_rows,):
        raise UserError(f"weights have shape {counted.shape}: expected ({num_rows},)")
    # Eager operations: every process gets the answer for an array that is split over processes.
    if not bool(jnp.all((counted == 0.0) | (counted == 1.0))):
        raise UserError(
            "weights other than 0 and 1 (or NaN): expected 1 for rows that count and 0 for padding"
        )
    return counted


def check_counts(num_rows: int, numbers: tuple[int, ...]) -> None:
    """Raise `UserError` if there are fewer rows (that count) than clusters."""
    if num_rows == 0:
        raise UserError("there are no features to cluster: no rows, or only rows of weight 0")
    if num_rows < max(numbers):
        raise UserError(
            f"num_clusters={max(numbers)} but there are only {num_rows} features: "
            "expected at least as many features as clusters; raise --config.latents.num"
        )


def _check_init(
    init: str | ArrayLike, numbers: tuple[int, ...], dim: int
) -> tuple[Method, Float[Array, "r k f"] | None]:
    if isinstance(init, str):
        if init not in INITS:
            raise UserError(f"init={init!r}: expected one of {', '.join(INITS)}, or centroids")
        return init, None
    if len(numbers) > 1:
        raise UserError(
            f"num_clusters={numbers}: expected a single number where init gives centroids"
        )
    (k,) = numbers
    centroids = as_float32("init's centroids", init, f"({k}, {dim})")
    shape = centroids.shape
    if len(shape) not in (2, 3) or shape[-2:] != (k, dim) or 0 in shape:
        raise UserError(
            f"init has shape {shape}: expected ({k}, {dim}) or (restarts, {k}, {dim}), one row for "
            "each cluster"
        )
    centroids = jnp.asarray(centroids).reshape(-1, k, dim)
    if not bool(jnp.all(jnp.isfinite(centroids))):
        raise UserError("init holds NaN or Inf: expected finite centroids")
    return "k-means++", centroids


def check_mesh(mesh: Mesh | None) -> None:
    """Raise `UserError` for anything but a mesh of devices or None."""
    if mesh is not None and not isinstance(mesh, Mesh):
        raise UserError(
            f"mesh={shown(mesh)}: expected a mesh of devices, such as "
            "cgjax.runtime.mesh.data_mesh(), or None"
        )


def _whole(name: str, value: int, *, default: int) -> int:
    return check_whole(name, value, hint=f"try --config.cluster.{name}={default}")
