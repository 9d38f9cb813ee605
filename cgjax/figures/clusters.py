"""What a clustering looks like: `means.png` and `pca.png`."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Float
from PIL import Image

from cgjax.errors import UserError
from cgjax.figures import sheets
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.numerics.pca import fit_pca
from cgjax.regions.clustering import Clustering
from cgjax.regions.small import small_clusters

MEAN_IMAGES = 512


def titles(clustering: Clustering) -> list[str]:
    """Return a line for each cluster: its id, its share, and whether it is small."""
    small = small_clusters(clustering)
    return [
        f"cluster {c}\n{100 * share:.1f}%{', small' if c in small else ''}"
        for c, share in enumerate(clustering.shares)
    ]


def principal_components(
    clustering: Clustering, first: Float[np.ndarray, "m f"], latents: Float[np.ndarray, "n d"]
) -> Image.Image:
    """Plot the first latents in two principal components of their features and of themselves.

    Args:
        clustering: the clusters.
        first: features of the first m latents.
        latents: that were clustered.
    """
    rows = len(first)
    panels = []
    for title, part in ((clustering.layer, first), ("latents", latents[:rows])):
        panels.append(
            (f"PCA of {title}", fit_pca(part, 2).project(part))
            if rows > 2 and part.shape[1] > 1
            else (title, np.zeros((rows, 2), np.float32))
        )
    return sheets.scatter(panels, clustering.labels[:rows], titles(clustering))


def means(
    generator: ConditionedGenerator,
    clustering: Clustering,
    latents: Float[np.ndarray, "n d"],
    shape: tuple[int, ...],
) -> Image.Image:
    """Show each cluster's mean image beside the image of its mean feature.

    Args:
        generator: with its layer.
        clustering: the clusters.
        latents: that were clustered.
        shape: of one latent's activation.
    """
    columns = ["mean image", "of mean feature"]
    rows = []
    for c in range(clustering.num):
        z = latents[clustering.labels == c][:MEAN_IMAGES]
        if not len(z):  # fewer distinct features than clusters
            z = latents[:1]
        pictures = [generator.images(z).mean(axis=0, keepdims=True)]
        # A centroid of another space is no activation.
        if clustering.space.name == "raw" and hasattr(generator.gen, "resume"):
            centroid = jnp.asarray(clustering.centroids[c]).reshape(1, *shape)
            try:
                mean = jnp.asarray(z.mean(axis=0, keepdims=True))
                pictures.append(np.asarray(generator.resume(centroid, mean)))
            except UserError as error:
                logging.warning("no image of the mean feature: %s", error)
        rows.append(np.concatenate(pictures))
    return sheets.contact_sheet(rows, titles(clustering), columns[: len(rows[0])])
