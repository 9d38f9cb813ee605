"""The stage that finds the clusters: it clusters the features of the latents at the layer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import numpy as np
from absl import logging
from jax.sharding import Mesh
from jaxtyping import Float

from cgjax.config.leaves import AUTO
from cgjax.features.in_memory import features_in
from cgjax.figures.clusters import means, principal_components
from cgjax.regions.clustering import Clustering, save_clustering
from cgjax.regions.names import restore_or_begin
from cgjax.regions.small import small_clusters
from cgjax.run.run import Run
from cgjax.runtime.files import make_folder, write_atomically
from cgjax.runtime.keys import named_key
from cgjax.runtime.png import to_png
from cgjax.runtime.processes import Processes, by_the_first
from cgjax.stages.encoding import LayerEncoder, choose, clustering_of
from cgjax.stages.graph import Maker
from cgjax.stages.latents import latents_of

# Limits of the latents in pca.png: their number, and the size of their features in MB.
PCA_ROWS, PCA_MB = 2000, 256


class ClusterStage:
    """Encoding and clustering of a run, in memory or streamed, by one process or several."""

    def __init__(self, run: Run, maker: Maker, mesh: Mesh | None, check: Callable[..., None]):
        """Prepare.

        Args:
            run: the run.
            maker: of its artifacts.
            mesh: the devices to cluster on, or None for one.
            check: called between units of work, with what is kept if it raises to stop.
        """
        self.run, self.maker, self.mesh, self.check = run, maker, mesh, check
        self.processes: Processes = maker.processes
        self._first: Float[np.ndarray, "m f"] | None = None  # features for pca.png, if computed

    def run_all(self) -> None:
        """Find the clusters if they are not current, and send them to every process."""
        if self.maker.result("cluster") is None:
            self._cluster()
        if self.processes.num > 1:
            path = self.run.folder.clusters
            self.run.held.set_own(
                self.processes.send(path.read_bytes() if self.processes.is_first else b"")
            )
        self._name()
        self._draw_figures()

    @by_the_first
    def _name(self) -> None:
        folder = self.run.folder
        restore_or_begin(folder.names, folder.old_names, self.run.clustering)

    def _cluster(self) -> None:
        run, settings = self.run, self.run.config["cluster"]
        encoder = LayerEncoder(
            run.generator,
            settings,
            run.folder.root,
            mesh=self.mesh,
            processes=self.processes,
            check=self.check,
        )
        with self.maker.making("cluster", in_parts=True) as result:
            with self.maker.timed("encode"):
                latents = latents_of(run, self.maker)
                is_chosen = settings["num_clusters"] == AUTO
                num = settings["max_clusters" if is_chosen else "num_clusters"]
                encoded = encoder.encode(latents, num)
            with self.maker.timed("cluster"), closing(encoded):
                if is_chosen:
                    choice = choose(encoded, num, named_key(run.root_key, "choose"))
                    logging.info("%s: %s", run.generator.layer, choice.reason)
                    num, result["choice"] = choice.num_clusters, choice.summary()
                key = named_key(run.root_key, "cluster")
                (kmeans,) = encoder.cluster(encoded, [num], latents, key)
                clustering = clustering_of(kmeans, run.generator.layer, encoded.space)
                _warn_if_small(clustering)
                if self.processes.is_first:
                    save_clustering(run.folder.clusters, clustering, latents)
                if self.processes.num == 1:
                    self._first = encoded.first(_num_shown(clustering))
                storage = encoded.storage
            result |= {
                "layer": clustering.layer,
                "num_clusters": clustering.num,
                "shares": clustering.shares.tolist(),
                "inertia": float(kmeans.inertia),
                "num_iter": int(kmeans.num_iter),
                "features": storage,
                "fitted_latents": encoded.num,
                "digest": clustering.digest,
            }
        logging.info(
            "%s: %d clusters of %d latents, shares %s",
            clustering.layer,
            clustering.num,
            len(clustering.labels),
            ", ".join(f"{s:.3f}" for s in clustering.shares),
        )
        self._tell_of_sweep()

    @by_the_first
    def _tell_of_sweep(self) -> None:
        """Say which sweep's clustering has another id now that the run has its own."""
        for id_, one in self.run.held.all.items():
            if id_ != one.id:
                logging.info(
                    "%s now means these clusters; those of the sweep, with any names that they "
                    "were given, are %s",
                    *(one.id, id_),
                )

    @by_the_first
    def _draw_figures(self) -> None:
        """Draw the figures of the clusters: principal components, and means."""
        if self.maker.result("cluster figures") is not None:
            return
        run = self.run
        clustering, latents, generator = run.clustering, run.latents, run.generator
        with self.maker.making("cluster figures"):
            first = self._first
            if first is None:
                shown = latents[: _num_shown(clustering)]
                first = features_in(generator, shown, clustering.space)
            shape = generator.feature_shape
            make_folder(run.folder.figures)
            plotted = principal_components(clustering, first, latents)
            pictures = {
                "pca.png": plotted.png,
                "pca.pdf": plotted.pdf,
                "means.png": to_png(means(generator, clustering, latents, shape)),
            }
            for name, content in pictures.items():
                write_atomically(run.folder.figures / name, content)


def _num_shown(clustering: Clustering) -> int:
    """Return how many latents the picture of principal components shows."""
    limit = max(3, min(PCA_ROWS, PCA_MB * 2**20 // (4 * clustering.centroids.shape[1])))
    return min(limit, len(clustering.labels))


def _warn_if_small(clustering: Clustering) -> None:
    counts = np.bincount(clustering.labels, minlength=clustering.num)
    for c, count in enumerate(counts):
        if count < 100:
            logging.warning(
                "cluster %d has %d of %d latents: expect repeated samples; raise "
                "--config.latents.num or lower --config.cluster.num_clusters",
                *(c, count, counts.sum()),
            )
    for c in small_clusters(clustering):
        logging.warning(
            "cluster %d has %.1f%% of the latents, less than a tenth of an equal share: outliers "
            "rather than a group; try --config.cluster.space=spherical",
            *(c, 100 * clustering.shares[c]),
        )
