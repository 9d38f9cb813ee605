"""The clusterings that a run holds: its own, a sweep's, those inside clusters; and regions of them.

All have labels for the same latents, so that a query over several of them has members.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from cgjax.config.splits import Split, shown_path, splits_of
from cgjax.errors import UserError
from cgjax.generators.base import layer_index
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.regions.clustering import Clustering, parse_clustering
from cgjax.regions.compound import Intersection
from cgjax.regions.names import Entry, find_clusters, read_entries
from cgjax.regions.query import quoted
from cgjax.regions.region import WHOLE, ClusterRegion, MarginRange, Region
from cgjax.regions.resolve import find_clustering, find_region
from cgjax.run.artifacts import (
    clustering_place,
    split_name,
    split_place,
    sweep_numbers,
    swept,
)
from cgjax.run.folder import RunFolder
from cgjax.run.manifests import Manifests

Own = Callable[[], tuple[Clustering, Float[np.ndarray, "n d"]]]
"""Returns the run's own clustering and its latents; a UserError before they are there."""


class HeldClusterings:
    """The clusterings of one run, read when they are asked for.

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
        at_layer: Callable[[str], ConditionedGenerator],
        layers: Sequence[str],
        own: Own,
    ):
        """Read nothing yet.

        Args:
            folder: the run's.
            manifests: of its artifacts.
            config: its config.
            at_layer: returns its generator at another layer; a UserError where there is no such.
            layers: of a sweep.
            own: see `Own`.
        """
        self._folder, self._manifests, self._own = folder, manifests, own
        self.sweep_layers, self.sweep_numbers = list(layers), sweep_numbers(config)
        self.splits = splits_of(config)
        self._layers = {str(split): at_layer(split.layer).layer for split in self.splits}
        self._all: dict[str, Clustering] = {}
        self._read_of: list[bool] | None = None

    @property
    def has_own(self) -> bool:
        """Whether the clustering of the config itself is there, not only those of a sweep."""
        return self._manifests.result("cluster") is not None

    @property
    def all(self) -> dict[str, Clustering]:
        """The clusterings of all latents by their ids: the run's own first, then a sweep's.

        A sweep's clustering with the layer and the number of the run's own is left out. Read again
        when others are there than were before: a run may be served for long.
        """
        there = [self.has_own, *(self._is_swept(layer) for layer in self.sweep_layers)]
        if self._read_of != there:
            self._all, self._read_of = self._read_all(), there
        return self._all

    def _is_swept(self, layer: str) -> bool:
        return self._manifests.result(swept(layer)) is not None

    def _read_all(self) -> dict[str, Clustering]:
        found: dict[str, Clustering] = {}
        if self.has_own:
            own, _ = self._own()
            found[own.id] = own
        for layer in filter(self._is_swept, self.sweep_layers):
            found |= {one.id: one for one in self.swept(layer) if one.id not in found}
        return found

    def swept(self, layer: str) -> list[Clustering]:
        """Return a sweep's clusterings of one layer, by ascending number.

        Raises:
            UserError: before they are there, or if they are of another config.
        """
        self._manifests.require(swept(layer))
        places = [clustering_place(layer, number) for number in self.sweep_numbers]
        return [self._read(place, layer, self.latents) for place in places]

    @functools.cached_property
    def latents(self) -> Float[np.ndarray, "n d"]:
        """The latents of the run, whether they are clustered or not yet."""
        self._manifests.require("latents")
        return np.load(self._folder.latents, allow_pickle=False)

    def inside(self, split: Split) -> Clustering:
        """Return the clustering inside a cluster; its labels are of all of the run's latents.

        Raises:
            UserError: before it is there, or if it is of another config.
        """
        self._manifests.require(split_name(split.path))
        _, latents = self._own()
        return self._read(split_place(split), self._layers[str(split)], latents)

    def _read(self, place: str, layer: str, latents: Float[np.ndarray, "n d"]) -> Clustering:
        path = self._folder.root / place
        return parse_clustering(path.read_bytes(), path, layer, latents)[0]

    def names_path(self, one: Clustering) -> Path:
        """Return where the names in a clustering are kept; but for the run's own by its digest."""
        if self.has_own and one is self._own()[0]:
            return self._folder.names
        return self._folder.old_names / f"{one.digest[:16]}.json"

    def entries_of(self, one: Clustering) -> list[Entry]:
        """Return the names in a clustering."""
        return read_entries(self.names_path(one), one)

    def named(self) -> list[Clustering]:
        """Return every clustering that is there and can have names: all, and those inside."""
        known = self.all
        others = [
            one
            for layer in filter(self._is_swept, self.sweep_layers)
            for one in self.swept(layer)
            if one.id in known and one.digest != known[one.id].digest
        ]
        inside = [
            self.inside(split)
            for split in self.splits
            if self._manifests.result(split_name(split.path)) is not None
        ]
        return [*known.values(), *inside, *others]

    def cluster(self, text: str) -> tuple[Clustering, int]:
        """Return the one cluster that a user means, by its clustering and its id.

        Args:
            text: an id, a name, a path such as "0/1", or a clustering's cluster, "layer2-k2=0".

        Raises:
            UserError: as `region`; or if it is not one cluster.
        """
        region = self.region(text, WHOLE)
        if isinstance(region, Intersection) and not set(text) & set("&|!"):
            region = region.parts[-1]  # a path: it lies in those on the way
        if not isinstance(region, ClusterRegion):
            raise UserError(
                f"--cluster={text} is not one cluster; give its id, as in --cluster=0 or "
                "--cluster=layer2-k2=0"
            )
        return region.clustering, region.cluster

    def asked(self, one: Clustering, c: int) -> str:
        """Return what is typed after --cluster for a cluster: an id, a path, or "layer2-k2=0"."""
        if self.has_own and one.digest == self._own()[0].digest:
            return str(c)
        for split in self.splits:
            part = split_name(split.path)
            there = self._manifests.result(part) is not None
            if there and one.digest == self.inside(split).digest:
                return f"{shown_path(split.path)}/{c}"
        return f"{quoted(one.id)}={c}"

    def asked_by_name(self, one: Clustering, c: int) -> str:
        """Return the same, or its name where that means this cluster and no other."""
        name = self.entries_of(one)[c]["name"]
        try:
            found, number = self.cluster(quoted(name)) if name else (None, c)
        except UserError:  # several of that name, or a sign of queries in it
            return self.asked(one, c)
        is_it = found is not None and (found.digest, number) == (one.digest, c)
        return quoted(name) if name and is_it else self.asked(one, c)

    def region(self, cluster: int | str, margin: MarginRange) -> Region:
        """Return what a user asks for; see `Run.region`."""
        known = self.all
        if not known:
            self._manifests.require("cluster")
        named = {name: (one, self.entries_of(one)) for name, one in known.items()}
        own = self._own()[0].id if self.has_own else None
        return find_region(cluster, named, own, margin, self._leaf if self.splits else None)

    def alike(self, name: str | None) -> list[Region]:
        """Return every cluster of one clustering.

        Args:
            name: of a clustering, as in a query; or the path of a cluster that is split, for those
                inside it; None for the run's own clustering.

        Raises:
            UserError: a clustering that the run does not hold.
        """
        for split in self.splits:
            if shown_path(split.path) == name:
                inside = range(split.num_clusters)
                return [self.region_inside((*split.path, c)) for c in inside]
        if name is None:
            one = self._own()[0]
        else:
            one = self.all[
                find_clustering(name, self.all, self._own()[0].id if self.has_own else None)
            ]
        return [ClusterRegion(one, c) for c in range(one.num)]

    @property
    def leaves(self) -> list[tuple[int, ...]]:
        """The paths of the clusters inside clusters that are not split again."""
        paths = [(*split.path, c) for split in self.splits for c in range(split.num_clusters)]
        return [path for path in paths if path not in {split.path for split in self.splits}]

    def region_inside(self, path: tuple[int, ...]) -> Region:
        """Return the cluster that a path of ids leads to: it lies in every cluster on the way.

        Raises:
            UserError: if a split on the way is not there.
        """
        parts: list[Region] = [ClusterRegion(self._own()[0], path[0])]
        for depth in range(1, len(path)):
            split = next(s for s in self.splits if s.path == path[:depth])
            parts.append(ClusterRegion(self.inside(split), path[depth]))
        return parts[0] if len(parts) == 1 else Intersection(tuple(parts))

    def _leaf(self, text: str) -> Region:
        """Return the region of a path as a user types it, of ids or names."""
        known = {split.path: split for split in self.splits}
        path: tuple[int, ...] = ()
        for step in text.split("/"):
            if path and path not in known:
                raise UserError(
                    f"--cluster={text}: cluster {shown_path(path)} is not split in this run, which "
                    f"splits {', '.join(map(shown_path, known))}; see --config.hierarchy.splits"
                )
            one = self.inside(known[path]) if path else self._own()[0]
            example = "/".join(map(str, (*path, 0)))
            inside = str(known[path]) if path else None
            found = find_clusters(step, self.entries_of(one), inside, example)
            if len(found) > 1:
                raise UserError(f"--cluster={text}: {step!r} names clusters {found}; give an id")
            path = (*path, found[0])
        return self.region_inside(path)


def layers_of(known: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Return the layers of these names or numbers, in the generator's order; all if none is given.

    Raises:
        UserError: for a layer that is not there.
    """
    try:
        indices = {layer_index(tuple(known), layer) for layer in wanted}
    except UserError as error:
        raise UserError(f"--config.sweep.layers: {error}") from error
    return [layer for i, layer in enumerate(known) if i in indices or not wanted]
