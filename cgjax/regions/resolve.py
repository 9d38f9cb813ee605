"""What a query means in a run: its terms become clusters of the run's clusterings."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from cgjax.errors import UserError
from cgjax.regions.clustering import Clustering
from cgjax.regions.compound import Complement, Intersection, Union
from cgjax.regions.emptiness import is_empty
from cgjax.regions.names import Entry, find_clusters, is_id, matching
from cgjax.regions.query import AllOf, Not, Query, Term, parse_query, quoted
from cgjax.regions.region import WHOLE, ClusterRegion, MarginRange, Region

InsideResolver = Callable[[str], Sequence[Region]]
"""A path such as "0/1", or a name -> the clusters inside clusters that it means; none if it is a
name that they do not have."""

SWEPT = "sweep:"
"""Begins the id of a sweep's clustering that has the layer and the number of the run's own."""

Clusterings = Mapping[str, tuple[Clustering, list[Entry]]]
"""A run's clusterings by id, all of the same latents, each with the names of its clusters."""


class Resolver(NamedTuple):
    """What the clusters of queries are looked up in.

    Attributes:
        clusterings: all those of the run.
        main: the id of the clustering meant by a term without one, and by the name of its layer;
            None if there is none.
        find_inside: see `InsideResolver`; None in a run without clusters inside clusters.
    """

    clusterings: Clusterings
    main: str | None
    find_inside: InsideResolver | None = None

    def region(self, text: str | int, margin: MarginRange = WHOLE) -> Region:
        """Return the region that a user asks for with `--cluster` and `--margin`.

        A text that is the name of a cluster of the main clustering means that cluster, even if the
        name contains operators.

        Args:
            text: a cluster or a query.
            margin: applied to every cluster asked for; excluded clusters are excluded whole.

        Raises:
            UserError: as `parse_query` and `resolve`; also a query that nothing can match, and a
                margin without a cluster to apply it to.
        """
        cluster = str(text).strip()
        is_name = self.main is not None and bool(matching(cluster, self.clusterings[self.main][1]))
        region = self.resolve(Term(cluster) if is_name else parse_query(str(text)))
        part = region.with_margin(margin)
        if part.margin != margin:
            raise UserError(
                f"--margin={margin} selects part of a cluster, but --cluster={cluster} only "
                "excludes; add a cluster to draw from, or omit --margin"
            )
        if is_empty(region):
            raise UserError(
                f"--cluster={cluster} matches nothing: a latent lies in exactly one cluster of "
                "each clustering; use | to match any of several"
            )
        return part

    def resolve(self, query: Query, *, is_excluded: bool = False) -> Region:
        """Return the region that a query describes, or its complement.

        `!` is moved inwards to the clusters, to tell what is asked for from what is excluded:
        `!(a & !b)` is `!a | b`. A name that several clusters share means all of them.

        Raises:
            UserError: the run has no such clustering or cluster (lists those it has), or a name
                could mean several clusterings.
        """
        if isinstance(query, Not):
            return self.resolve(query.part, is_excluded=not is_excluded)
        if isinstance(query, Term):
            clusters = self._clusters(query)
            parts = [Complement(cluster) for cluster in clusters] if is_excluded else clusters
        else:
            parts = [self.resolve(part, is_excluded=is_excluded) for part in query.parts]
        if len(parts) == 1:
            return parts[0]
        return (Intersection if isinstance(query, AllOf) != is_excluded else Union)(tuple(parts))

    def _clusters(self, term: Term) -> Sequence[Region]:
        """Return the regions of a term: one cluster, all of that name, or one inside another."""
        is_bare = term.clustering is None and not is_id(term.cluster)
        if self.find_inside is not None and is_bare and not self._named(term.cluster):
            inside = self.find_inside(term.cluster)
            if inside:
                return inside
        name = self._clustering_of(term)
        clustering, entries = self.clusterings[name]
        is_ambiguous = len(self.clusterings) > 1 or term.clustering is not None
        ids = find_clusters(
            term.cluster,
            entries,
            clustering=name if is_ambiguous else None,
            example=f"{quoted(name)}=0" if is_ambiguous else "0",
        )
        return [ClusterRegion(clustering, c) for c in ids]

    def _named(self, cluster: str) -> list[str]:
        """Return the ids of the clusterings with a cluster of that name or id."""
        return [
            name for name, (_, entries) in self.clusterings.items() if matching(cluster, entries)
        ]

    def _clustering_of(self, term: Term) -> str:
        """Return the id of the clustering that a term's cluster belongs to."""
        main, cluster, names = self.main, term.cluster, self._named(term.cluster)
        if term.clustering is not None:
            known = {key: clustering for key, (clustering, _) in self.clusterings.items()}
            name = find_clustering(term.clustering, known, main, cluster, names)
            # Its clusters may have been named before the run's own clustering took the id.
            return SWEPT + name if name not in names and SWEPT + name in names else name
        if main is not None and (is_id(cluster) or main in names or not names):
            return main
        if len(names) == 1:
            return names[0]
        if names and not is_id(cluster):
            raise UserError(
                f"--cluster: several clusterings have a cluster named {cluster!r}: "
                f"{', '.join(names)}; specify one, as in {typed(names[0], cluster)}"
            )
        problem = "specify the clustering" if names else "no clustering has such a cluster"
        ids = list(self.clusterings)
        raise UserError(
            f"--cluster={cluster}: {problem}; this run has: {', '.join(ids)}; try "
            f"{example(ids, cluster, names)}"
        )


def find_clustering(
    name: str,
    clusterings: Mapping[str, Clustering],
    main: str | None,
    cluster: str | None = None,
    holders: Sequence[str] = (),
) -> str:
    """Return the id of the clustering with a given id or layer.

    Args:
        name: the id or the layer.
        clusterings: those of the run, by id.
        main: the id of the one meant by the name of its layer; None if there is none.
        cluster: the cluster asked for, for the message; None for the whole clustering.
        holders: the ids of the clusterings that have it, for the message.

    Raises:
        UserError: the run has no such clustering (lists those it has), or several of the layer.
    """
    if name in clusterings:
        return name
    of_layer = [key for key, clustering in clusterings.items() if clustering.layer == name]
    if main is not None and main in of_layer:
        return main
    if len(of_layer) == 1:
        return of_layer[0]
    if of_layer:
        raise UserError(
            f"--cluster: {name!r} could be {' or '.join(of_layer)}; specify one, as in "
            f"{example(of_layer, cluster, holders)}"
        )
    raise UserError(
        f"--cluster: no clustering {name!r} in this run; it has: {', '.join(clusterings)}; try "
        f"{example([main or next(iter(clusterings))], cluster, ())}"
    )


def example(clusterings: Sequence[str], cluster: str | None, holders: Sequence[str]) -> str:
    """Return the flag for a cluster of the first clustering that has it, else for cluster 0."""
    for name in clusterings:
        if cluster is None or name in holders:
            return typed(name, cluster)
    return typed(clusterings[0], "0")


def typed(clustering: str, cluster: str | None) -> str:
    """Return the flag for a cluster of a clustering, or for the whole clustering, shell-quoted.

    >>> print(typed("layer2-k2", 'left "side"'), typed("layer2-k2", None))
    '--cluster=layer2-k2=left "side"' --cluster=layer2-k2
    """
    value = quoted(clustering) + ("" if cluster is None else f"={quoted(cluster)}")
    return shlex.quote(f"--cluster={value}")
