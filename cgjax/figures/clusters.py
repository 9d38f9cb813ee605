"""What a clustering looks like: `means.png` and `pca.png`."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Float
from PIL import Image

from cgjax.errors import UserError
from cgjax.evaluation.features import fit_pca
from cgjax.figures import sheets as figures
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.regions.clustering import Clusters

MEAN_IMAGES = 512


def titles(made: Clusters) -> list[str]:
    """Return a line for each cluster: its id and its share."""
    return [f"cluster {c}\n{100 * share:.1f}%" for c, share in enumerate(made.shares)]


def principal_components(
    layer: str, first: Float[np.ndarray, "m f"], made: Clusters
) -> Image.Image:
    """Plot the first latents in two principal components of their features and of themselves.

    Args:
        layer: its name.
        first: features of the first m latents.
        made: the clusters.
    """
    rows = len(first)
    panels = []
    for title, part in ((layer, first), ("latents", made.latents[:rows])):
        panels.append(
            (f"PCA of {title}", fit_pca(part, 2).project(part))
            if rows > 2 and part.shape[1] > 1
            else (title, np.zeros((rows, 2), np.float32))
        )
    return figures.scatter(panels, made.labels[:rows], titles(made))


def means(generator: ConditionedGenerator, made: Clusters, shape: tuple[int, ...]) -> Image.Image:
    """Show each cluster's mean image beside the image of its mean feature.

    Args:
        generator: the generator and its layer.
        made: the clusters.
        shape: of one latent's activation.
    """
    columns = ["mean image", "of mean feature"]
    rows = []
    for c in range(made.num):
        z = made.latents[made.labels == c][:MEAN_IMAGES]
        if not len(z):  # fewer distinct features than clusters
            z = made.latents[:1]
        pictures = [generator.images(z).mean(axis=0, keepdims=True)]
        if hasattr(generator.gen, "resume"):
            centroid = jnp.asarray(made.centroids[c]).reshape(1, *shape)
            try:
                mean = jnp.asarray(z.mean(axis=0, keepdims=True))
                pictures.append(np.asarray(generator.resume(centroid, mean)))
            except UserError as error:
                logging.warning("no image of the mean feature: %s", error)
        rows.append(np.concatenate(pictures))
    return figures.contact_sheet(rows, titles(made), columns[: len(rows[0])])
