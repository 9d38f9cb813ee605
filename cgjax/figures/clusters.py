"""Figures of a clustering: `means.png` and `pca.png`."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Float
from PIL import Image

from cgjax.errors import UserError
from cgjax.figures import plots, sheets
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.numerics.pca import fit_pca
from cgjax.regions.clustering import Clustering
from cgjax.regions.small import small_clusters

MEAN_IMAGES = 512
"""Number of images, at most, in a cluster's mean image."""


def titles(clustering: Clustering) -> list[str]:
    """Return a two-line title for each cluster: its id, its share, and whether it is small."""
    small = small_clusters(clustering)
    return [
        f"cluster {c}\n{100 * share:.1f}%{', small' if c in small else ''}"
        for c, share in enumerate(clustering.shares)
    ]


def principal_components(
    clustering: Clustering, first: Float[np.ndarray, "m f"], latents: Float[np.ndarray, "n d"]
) -> plots.Plot:
    """Plot the first latents in two principal components of their features and of the latents.

    Args:
        clustering: the clusters.
        first: (m, f) features of the first m latents.
        latents: (n, d) the clustered latents.
    """
    rows = len(first)
    panels = []
    for title, part in ((f"features of {clustering.layer}", first), ("latents", latents[:rows])):
        points, shares = np.zeros((rows, 2), np.float32), (0.0, 0.0)
        if rows > 2 and part.shape[1] > 1:
            pca = fit_pca(part, 2)
            points = pca.project(part)
            explained = pca.explained_variance / max(pca.total_variance, 1e-12)
            shares = (float(explained[0]), float(explained[1]))
        panels.append(plots.Panel(title, points, shares))
    title = f"{rows:,} latents of {clustering.id} in two principal components"
    return plots.draw_scatter(panels, clustering.labels[:rows], titles(clustering), title)


def means(
    generator: ConditionedGenerator,
    clustering: Clustering,
    latents: Float[np.ndarray, "n d"],
    shape: tuple[int, ...],
) -> Image.Image:
    """Show each cluster's mean image beside the image of its mean feature.

    Args:
        generator: at the clustered layer.
        clustering: the clusters.
        latents: (n, d) the clustered latents.
        shape: the shape of one latent's activation.
    """
    columns = ["mean image", "of mean feature"]
    rows = []
    for c in range(clustering.num):
        z = latents[clustering.labels == c][:MEAN_IMAGES]
        if not len(z):  # fewer distinct features than clusters
            z = latents[:1]
        pictures = [generator.images(z).mean(axis=0, keepdims=True)]
        # Only in the raw space is a centroid an activation.
        if clustering.space.name == "raw" and hasattr(generator.gen, "resume"):
            centroid = jnp.asarray(clustering.centroids[c]).reshape(1, *shape)
            try:
                mean = jnp.asarray(z.mean(axis=0, keepdims=True))
                pictures.append(np.asarray(generator.resume(centroid, mean)))
            except UserError as error:
                logging.warning("no image of the mean feature: %s", error)
        rows.append(np.concatenate(pictures))
    title = f"{clustering.id}: means"
    return sheets.contact_sheet(rows, titles(clustering), columns[: len(rows[0])], title)
