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

from cgjax.clustering.kmeans.lloyd import fit
from cgjax.clustering.kmeans.options import Options
from cgjax.clustering.kmeans.results import KMeansResult
from cgjax.runtime.mesh import DATA_AXIS


@partial(jax.jit, static_argnames=("mesh",))
def fit_sharded(
    features: Float[Array, "n f"],
    weights: Float[Array, " n"],
    key: PRNGKeyArray,
    options: Options,
    *,
    mesh: Mesh,
) -> tuple[KMeansResult, ...]:
    """Run `cgjax.clustering.kmeans.lloyd.fit` with the rows split over a mesh.

    Args:
        features: (n, f) float32, rows split over the mesh; n is a multiple of its size.
        weights: (n,) float32, split alike: 1 for rows that count and 0 for padding.
        key: random key.
        options: how to search.
        mesh: from `cgjax.runtime.mesh.data_mesh`.

    Returns:
        A result for each number of clusters; labels and margins are split over the mesh as the rows
        are (those of padding rows are arbitrary), everything else is on every device.
    """

    def fit_shard(
        features: Array, weights: Array, key: PRNGKeyArray, options: Options
    ) -> tuple[KMeansResult, ...]:
        return fit(features, key, options, weights=weights, axis_name=DATA_AXIS)

    own = P(DATA_AXIS)
    specs: Any = [own if f in ("labels", "margins") else P() for f in KMeansResult._fields]
    return jax.shard_map(
        fit_shard,
        mesh=mesh,
        in_specs=(own, own, P(), P()),
        out_specs=(KMeansResult(*specs),) * len(options.numbers),
    )(features, weights, key, options)
