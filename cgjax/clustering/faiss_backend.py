"""The optional FAISS path behind the same call, and its exact nearest-row search.

FAISS finds the centroids; labels, margins, order and objective are ours, so that the result means
the same thing whichever backend ran.
"""

from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from cgjax.clustering.lloyd import KMeansResult, finish, start, step
from cgjax.clustering.rows import prepare
from cgjax.errors import UserError


def _faiss() -> ModuleType:
    """Import faiss, or say which extra holds it."""
    try:
        import faiss
    except ImportError as error:
        raise UserError(
            "the faiss backend needs faiss, which is not installed; type: "
            "pip install 'cgjax[faiss]' (or 'cgjax[faiss-gpu]'), or use backend=jax"
        ) from error
    return faiss


def fit_faiss(
    features: Float[Array, "n f"],
    key: PRNGKeyArray,
    *,
    num_clusters: int,
    num_init: int = 10,
    max_iter: int = 100,
) -> KMeansResult:
    """Run FAISS's k-means and describe what it found as `cgjax.clustering.kmeans` does.

    FAISS by default trains on 256 points per centroid and reports the objective of those only:
    here it gets every point. It has no stopping rule, so `num_iter` is `max_iter` and `converged`
    tells whether one more of our own steps would move nothing beyond the default tolerance.
    """
    faiss = _faiss()
    num_rows, dim = features.shape
    data = jax.jit(prepare)(features)
    rows = np.ascontiguousarray(np.asarray(features))
    # Far from the origin FAISS's expanded squares lose their digits: then it gets centred rows.
    is_far = bool(jnp.sum(data.offset**2) > 16.0 * dim * data.variance)
    if is_far:
        rows = rows - np.asarray(data.offset)
    seed = int(jax.random.randint(key, (), 1, np.iinfo(np.int32).max))
    solver = faiss.Kmeans(
        dim,
        num_clusters,
        niter=max_iter,
        nredo=num_init,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=num_rows,
        gpu=hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0,
    )
    solver.train(rows)
    centroids = jnp.asarray(solver.centroids)
    if not is_far:
        centroids = centroids - data.offset[None, :]
    return jax.jit(_describe)(data, centroids, jnp.int32(max_iter))


def _describe(data, centroids, max_iter):  # type: ignore[no-untyped-def]
    state = start(data, centroids[None])
    after = step(data, state)
    result = finish(data, state)
    return result._replace(num_iter=max_iter, converged=after.is_done[0])


def nearest_faiss(
    queries: Float[Array, "q f"], base: Float[Array, "b f"]
) -> tuple[Int[np.ndarray, " q"], Float[np.ndarray, " q"]]:
    """Find the nearest base row of each query with FAISS's exact flat index.

    The contract of `cgjax.kernels.distance.nearest`, on the host: not for use inside jit. Ties may
    go to any of the tied rows.
    """
    faiss = _faiss()
    rows = np.ascontiguousarray(np.asarray(base, np.float32))
    offset = rows.mean(0)
    index = faiss.IndexFlatL2(rows.shape[1])
    index.add(rows - offset)
    distance, found = index.search(np.asarray(queries, np.float32) - offset, 1)
    return found[:, 0].astype(np.int32), np.maximum(distance[:, 0], 0.0)
