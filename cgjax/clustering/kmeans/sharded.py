"""k-means over the devices of a mesh: every device holds and reads its own rows.

Each iteration sends one sum over the devices: r k f numbers for the centroids and r k for their
counts, whatever the number of rows. Padding rows have weight zero and count for nothing.

Symbols: y rows (n, f), r restarts, k clusters.
"""

from functools import partial
from typing import Any

import jax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, PRNGKeyArray

from cgjax.clustering.kmeans.lloyd import fit_numbers
from cgjax.clustering.kmeans.results import KMeansResult
from cgjax.runtime.mesh import DATA_AXIS


@partial(jax.jit, static_argnames=("mesh", "numbers", "num_init", "method"))
def fit_sharded(
    features: Float[Array, "n f"],
    weights: Float[Array, " n"],
    key: PRNGKeyArray,
    *,
    mesh: Mesh,
    numbers: tuple[int, ...],
    num_init: int,
    max_iter: Array,
    tol: Array,
    method: str,
    centroids: Float[Array, "r k f"] | None,
) -> tuple[KMeansResult, ...]:
    """Run `cgjax.clustering.kmeans.lloyd.fit_numbers` with the rows split over a mesh.

    Args:
        features: (n, f) float32, rows split over the mesh; n is a multiple of its size.
        weights: (n,) float32, split alike: 1 for rows that count and 0 for padding.
        key: random key.
        mesh: from `cgjax.runtime.mesh.data_mesh`.
        numbers, num_init, max_iter, tol, method, centroids: as for `fit_numbers`.

    Returns:
        A result for each number; labels and margins are split over the mesh as the rows are
        (padding rows have some label), everything else is on every device.
    """
    given = (jax.random.key_data(key), max_iter, tol, centroids)

    def fit_shard(features: Array, weights: Array, given: Any) -> tuple[KMeansResult, ...]:
        data, max_iter, tol, centroids = given
        return fit_numbers(
            features,
            jax.random.wrap_key_data(data, impl=jax.random.key_impl(key)),
            numbers=numbers,
            num_init=num_init,
            max_iter=max_iter,
            tol=tol,
            method=method,
            centroids=centroids,
            weights=weights,
            axis_name=DATA_AXIS,
        )

    specs: dict[str, Any] = dict.fromkeys(KMeansResult._fields, P())
    specs |= {"labels": P(DATA_AXIS), "margins": P(DATA_AXIS)}
    return jax.shard_map(
        fit_shard,
        mesh=mesh,
        in_specs=(P(DATA_AXIS), P(DATA_AXIS), P()),
        out_specs=(KMeansResult(**specs),) * len(numbers),
    )(features, weights, given)
