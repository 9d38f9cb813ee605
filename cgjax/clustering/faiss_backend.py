"""k-means by the optional FAISS, and its exact nearest-row search [Douze et al. 2024].

FAISS finds the centroids; labels, margins, order and objective are computed here, so that a result
means the same thing whichever backend ran.
"""

from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from cgjax.clustering.kmeans.lloyd import assign_best, step
from cgjax.clustering.kmeans.options import Options
from cgjax.clustering.kmeans.results import KMeansResult, best_of
from cgjax.clustering.kmeans.rows import prepare
from cgjax.clustering.kmeans.state import start
from cgjax.errors import UserError


def load_faiss() -> ModuleType:
    """Import faiss; a UserError names the extra that installs it."""
    try:
        import faiss
    except ImportError as error:
        raise UserError(
            "the faiss backend needs faiss, which is not installed; type: "
            "pip install 'cgjax[faiss]' (or 'cgjax[faiss-gpu]'), or use backend=jax"
        ) from error
    return faiss


def fit_faiss(
    features: Float[Array, "n f"], key: PRNGKeyArray, options: Options
) -> tuple[KMeansResult, ...]:
    """Run FAISS's k-means for one number of clusters after the other.

    By default FAISS trains on 256 points per centroid and reports the objective of those only; here
    it gets every point. It has no stopping rule, so `num_iter` is `max_iter`, and `converged` says
    whether one more `lloyd.step` moves the centroids by no more than the default tolerance.
    """
    faiss = load_faiss()
    num_rows, dim = features.shape
    offset, is_far = (np.asarray(value) for value in _origin(features))
    rows = np.ascontiguousarray(np.asarray(features))
    if is_far:
        # Far from the origin FAISS's expanded squares lose their digits.
        rows = rows - offset
    seed = int(jax.random.randint(key, (), 1, np.iinfo(np.int32).max, jnp.int32))
    results = []
    for num_clusters in options.numbers:
        solver = faiss.Kmeans(
            dim,
            num_clusters,
            niter=options.max_iter,
            nredo=options.num_init,
            seed=seed,
            min_points_per_centroid=1,
            max_points_per_centroid=num_rows,
            gpu=_num_gpus(faiss) > 0,
        )
        solver.train(rows)
        centroids = solver.centroids if is_far else solver.centroids - offset
        results.append(_describe(features, jnp.asarray(centroids), jnp.int32(options.max_iter)))
    return tuple(results)


def _num_gpus(faiss: ModuleType) -> int:
    return faiss.get_num_gpus() if hasattr(faiss, "StandardGpuResources") else 0


@jax.jit
def _origin(features: Float[Array, "n f"]) -> tuple[Float[Array, " f"], Bool[Array, ""]]:
    rows = prepare(features)
    return rows.offset, rows.is_far


@jax.jit
def _describe(
    features: Float[Array, "n f"], centroids: Float[Array, "k f"], max_iter: Int[Array, ""]
) -> KMeansResult:
    """Compute labels, order and objective of FAISS's centroids (relative to the mean)."""
    rows = prepare(features)
    # The step gives labels and objective; the centroids stay those that FAISS found.
    (after,) = step(rows, (start(centroids[None], rows.squares),))
    best = best_of(after._replace(centroids=centroids[None]), rows.offset)
    return assign_best(features, best._replace(num_iter=max_iter))


def nearest_faiss(
    queries: Float[Array, "q f"], base: Float[Array, "b f"]
) -> tuple[Int[np.ndarray, " q"], Float[np.ndarray, " q"]]:
    """Find the nearest base row of each query with FAISS's exact flat index.

    Same contract as `cgjax.kernels.distance.nearest`, on the host: not for use inside jit. The
    index is on a GPU where FAISS has one. Ties may go to any of the tied rows.
    """
    faiss = load_faiss()
    rows = np.ascontiguousarray(np.asarray(base, np.float32))
    offset = rows.mean(0)
    index = faiss.IndexFlatL2(rows.shape[1])
    if _num_gpus(faiss) > 0:
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    index.add(rows - offset)
    distance, nearest = index.search(np.asarray(queries, np.float32) - offset, 1)
    return nearest[:, 0].astype(np.int32), np.maximum(distance[:, 0], 0.0)
