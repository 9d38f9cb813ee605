"""The stages that find the clusters: draw latents, run them to the layer, group their features."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.sharding import Mesh

from cgjax.clustering import kmeans
from cgjax.clustering.kmeans.results import KMeansResult
from cgjax.clustering.kmeans.sources import OnBlock
from cgjax.clustering.kmeans.streamed import extend
from cgjax.errors import UserError
from cgjax.features import stream as encoding
from cgjax.figures import sheets as figures
from cgjax.figures.clusters import means, principal_components
from cgjax.regions import clustering as clusters
from cgjax.run.artifacts import Stages
from cgjax.run.run import Run
from cgjax.runtime.files import write_atomically, write_json
from cgjax.runtime.keys import named_key
from cgjax.runtime.log import Progress
from cgjax.runtime.mesh import gather_rows, join_rows, own_rows, process_mesh
from cgjax.runtime.processes import Processes, by_the_first

# Latents in pca.png: so many, or as many as have features of so many MB.
PCA_ROWS, PCA_MB = 2000, 256


class ClusterStage:
    """Encoding and clustering of a run, in memory or streamed, by one process or several."""

    def __init__(
        self,
        run: Run,
        stages: Stages,
        processes: Processes,
        mesh: Mesh | None,
        fingerprint: str,
        check: Callable[..., None],
    ):
        """Prepare.

        Args:
            run: the run.
            stages: where it is written down what is done.
            processes: those of the run.
            mesh: the devices to cluster on, or None for one.
            fingerprint: of what the clusters depend on.
            check: called between units of work with what is kept; may raise to stop.
        """
        self.run, self.stages, self.processes, self.mesh = run, stages, processes, mesh
        self.fingerprint, self.check = fingerprint, check

    def run_all(self) -> None:
        """Find the clusters if they are not there, and know them in every process."""
        if not self._is_clustered():
            self._cluster()
        if self.processes.num > 1:
            data = self.run.folder.clusters.read_bytes() if self.processes.is_first else b""
            self.run.clusters = clusters.parse(self.processes.send(data), self.run.folder.clusters)

    @by_the_first
    def _is_clustered(self) -> bool:
        found = self.stages.result("cluster", self.fingerprint)
        return found is not None and self.run.folder.clusters.is_file()

    def _cluster(self) -> None:
        run, config = self.run, self.run.config
        fingerprint = self.fingerprint
        settings = config["cluster"]
        with self.stages.run("encode", fingerprint):
            latents = self._draw_latents(config["latents"]["num"])
            fitted = latents[: settings["max_samples"]]
            own, are_own = self._own(fitted)
            features, shape = self._encode(own)
        streamed = features if isinstance(features, encoding.FeatureStream) else None
        with self.stages.run("cluster", fingerprint) as result, streamed or nullcontext():
            mesh = self.mesh if settings["backend"] == "jax" else None
            data, weights = cast(Any, features), cast(Any, are_own)
            if self.processes.num > 1 and mesh is not None and not streamed:
                data, weights = join_rows(data, len(fitted), mesh)
            found = kmeans(
                # One device: no copy on a CPU, see all_features. Several: each its own rows.
                data if streamed or mesh else jax.device_put(data),
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
            del data
            if self.processes.num > 1:
                found = _gather(found, len(fitted))
            if len(fitted) < len(latents):
                logging.info(
                    "clustered the first %d latents (--config.cluster.max_samples); assigning the "
                    "other %d",
                    len(fitted),
                    len(latents) - len(fitted),
                )
                own, are_own = self._own(latents[len(fitted) :])
                found = extend(
                    found,
                    encoding.FeatureStream(run.generator, own),
                    weights=are_own,
                    mesh=process_mesh(self.mesh),
                    on_block=self._report_block(),
                )
            labels = np.asarray(found.labels)
            counts = np.bincount(labels, minlength=settings["num_clusters"])
            made = clusters.Clusters(
                centroids=np.asarray(found.centroids),
                labels=labels.astype(np.int32),
                margins=np.asarray(found.margins, np.float32),
                shares=counts / len(labels),
                latents=latents,
            )
            self._warn_if_small(counts)
            self._keep(made, self._first_rows(features, made), shape)
            del features
            result |= {
                "layer": run.generator.layer,
                "num_clusters": made.num,
                "shares": made.shares.tolist(),
                "inertia": float(found.inertia),
                "num_iter": int(found.num_iter),
                "features": streamed.storage if streamed else "memory",
                "fitted_latents": len(fitted),
            }
            logging.info(
                "%s: %d clusters of %d latents, shares %s",
                run.generator.layer,
                made.num,
                len(labels),
                ", ".join(f"{s:.3f}" for s in made.shares),
            )

    def _own(self, latents: np.ndarray) -> tuple[np.ndarray, jax.Array | None]:
        """Return this process's part of the latents, filled up: every process has as many.

        Also 1 for those that count and 0 for what fills up; None where there is one process.
        """
        if self.processes.num == 1 or self.mesh is None:
            return latents, None
        own = np.asarray(own_rows(len(latents), self.mesh))
        is_real = own < len(latents)
        return latents[np.where(is_real, own, -1)], jnp.asarray(is_real, jnp.float32)

    @by_the_first
    def _keep(self, made: clusters.Clusters, first: np.ndarray, shape: tuple[int, ...]) -> None:
        """Write the clusters and what they show; `first` are the features of the first latents."""
        folder = self.run.folder
        folder.figures.mkdir(parents=True, exist_ok=True)
        pictures = {
            "pca.png": principal_components(self.run.generator.layer, first, made),
            "means.png": means(self.run.generator, made, shape),
        }
        for name, picture in pictures.items():
            write_atomically(folder.figures / name, figures.to_png(picture))
        # Names given to other clusters mean nothing here.
        write_json(folder.descriptions, clusters.describe(made))
        clusters.save_clusters(folder.clusters, made)

    def _first_rows(
        self, features: np.ndarray | encoding.FeatureStream, made: clusters.Clusters
    ) -> np.ndarray:
        """Return the features that the picture of principal components shows, the first rows."""
        most = max(3, min(PCA_ROWS, PCA_MB * 2**20 // (4 * made.centroids.shape[1])))
        if self.processes.num > 1:
            # The first process shows them, and some of them may be another's.
            num = most if self.processes.is_first else 1
            return self.run.generator.all_features(made.latents[:num])
        if isinstance(features, encoding.FeatureStream):
            return features.first(min(most, features.num_rows))
        return features[:most]

    def _draw_latents(self, num: int) -> np.ndarray:
        key, batch = named_key(self.run.root_key, "latents"), 4096
        rounds = range(math.ceil(num / batch))
        parts = [self.run.generator.sample_latents(named_key(key, r), batch) for r in rounds]
        return np.asarray(jnp.concatenate(parts)[:num])

    def _encode(
        self, latents: np.ndarray
    ) -> tuple[np.ndarray | encoding.FeatureStream, tuple[int, ...]]:
        """Return the (n, f) features, streamed if they do not fit, and one activation's shape."""
        generator, settings = self.run.generator, self.run.config["cluster"]
        shape = encoding.feature_dim(generator, latents)
        size_mb = 4 * len(latents) * math.prod(shape) / 2**20
        if size_mb <= settings["memory_mb"]:
            progress = Progress("encode", len(latents))

            def on_rows(done: int) -> None:
                progress.update(done)
                self.check("nothing is kept of the encoding")

            return encoding.all_features(generator, latents, on_rows), shape
        if settings["backend"] != "jax":
            raise UserError(
                f"the features of {len(latents)} latents take {size_mb:.0f} MB and "
                f"backend={settings['backend']} holds them in memory; raise "
                "--config.cluster.memory_mb or use --config.cluster.backend=jax"
            )
        stream = encoding.FeatureStream(generator, latents)
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
        return stream, shape

    def _report_block(self) -> OnBlock:
        """Return what is called between the blocks of a streamed clustering."""
        progress: dict[str, Progress] = {}

        def on_block(what: str, done: int, total: int) -> None:
            if what != "fetch":
                progress.setdefault(what, Progress(f"cluster: {what}", total)).update(done)
            self.check("nothing is kept of the clustering")

        return on_block

    def _warn_if_small(self, counts: np.ndarray) -> None:
        for c, count in enumerate(counts):
            if count < 100:
                logging.warning(
                    "cluster %d has %d of %d latents: expect repeated samples; raise "
                    "--config.latents.num or lower --config.cluster.num_clusters",
                    c,
                    count,
                    counts.sum(),
                )


def _gather(found: KMeansResult, num: int) -> KMeansResult:
    """Return a clustering over several processes as arrays of each of them, labels whole."""

    def whole(name: str, field: jax.Array) -> jax.Array:
        is_split = name in ("labels", "margins")
        return jnp.asarray(gather_rows(field, num) if is_split else np.asarray(field))

    return KMeansResult(**{name: whole(name, field) for name, field in found._asdict().items()})
