"""The clusterings that a run holds: its own, a sweep's and those inside clusters; regions of them.

All have labels for the same latents, so a query over several of them has members.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from cgjax.config.leaves import AUTO
from cgjax.config.splits import Split, shown_path, splits_of
from cgjax.errors import UserError
from cgjax.generators.base import layer_index
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.regions.acceptance import expected_acceptance, percent
from cgjax.regions.clustering import Clustering, parse_clustering
from cgjax.regions.compound import Nested, as_query
from cgjax.regions.names import Entry, archived, find_clusters, matching, read_entries
from cgjax.regions.query import quoted
from cgjax.regions.region import WHOLE, ClusterRegion, MarginRange, Region
from cgjax.regions.resolve import SWEPT, Resolver, find_clustering
from cgjax.run.artifacts import sweep_numbers
from cgjax.run.folder import RunFolder
from cgjax.run.manifests import Manifests
from cgjax.run.places import clustering_place, split_name, split_place, sweep_name


class HeldClusterings:
    """The clusterings of one run, each read when it is first asked for.

    Attributes:
        sweep_layers: the layers of a sweep, by name.
        sweep_numbers: its numbers of clusters, ascending.
        splits: the clusters that are clustered again, from the top down.
    """

    def __init__(
        self,
        folder: RunFolder,
        manifests: Manifests,
        config: Mapping[str, Any],
        generator: ConditionedGenerator,
        layers: Sequence[str],
    ):
        """Prepare; reads nothing yet.

        Args:
            folder: the run's folder.
            manifests: of the run's artifacts.
            config: the run's config.
            generator: with the run's layer.
            layers: of a sweep.

        Raises:
            UserError: a split by a layer that the generator does not have.
        """
        self._folder, self._manifests, self._config = folder, manifests, config
        self._own_layer, self._latent_dim = generator.layer, int(generator.gen.latent_dim)
        self.sweep_layers, self.sweep_numbers = list(layers), sweep_numbers(config)
        self.splits = splits_of(config)
        self._by_path = {split.path: split for split in self.splits}
        known = tuple(generator.gen.layers)
        self._layers = {str(split): _layer_of(split, known) for split in self.splits}
        self._known: dict[str, tuple[str, list[Clustering]]] = {}

    @property
    def has_own(self) -> bool:
        """Whether the clustering that the config asks for is there, not only those of a sweep."""
        return self._manifests.result("cluster") is not None

    @property
    def is_own_made(self) -> bool:
        """Whether that clustering was made, though it may be stale or damaged now."""
        return self._folder.clusters.exists() or "cluster" in self._manifests.recorded()

    @functools.cached_property
    def own(self) -> tuple[Clustering, Float[np.ndarray, "n d"]]:
        """The run's own clustering and the latents that were clustered.

        Raises:
            UserError: if it is not there yet, or is of another config.
        """
        self._manifests.require("cluster")
        return self.parse_own(self._folder.clusters.read_bytes())

    def set_own(self, data: bytes) -> None:
        """Take the content of `clusters.npz` from another process."""
        self.own = self.parse_own(data)

    def parse_own(self, data: bytes) -> tuple[Clustering, Float[np.ndarray, "n d"]]:
        """Parse the content of `clusters.npz`, and check that it fits the generator and config."""
        path, settings = self._folder.clusters, self._config["cluster"]
        clustering, latents = parse_clustering(data, path, self._own_layer)
        num = settings["num_clusters"]
        if latents.shape[1] != self._latent_dim or num not in (clustering.num, AUTO):
            raise UserError(
                f"{path} has {clustering.num} clusters of latents of length {latents.shape[1]}; "
                f"this run has {num} of length {self._latent_dim}; remove it and run again to "
                "recompute it"
            )
        if clustering.space.name != settings["space"]:
            raise UserError(
                f"{path} has clusters of {clustering.space.name} features; this run has "
                f"--config.cluster.space={settings['space']}; remove it and run again to "
                "recompute it"
            )
        return clustering, latents

    @property
    def latents(self) -> Float[np.ndarray, "n d"]:
        """The run's latents, whether they are clustered or not yet."""
        return self.own[1] if self.has_own else self._drawn_latents

    @functools.cached_property
    def _drawn_latents(self) -> Float[np.ndarray, "n d"]:
        self._manifests.require("latents")
        return np.load(self._folder.latents, allow_pickle=False)

    @property
    def all(self) -> dict[str, Clustering]:
        """The clusterings of all latents by their ids: the run's own first, then a sweep's.

        A sweep's clustering that equals the run's own is left out.
        """
        own = [self.own[0]] if self.has_own else []
        clusterings: dict[str, Clustering] = {}
        for one in (*own, *self._all_swept()):
            clusterings.setdefault(self.id_of(one), one)
        return clusterings

    def id_of(self, one: Clustering) -> str:
        """Return the id of a clustering of all latents: "layer2-k2", which the run's own takes.

        A sweep's other clustering of that layer and number is "sweep:layer2-k2".
        """
        is_taken = self.has_own and one.id == self.own[0].id and one.digest != self.own[0].digest
        return SWEPT + one.id if is_taken else one.id

    def _all_swept(self) -> list[Clustering]:
        layers = [x for x in self.sweep_layers if self._manifests.result(sweep_name(x)) is not None]
        return [one for layer in layers for one in self.swept(layer)]

    def swept(self, layer: str) -> list[Clustering]:
        """Return a sweep's clusterings of one layer, by ascending number.

        Raises:
            UserError: if they are not there yet, or are of another config.
        """
        places = [clustering_place(layer, number) for number in self.sweep_numbers]
        return self._read(sweep_name(layer), places, layer)

    def inside(self, split: Split) -> Clustering:
        """Return the clustering inside a cluster; its labels are of all of the run's latents.

        Raises:
            UserError: if it is not there yet, or is of another config.
        """
        name = split_name(split.path)
        return self._read(name, [split_place(split)], self._layers[str(split)])[0]

    def _read(self, name: str, places: Sequence[str], layer: str) -> list[Clustering]:
        """Return the clusterings of an artifact; parses its files again when they have changed."""
        version = self._manifests.version(name)
        if self._known.get(name, ("",))[0] != version:
            paths = [self._folder.root / place for place in places]
            parsed = [parse_clustering(p.read_bytes(), p, layer, self.latents)[0] for p in paths]
            self._known[name] = version, parsed
        return self._known[name][1]

    def names_path(self, one: Clustering) -> Path:
        """Return where the names in a clustering are kept."""
        if self.has_own and one is self.own[0]:
            return self._folder.names
        return archived(self._folder.old_names, one.digest)

    def entries_of(self, one: Clustering) -> list[Entry]:
        """Return the names in a clustering."""
        return read_entries(self.names_path(one), one)

    def named(self) -> list[Clustering]:
        """Return every clustering that can have names: `all`, and those inside clusters."""
        return [*self.all.values(), *map(self.inside, self._splits_there())]

    def _splits_there(self) -> list[Split]:
        result = self._manifests.result
        return [split for split in self.splits if result(split_name(split.path)) is not None]

    def region(self, cluster: int | str, margin: MarginRange) -> Region:
        """Return what a user asks for; see `Run.region`."""
        clusterings = self._to_choose_from()
        named = {id_: (one, self.entries_of(one)) for id_, one in clusterings.items()}
        inside = self._regions_inside if self.splits else None
        return Resolver(named, self._own_id, inside).region(cluster, margin)

    def _to_choose_from(self) -> dict[str, Clustering]:
        """Return `all`, for what a user asks for.

        Raises:
            UserError: there is none; or the run's own is damaged, whose ids and names would
                otherwise mean those of a sweep's clustering.
        """
        clusterings = self.all
        if self.is_own_made or not clusterings:
            self._manifests.require("cluster")
        return clusterings

    @property
    def _own_id(self) -> str | None:
        return self.own[0].id if self.has_own else None

    def _regions_inside(self, text: str) -> list[Region]:
        """Return the clusters inside clusters that a path or a name means; none for other names."""
        paths = [
            (*split.path, c)
            for split in self._splits_there()
            for c in matching(text, self.entries_of(self.inside(split)))
        ]
        if len({path[:-1] for path in paths}) > 1:
            raise UserError(
                f"--cluster: several splits have a cluster named {text!r}: "
                f"{', '.join(map(shown_path, paths))}; specify one, as in "
                f"--cluster={shown_path(paths[0])}"
            )
        if not paths and "/" in text:
            return [self._region_of_path(text)]
        return [self.region_inside(path) for path in paths]

    def _region_of_path(self, text: str) -> Region:
        """Return the region of a path as a user types it, of ids or names."""
        path: tuple[int, ...] = ()
        for step in text.split("/"):
            split = self._by_path.get(path)
            if path and split is None:
                raise self._not_split(text, shown_path(path))
            one = self.inside(split) if split else self.own[0]
            example = "/".join(map(str, (*path, 0)))
            inside = str(split) if split else None
            ids = find_clusters(step, self.entries_of(one), inside, example)
            if len(ids) > 1:
                raise UserError(f"--cluster={text}: {step!r} names clusters {ids}; give an id")
            path = (*path, ids[0])
        return self.region_inside(path)

    def _not_split(self, text: str, cluster: str) -> UserError:
        return UserError(
            f"--cluster={text}: cluster {cluster} is not split in this run, which splits "
            f"{', '.join(map(shown_path, self._by_path))}; see --config.hierarchy.splits"
        )

    def region_inside(self, path: tuple[int, ...]) -> Region:
        """Return the cluster that a path of ids leads to: inside every cluster on the way.

        Raises:
            UserError: if a split on the way is not there.
        """
        parts = [ClusterRegion(self.own[0], path[0])]
        for depth in range(1, len(path)):
            parts.append(ClusterRegion(self.inside(self._by_path[path[:depth]]), path[depth]))
        return parts[0] if len(parts) == 1 else Nested(tuple(parts))

    @property
    def leaves(self) -> list[tuple[int, ...]]:
        """The paths of the clusters inside clusters that are not split again."""
        paths = [(*split.path, c) for split in self.splits for c in range(split.num_clusters)]
        return [path for path in paths if path not in self._by_path]

    def clusters_of(self, name: str | None) -> list[Region]:
        """Return every cluster of one clustering.

        Args:
            name: of a clustering, as in a query; or a cluster that is split, by its path or name,
                for those inside it; None for the run's own clustering.

        Raises:
            UserError: a clustering that the run does not hold, or a cluster that is not split.
        """
        cluster = self._flag_named(name) if name is not None and self.splits else None
        for split in self.splits:
            if shown_path(split.path) in (name, cluster):
                return [self.region_inside((*split.path, c)) for c in range(split.num_clusters)]
        if name is None:
            one = self.own[0]
        elif cluster is not None:
            raise self._not_split(name, name)
        else:
            clusterings = self._to_choose_from()
            one = clusterings[find_clustering(name, clusterings, self._own_id)]
        return [ClusterRegion(one, c) for c in range(one.num)]

    def _flag_named(self, text: str) -> str | None:
        """Return the `cluster_flag` of the one cluster that a text means, or None."""
        if any(text in (name, one.layer) for name, one in self.all.items()):
            return None
        try:
            return self.cluster_flag(*self.cluster(text))
        except UserError:
            return None

    def cluster(self, text: str) -> tuple[Clustering, int]:
        """Return the one cluster that a user means, as its clustering and its id.

        Args:
            text: an id, a name, a path such as "0/1", or a clustering's cluster, "layer2-k2=0".

        Raises:
            UserError: as `region`; or if it is not one cluster.
        """
        region = self.region(text, WHOLE)
        if isinstance(region, Nested):
            region = region.parts[-1]  # lies inside the others
        if not isinstance(region, ClusterRegion):
            raise UserError(
                f"--cluster={text} is not one cluster; give its id, as in --cluster=0 or "
                "--cluster=layer2-k2=0"
            )
        return region.clustering, region.cluster

    def cluster_flag(self, one: Clustering, c: int) -> str:
        """Return the value of --cluster for a cluster: an id, a path, or "layer2-k2=0"."""
        if self.has_own and one.digest == self.own[0].digest:
            return str(c)
        for split in self._splits_there():
            if one.digest == self.inside(split).digest:
                return f"{shown_path(split.path)}/{c}"
        return f"{quoted(self.id_of(one))}={c}"

    def flag_of(self, whole: Region) -> str:
        """Return the value of --cluster for a region; a single cluster's without its margin."""
        if isinstance(whole, ClusterRegion):
            return self.cluster_flag(whole.clustering, whole.cluster)
        return as_query(whole, self.id_of)

    def named_cluster_flag(self, one: Clustering, c: int) -> str:
        """Return the cluster's name if it means this cluster and no other, else `cluster_flag`."""
        name = self.entries_of(one)[c]["name"]
        if not name:
            return self.cluster_flag(one, c)
        try:
            known, number = self.cluster(quoted(name))
        except UserError:  # several of that name, or a sign of queries in it
            return self.cluster_flag(one, c)
        is_same = (known.digest, number) == (one.digest, c)
        return quoted(name) if is_same else self.cluster_flag(one, c)

    def in_words(self, region: Region) -> str:
        """Return a region and its share: "cluster 1 (left), 4.12% of the prior"."""
        words = self.flag_of(region)
        if isinstance(region, ClusterRegion):
            name = self.entries_of(region.clustering)[region.cluster]["name"]
            margin = f", margin {region.margin}" if region.margin != WHOLE else ""
            words += (f" ({name})" if name else "") + margin
        return f"cluster {words}, {percent(expected_acceptance(region).share)} of the prior"


def _layer_of(split: Split, known: tuple[str, ...]) -> str:
    """Return the name of the layer that splits a cluster.

    Raises:
        UserError: the generator does not have it.
    """
    setting = f"--config.hierarchy.splits={split._replace(layer='{}')}"
    return known[layer_index(known, split.layer, setting)]


def layers_of(known: Sequence[str], asked: Sequence[str]) -> list[str]:
    """Return the layers with these names or numbers, in the generator's order; none asked: all.

    Raises:
        UserError: for a layer that the generator does not have.
    """
    try:
        indices = {layer_index(tuple(known), layer, "--config.sweep.layers={}") for layer in asked}
    except UserError as error:
        raise UserError(f"--config.sweep.layers: {error}") from error
    return [layer for i, layer in enumerate(known) if i in indices or not asked]
