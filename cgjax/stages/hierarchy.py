"""The stage that clusters inside a cluster, by the features of any layer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import numpy as np
from absl import logging
from jaxtyping import Float

from cgjax.config.splits import Split, settings_inside, shown_path
from cgjax.regions.clustering import Clustering, assign_latents, save_clustering
from cgjax.run.places import split_name, split_place
from cgjax.run.run import Run
from cgjax.runtime.files import make_folder
from cgjax.runtime.keys import named_key
from cgjax.stages.encoding import LayerEncoder, clustering_of
from cgjax.stages.graph import Maker
from cgjax.stages.inside import latents_inside


def make_splits(run: Run, maker: Maker, check: Callable[..., None]) -> None:
    """Cluster inside each cluster that the config splits, from the top down.

    Args:
        run: with its clusters.
        maker: of its artifacts.
        check: called between units of work, with what is kept if it raises to stop.
    """
    for split in run.held.splits:
        name = split_name(split.path)
        if maker.result(name) is not None:
            continue
        check("the finished splits are kept")
        with maker.making(name) as result:
            inside = run.held.region_inside(split.path)
            key = named_key(run.root_key, "split", str(split), "latents")
            num = run.config["hierarchy"]["num"] or len(run.latents)
            latents = latents_inside(
                run,
                inside,
                num,
                key,
                lambda: check("a split was not started"),
                "lower --config.hierarchy.num",
            )
            clustering, shares = _cluster(run, split, latents, check)
            make_folder(run.folder.root / "clusterings")
            save_clustering(run.folder.root / split_place(split), clustering)
            result |= {"split": str(split), "shares": shares, "num": len(latents)}
        logging.info(
            "cluster %s by %s: shares %s of %d latents in it",
            shown_path(split.path),
            split.layer,
            ", ".join(f"{share:.3f}" for share in shares),
            len(latents),
        )


def _cluster(
    run: Run, split: Split, latents: Float[np.ndarray, "m d"], check: Callable[..., None]
) -> tuple[Clustering, list[float]]:
    """Return the clustering of latents with labels for all of the run's, and its own shares."""
    generator = run.generator.at_layer(split.layer)
    settings = settings_inside(run.config)
    encoder = LayerEncoder(generator, settings, run.folder.root, check=check)
    encoded = encoder.encode(latents, split.num_clusters)
    with closing(encoded):
        key = named_key(run.root_key, "split", str(split))
        (kmeans,) = encoder.cluster(encoded, [split.num_clusters], latents, key)
    inner = clustering_of(kmeans, generator.layer, encoded.space)
    labels, margins = assign_latents(inner, generator, run.latents)
    shares = np.bincount(labels, minlength=inner.num) / len(labels)
    whole = inner._replace(labels=labels, margins=margins, shares=shares)
    return whole, inner.shares.tolist()
