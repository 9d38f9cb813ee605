"""Clusterings of the same latents, with features that match the labels."""

import jax.numpy as jnp
import numpy as np

from cgjax.clustering import assign
from cgjax.regions.clustering import Clustering
from cgjax.regions.names import unnamed


def centroids(num):
    """Centroids on a line, 10 apart."""
    return np.stack([10 * np.arange(num), np.zeros(num)], axis=1).astype(np.float32)


def clustering(layer, labels, num, margins=None):
    """A clustering with the given labels; all margins are 1 by default."""
    labels = np.asarray(labels, np.int32)
    return Clustering(
        layer=layer,
        centroids=centroids(num),
        labels=labels,
        margins=np.ones(len(labels), np.float32) if margins is None else margins,
        shares=np.bincount(labels, minlength=num) / len(labels),
    )


def planted(rng, layer, num, n):
    """A clustering and its (n, 2) features, at most 4 from their centroid along each axis."""
    labels = rng.integers(0, num, n)
    features = jnp.asarray(centroids(num)[labels] + rng.uniform(-4, 4, (n, 2)), jnp.float32)
    _, margins = assign(features, centroids(num))
    return clustering(layer, labels, num, np.asarray(margins)), features


def held(*clusterings, names=None):
    """A run's clusterings: (clustering, entries) by id; `names` maps (id, cluster) to a name."""
    by_id = {c.id: (c, unnamed(c)) for c in clusterings}
    for (key, cluster), name in (names or {}).items():
        by_id[key][1][cluster]["name"] = name
    return by_id
