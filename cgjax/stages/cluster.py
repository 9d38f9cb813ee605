"""The stage that finds the clusters: latents are run to the layer and their features grouped."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.sharding import Mesh
from jaxtyping import Array, Float

from cgjax.clustering import KMeansResult, kmeans
from cgjax.clustering.kmeans.sources import OnBlock
from cgjax.clustering.kmeans.streamed import extend
from cgjax.errors import UserError
from cgjax.features.in_memory import all_features, feature_dim
from cgjax.features.stream import FeatureStream
from cgjax.figures.clusters import means, principal_components
from cgjax.regions.clustering import Clustering, save_clustering
from cgjax.regions.names import restore_or_begin
from cgjax.run.run import Run
from cgjax.runtime.files import make_folder, write_atomically
from cgjax.runtime.keys import named_key
from cgjax.runtime.log import Progress
from cgjax.runtime.mesh import gather_rows, join_rows, own_rows, process_mesh
from cgjax.runtime.png import to_png
from cgjax.runtime.processes import Processes, by_the_first
from cgjax.stages.graph import Maker
from cgjax.stages.latents import latents_of

# Latents in pca.png: at most this many, and at most as many as have features of this many MB.
PCA_ROWS, PCA_MB = 2000, 256


class Encoded(NamedTuple):
    """The features of this process's latents.

    Attributes:
        features: (n, f) in memory, or a stream of them.
        weights: 1 for rows that count and 0 for what fills a process's share up; None for all.
        num: rows that count, of all processes.
    """

    features: Float[np.ndarray, "n f"] | FeatureStream
    weights: Float[Array, " n"] | None
    num: int


class ClusterStage:
    """Encoding and clustering of a run, in memory or streamed, by one process or several."""

    def __init__(self, run: Run, maker: Maker, mesh: Mesh | None, check: Callable[..., None]):
        """Prepare.

        Args:
            run: the run.
            maker: of its artifacts.
            mesh: the devices to cluster on, or None for one.
            check: called between units of work with what is kept; may raise to stop.
        """
        self.run, self.maker, self.mesh, self.check = run, maker, mesh, check
        self.processes: Processes = maker.processes
        self._first: Float[np.ndarray, "m f"] | None = None  # for the picture, where they are known

    def run_all(self) -> None:
        """Find the clusters if they are not there, and know them in every process."""
        if self.maker.result("cluster") is None:
            self._cluster()
        if self.processes.num > 1:
            path = self.run.folder.clusters
            self.run.set_clusters(
                self.processes.send(path.read_bytes() if self.processes.is_first else b"")
            )
        self._name()
        self._draw_figures()

    @by_the_first
    def _name(self) -> None:
        folder = self.run.folder
        restore_or_begin(folder.names, folder.old_names, self.run.clustering)

    def _cluster(self) -> None:
        run, config = self.run, self.run.config
        settings = config["cluster"]
        with self.maker.making("cluster", in_parts=True) as result:
            with self.maker.timed("encode"):
                latents = latents_of(run, self.maker)
                encoded = self._encode(latents[: settings["max_samples"]])
            features = encoded.features
            streamed = features if isinstance(features, FeatureStream) else None
            with self.maker.timed("cluster"), streamed or nullcontext():
                found = self._assign_rest(self._fit(encoded), latents, encoded.num)
                labels = np.asarray(found.labels)
                counts = np.bincount(labels, minlength=settings["num_clusters"])
                clustering = Clustering(
                    layer=run.generator.layer,
                    centroids=np.asarray(found.centroids),
                    labels=labels.astype(np.int32),
                    margins=np.asarray(found.margins, np.float32),
                    shares=counts / len(labels),
                )
                _warn_if_small(counts)
                if self.processes.is_first:
                    save_clustering(run.folder.clusters, clustering, latents)
                if self.processes.num == 1:
                    self._first = _first_rows(encoded.features, _num_shown(clustering))
            result |= {
                "layer": clustering.layer,
                "num_clusters": clustering.num,
                "shares": clustering.shares.tolist(),
                "inertia": float(found.inertia),
                "num_iter": int(found.num_iter),
                "features": streamed.storage if streamed else "memory",
                "fitted_latents": encoded.num,
                "digest": clustering.digest,
            }
        logging.info(
            "%s: %d clusters of %d latents, shares %s",
            clustering.layer,
            clustering.num,
            len(labels),
            ", ".join(f"{s:.3f}" for s in clustering.shares),
        )

    def _fit(self, encoded: Encoded) -> KMeansResult:
        run, settings = self.run, self.run.config["cluster"]
        mesh = self.mesh if settings["backend"] == "jax" else None
        data, weights = cast(Any, encoded.features), cast(Any, encoded.weights)
        is_streamed = isinstance(data, FeatureStream)
        if self.processes.num > 1 and mesh is not None and not is_streamed:
            data, weights = join_rows(data, encoded.num, mesh)
        found = kmeans(
            # One device: no copy on a CPU, see all_features. Several: each its own rows.
            data if is_streamed or mesh else jax.device_put(data),
            settings["num_clusters"],
            key=named_key(run.root_key, "cluster"),
            num_init=settings["num_init"],
            max_iter=settings["max_iter"],
            tol=settings["tol"],
            init=settings["init"],
            backend=settings["backend"],
            mesh=mesh,
            weights=weights,
            on_block=self._report_block(),
        )
        return _gather(found, encoded.num) if self.processes.num > 1 else found

    def _assign_rest(
        self, found: KMeansResult, latents: Float[np.ndarray, "n d"], num: int
    ) -> KMeansResult:
        """Assign the latents that the clusters were not found with, if there are any."""
        if num == len(latents):
            return found
        logging.info(
            "clustered the first %d latents (--config.cluster.max_samples); assigning the other %d",
            *(num, len(latents) - num),
        )
        own, weights = self._own(latents[num:])
        return extend(
            found,
            FeatureStream(self.run.generator, own),
            weights=weights,
            mesh=process_mesh(self.mesh),
            on_block=self._report_block(),
        )

    def _own(
        self, latents: Float[np.ndarray, "n d"]
    ) -> tuple[Float[np.ndarray, "m d"], Float[Array, " m"] | None]:
        """Return this process's part of the latents, filled up: every process has as many."""
        if self.processes.num == 1 or self.mesh is None:
            return latents, None
        own = np.asarray(own_rows(len(latents), self.mesh))
        is_real = own < len(latents)
        return latents[np.where(is_real, own, -1)], jnp.asarray(is_real, jnp.float32)

    def _encode(self, latents: Float[np.ndarray, "n d"]) -> Encoded:
        """Return the features, streamed if they do not fit."""
        generator, settings = self.run.generator, self.run.config["cluster"]
        own, weights = self._own(latents)
        dim = math.prod(feature_dim(generator, own))
        size_mb = 4 * len(own) * dim / 2**20
        if size_mb <= settings["memory_mb"]:
            progress = Progress("encode", len(own))

            def on_rows(done: int) -> None:
                progress.update(done)
                self.check("nothing is kept of the encoding")

            return Encoded(all_features(generator, own, on_rows), weights, len(latents))
        if settings["backend"] != "jax":
            raise UserError(
                f"the features of {len(own)} latents take {size_mb:.0f} MB and "
                f"backend={settings['backend']} holds them in memory; raise "
                "--config.cluster.memory_mb or use --config.cluster.backend=jax"
            )
        stream = FeatureStream(generator, own)
        # k-means++, the first iteration and the assignment read every row.
        reads = settings["num_clusters"] + 2
        num = self.processes.num
        speed = stream.choose_storage(self.run.folder.root, num_reads=reads, num_files=num)
        logging.info(
            "encode: %.0f MB of features do not fit into --config.cluster.memory_mb=%d: %s (%s)",
            size_mb,
            settings["memory_mb"],
            "kept on disk" if stream.storage == "disk" else "recomputed when they are read",
            f"{stream.block} rows take {speed.compute:.3f} s to compute, {speed.write:.3f} s to "
            f"write, {speed.read:.3f} s to read"
            if speed
            else "no room for them on the disk",
        )
        return Encoded(stream, weights, len(latents))

    def _report_block(self) -> OnBlock:
        """Return what is called between the blocks of a streamed clustering."""
        progress: dict[str, Progress] = {}

        def on_block(what: str, done: int, total: int) -> None:
            if what != "fetch":
                progress.setdefault(what, Progress(f"cluster: {what}", total)).update(done)
            self.check("nothing is kept of the clustering")

        return on_block

    @by_the_first
    def _draw_figures(self) -> None:
        """Draw what the clusters show: principal components, and means."""
        if self.maker.result("cluster figures") is not None:
            return
        run = self.run
        clustering, latents, generator = run.clustering, run.latents, run.generator
        with self.maker.making("cluster figures"):
            first = self._first
            if first is None:
                first = generator.all_features(latents[: _num_shown(clustering)])
            shape = feature_dim(generator, latents)
            make_folder(run.folder.figures)
            pictures = {
                "pca.png": principal_components(clustering, first, latents),
                "means.png": means(generator, clustering, latents, shape),
            }
            for name, picture in pictures.items():
                write_atomically(run.folder.figures / name, to_png(picture))


def _num_shown(clustering: Clustering) -> int:
    """Return how many latents the picture of principal components shows."""
    limit = max(3, min(PCA_ROWS, PCA_MB * 2**20 // (4 * clustering.centroids.shape[1])))
    return min(limit, len(clustering.labels))


def _first_rows(
    features: Float[np.ndarray, "n f"] | FeatureStream, num: int
) -> Float[np.ndarray, "m f"]:
    if isinstance(features, FeatureStream):
        return features.first(min(num, features.num_rows))
    return features[:num].copy()


def _warn_if_small(counts: np.ndarray) -> None:
    for c, count in enumerate(counts):
        if count < 100:
            logging.warning(
                "cluster %d has %d of %d latents: expect repeated samples; raise "
                "--config.latents.num or lower --config.cluster.num_clusters",
                *(c, count, counts.sum()),
            )


def _gather(found: KMeansResult, num: int) -> KMeansResult:
    """Return a clustering over several processes as arrays of each of them, labels whole."""

    def whole(name: str, field: jax.Array) -> jax.Array:
        is_split = name in ("labels", "margins")
        return jnp.asarray(gather_rows(field, num) if is_split else np.asarray(field))

    return KMeansResult(**{name: whole(name, field) for name, field in found._asdict().items()})
