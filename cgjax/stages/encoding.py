"""The features of a run's latents at a layer, in memory or streamed, and clusterings of them.

Each of several processes has the same number of rows; the last shares are padded if need be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.sharding import Mesh
from jaxtyping import Array, Float, PRNGKeyArray

from cgjax.clustering import KMeansResult, kmeans
from cgjax.clustering.kmeans.sources import OnBlock
from cgjax.clustering.kmeans.streamed import extend
from cgjax.clustering.selection import Choice, choose_num_clusters, least_rows
from cgjax.clustering.trimmed import trimmed_kmeans
from cgjax.features.in_memory import features_in, size_to_cluster, space_at
from cgjax.features.spaces import RAW, Space
from cgjax.features.stream import FeatureStream
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.regions.clustering import Clustering
from cgjax.runtime.log import Progress
from cgjax.runtime.mesh import gather_rows, join_rows, own_rows, process_mesh
from cgjax.runtime.processes import ALONE, Processes

CHOICE_ROWS = 10_000
"""The most rows from which the number of clusters is chosen, unless a choice among so many clusters
needs more."""


class Encoded(NamedTuple):
    """The features of this process's latents.

    Attributes:
        features: (n, f) in memory, or a stream of them.
        weights: 1 for real rows and 0 for padding; None if all are real.
        num: the real rows of all processes.
        space: the space that the features were mapped to.
    """

    features: Float[np.ndarray, "n f"] | FeatureStream
    weights: Float[Array, " n"] | None
    num: int
    space: Space = RAW

    @property
    def storage(self) -> str:
        """Where the features are: "memory", "disk" or "recompute"."""
        return self.features.storage if isinstance(self.features, FeatureStream) else "memory"

    def first(self, num: int) -> Float[np.ndarray, "m f"]:
        """Return a copy of this process's first rows, at most `num`."""
        if isinstance(self.features, FeatureStream):
            return self.features.first(min(num, self.features.num_rows))
        return self.features[:num].copy()

    def close(self) -> None:
        """Release the file that a stream may have."""
        if isinstance(self.features, FeatureStream):
            self.features.close()


def choose(encoded: Encoded, max_clusters: int, key: PRNGKeyArray) -> Choice:
    """Choose a number of clusters from the first rows, which are independent draws.

    Args:
        encoded: the features.
        max_clusters: the largest number of clusters.
        key: of the choice.
    """
    num = max(CHOICE_ROWS, least_rows(max_clusters))
    return choose_num_clusters(encoded.first(num), max_clusters, key=key, num_rows=num)


class LayerEncoder:
    """Encodes latents at one layer and clusters their features."""

    def __init__(
        self,
        generator: ConditionedGenerator,
        settings: Mapping[str, Any],
        root: Path,
        *,
        mesh: Mesh | None = None,
        processes: Processes = ALONE,
        check: Callable[..., None] = lambda *_: None,
    ):
        """Prepare.

        Args:
            generator: with the layer.
            settings: the config's `cluster`; its number of clusters is not read.
            root: the run's folder, for features that are kept on disk.
            mesh: the devices to cluster on, or None for one.
            processes: those of the run.
            check: called between units of work, with what is kept if it raises to stop.
        """
        self.generator, self.settings, self.root = generator, settings, root
        self.mesh, self.processes, self.check = mesh, processes, check

    def encode(self, latents: Float[np.ndarray, "n d"], most_clusters: int) -> Encoded:
        """Return the features of the latents to cluster, streamed if they do not fit.

        Args:
            latents: of the run; the first `max_samples` of them are encoded.
            most_clusters: the largest number of clusters to find, which determines how often the
                rows are read.

        Raises:
            UserError: features that do not fit, for a method that needs them in memory.
        """
        latents = latents[: self.settings["max_samples"]]
        own, weights = self._share(latents)
        # Every process fits the same space, to the run's first latents.
        space = space_at(self.generator, latents, self.settings["space"])
        size_mb = size_to_cluster(self.generator, len(own), self.settings)
        if size_mb <= self.settings["memory_mb"]:
            progress = Progress("encode", len(own))

            def on_rows(done: int) -> None:
                progress.update(done)
                self.check("nothing is kept of the encoding")

            features = features_in(self.generator, own, space, on_rows)
            return Encoded(features, weights, len(latents), space)
        stream = FeatureStream(self.generator, own, space=space)
        # k-means++, the first iteration and the assignment read every row.
        reads, num = most_clusters + 2, self.processes.num
        speed = stream.choose_storage(self.root, num_reads=reads, num_files=num)
        logging.info(
            "encode: %.0f MB of features do not fit into --config.cluster.memory_mb=%d: %s (%s)",
            size_mb,
            self.settings["memory_mb"],
            "kept on disk" if stream.storage == "disk" else "recomputed when they are read",
            f"{stream.block} rows take {speed.compute:.3f} s to compute, {speed.write:.3f} s to "
            f"write, {speed.read:.3f} s to read"
            if speed
            else "no room for them on the disk",
        )
        return Encoded(stream, weights, len(latents), space)

    def cluster(
        self,
        encoded: Encoded,
        numbers: Sequence[int],
        latents: Float[np.ndarray, "n d"],
        key: PRNGKeyArray,
    ) -> list[KMeansResult]:
        """Cluster into each of these numbers, and assign the latents that were not encoded.

        Args:
            encoded: the first latents' features.
            numbers: of clusters; all of them share every pass over the features.
            latents: all of the run's.
            key: of the clustering.
        """
        settings = self.settings
        mesh = self.mesh if settings["backend"] == "jax" and not settings["trimmed"] else None
        data, weights = cast(Any, encoded.features), cast(Any, encoded.weights)
        is_streamed = isinstance(data, FeatureStream)
        if self.processes.num > 1 and mesh is not None and not is_streamed:
            data, weights = join_rows(data, encoded.num, mesh)
        results = cluster_rows(
            # On one device a CPU makes no copy, see features_in; several hold their own rows.
            data if is_streamed or mesh else jax.device_put(data),
            numbers,
            settings,
            key=key,
            mesh=mesh,
            weights=weights,
            on_block=self._report_block(),
        )
        if self.processes.num > 1:
            results = tuple(_gather(result, encoded.num) for result in results)
        return [self._assign_others(result, latents, encoded) for result in results]

    def _assign_others(
        self, result: KMeansResult, latents: Float[np.ndarray, "n d"], encoded: Encoded
    ) -> KMeansResult:
        """Assign the latents beyond `max_samples`, if there are any."""
        num = encoded.num
        if num == len(latents):
            return result
        logging.info(
            "clustered the first %d latents (--config.cluster.max_samples); assigning the other %d",
            *(num, len(latents) - num),
        )
        own, weights = self._share(latents[num:])
        return extend(
            result,
            FeatureStream(self.generator, own, space=encoded.space),
            weights=weights,
            mesh=process_mesh(self.mesh),
            on_block=self._report_block(),
        )

    def _share(
        self, latents: Float[np.ndarray, "n d"]
    ) -> tuple[Float[np.ndarray, "m d"], Float[Array, " m"] | None]:
        """Return this process's share of the latents, padded to the same size in every process."""
        if self.processes.num == 1 or self.mesh is None:
            return latents, None
        own = np.asarray(own_rows(len(latents), self.mesh))
        is_real = own < len(latents)
        return latents[np.where(is_real, own, -1)], jnp.asarray(is_real, jnp.float32)

    def _report_block(self) -> OnBlock:
        """Return what is called between the blocks of a streamed clustering."""
        progress: dict[str, Progress] = {}

        def on_block(what: str, done: int, total: int) -> None:
            if what != "fetch":
                progress.setdefault(what, Progress(f"cluster: {what}", total)).update(done)
            self.check("nothing is kept of the clustering")

        return on_block


def cluster_rows(
    data: Any,
    numbers: Sequence[int],
    settings: Mapping[str, Any],
    *,
    key: PRNGKeyArray,
    mesh: Mesh | None = None,
    weights: Any = None,
    on_block: OnBlock | None = None,
) -> tuple[KMeansResult, ...]:
    """Cluster rows into each of these numbers of clusters, with a config's settings.

    Args:
        data: (n, g) features in their space, or a source of them.
        numbers: of clusters.
        settings: the config's `cluster`; its number of clusters and its space are not read.
        key: of the clustering.
        mesh: see `kmeans`. Trimmed k-means ignores it and the next two: it works on one device,
            with all features in memory.
        weights: see `kmeans`.
        on_block: see `kmeans`.
    """
    search = {name: settings[name] for name in ("num_init", "max_iter", "tol")}
    if share := settings["trimmed"]:
        return tuple(trimmed_kmeans(data, k, key=key, share=share, **search) for k in numbers)
    search |= {"init": settings["init"], "backend": settings["backend"]}
    return kmeans(
        data, tuple(numbers), key=key, mesh=mesh, weights=weights, on_block=on_block, **search
    )


def clustering_of(result: KMeansResult, layer: str, space: Space = RAW) -> Clustering:
    """Return a result of k-means as the clustering of a layer, in a space."""
    labels, num = np.asarray(result.labels), len(result.centroids)
    return Clustering(
        layer=layer,
        centroids=np.asarray(result.centroids),
        labels=labels.astype(np.int32),
        margins=np.asarray(result.margins, np.float32),
        shares=np.bincount(labels, minlength=num) / len(labels),
        space=space,
    )


def _gather(result: KMeansResult, num: int) -> KMeansResult:
    """Return a result spread over processes as local arrays, with the labels of all rows."""

    def local(name: str, field: jax.Array) -> jax.Array:
        is_by_row = name in ("labels", "margins")
        return jnp.asarray(gather_rows(field, num) if is_by_row else np.asarray(field))

    return KMeansResult(**{name: local(name, field) for name, field in result._asdict().items()})
