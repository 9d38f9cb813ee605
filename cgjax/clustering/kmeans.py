"""k-means on features: one call that checks its input and picks how to run.

The arithmetic is in `cgjax.clustering.lloyd` (pure functions); here are the errors a user can act
on, the choice of backend, and the flattening of feature maps.
"""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, PRNGKeyArray

from cgjax.clustering.lloyd import KMeansResult, fit
from cgjax.clustering.seeding import INITS
from cgjax.errors import UserError

BACKENDS = ("jax", "faiss")

_fit = partial(jax.jit, static_argnames=("num_clusters", "num_init", "method"))(fit)


def kmeans(
    features: ArrayLike,
    num_clusters: int,
    *,
    key: PRNGKeyArray,
    num_init: int = 10,
    max_iter: int = 100,
    tol: float = 1e-4,
    init: Literal["k-means++", "random"] | ArrayLike = "k-means++",
    backend: Literal["jax", "faiss"] = "jax",
) -> KMeansResult:
    """Cluster features by k-means: sum_y min_c ||y - mu_c||^2, the best of `num_init` restarts.

    All restarts run at once on one read of the data per iteration. O(n r k f) time per iteration,
    O(n r k) memory beside the input, which is not copied.

    Args:
        features: (n, f) or (n, h, w, c), finite; anything behind the first axis is flattened.
        num_clusters: k, from 1 to n.
        key: random key (`jax.random.key(seed)`).
        num_init: restarts, at least 1.
        max_iter: most iterations of a restart, at least 1.
        tol: a restart has converged when the squared movement of its centroids is at most this
            times the mean variance of the features; 0 stops when nothing moves.
        init: "k-means++" (greedy), "random" rows, or centroids to start from: (k, f), or (r, k, f)
            for r restarts (`num_init` then does not matter).
        backend: "jax", or "faiss" where the extra is installed.

    Returns:
        A `KMeansResult`; clusters are ordered by descending share, ties by first member.

    Raises:
        UserError: if the shape, the numbers or the options make no sense.

    Example:
        >>> points = jnp.array([[0.0], [1.0], [2.0], [10.0], [11.0]])
        >>> result = kmeans(points, 2, key=jax.random.key(0))
        >>> result.centroids.ravel().tolist(), result.labels.tolist()
        ([1.0, 10.5], [0, 0, 0, 1, 1])
    """
    flat = check_features(features, num_clusters)
    method, starts = check_init(init, num_clusters, flat.shape[1])
    check_options(num_init=num_init, max_iter=max_iter, tol=tol, backend=backend)
    if backend == "faiss":
        from cgjax.clustering.faiss_backend import fit_faiss

        check_finite(flat)
        return fit_faiss(flat, key, num_clusters=num_clusters, num_init=num_init, max_iter=max_iter)
    result = _fit(
        flat,
        key,
        num_clusters=num_clusters,
        num_init=num_init,
        max_iter=jnp.int32(max_iter),
        tol=jnp.float32(tol),
        method=method,
        centroids=starts,
    )
    if not np.isfinite(result.inertia):
        # One bad number makes the mean, and so everything, non-finite: no read is spent on looking
        # for it unless it is there.
        check_finite(flat)
        raise UserError(
            "the features are too large: their squared distances overflow float32; "
            "divide them by a constant first"
        )
    return result


def check_features(features: ArrayLike, num_clusters: int) -> Array:
    """Return the features as (n, f) float32, or raise `UserError`."""
    if np.ndim(features) < 2:
        raise UserError(
            f"features have shape {np.shape(features)}: expected (n, f) or (n, h, w, c), "
            "one row for each latent"
        )
    num_rows = np.shape(features)[0]
    if num_clusters < 1:
        raise UserError(
            f"num_clusters={num_clusters}: expected at least 1; try --config.cluster.num_clusters=2"
        )
    if num_rows < num_clusters:
        raise UserError(
            f"num_clusters={num_clusters} but there are only {num_rows} features: "
            "expected at least as many features as clusters; raise --config.latents.num"
        )
    return jnp.asarray(features, jnp.float32).reshape(num_rows, -1)


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


def check_finite(features: Array) -> None:
    """Raise `UserError` naming the first rows that hold NaN or Inf."""
    bad = np.flatnonzero(~np.asarray(jax.jit(_is_finite)(features)))
    if bad.size:
        shown = ", ".join(str(row) for row in bad[:5]) + (", ..." if bad.size > 5 else "")
        raise UserError(
            f"{bad.size} of {features.shape[0]} features hold NaN or Inf (rows {shown}): expected "
            "finite numbers; check the generator's weights and the latents of those rows"
        )


def _is_finite(features: Array) -> Array:
    return jnp.all(jnp.isfinite(features), axis=1)
