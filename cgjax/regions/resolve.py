"""What a query means in a run: its terms become clusters of the run's clusterings."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence

from cgjax.errors import UserError
from cgjax.regions.clustering import Clustering
from cgjax.regions.compound import Complement, Intersection, Union
from cgjax.regions.emptiness import is_empty
from cgjax.regions.names import Entry, find_clusters, is_id, matching
from cgjax.regions.query import AllOf, Not, Query, Term, parse_query, quoted
from cgjax.regions.region import WHOLE, ClusterRegion, MarginRange, Region

Leaf = Callable[[str], Region]
"""A path such as "0/1" -> the region of the cluster inside a cluster."""

Clusterings = Mapping[str, tuple[Clustering, list[Entry]]]
"""The clusterings of a run by their id, all of the same latents, and what people call their
clusters."""


def find_region(
    text: str | int,
    clusterings: Clusterings,
    main: str | None,
    margin: MarginRange = WHOLE,
    leaf: Leaf | None = None,
) -> Region:
    """Return what a user asks for with `--cluster` and `--margin`.

    A text that is the name of a cluster of the main clustering means this cluster, whatever
    operators are in the name.

    Args:
        text: a cluster or a query.
        clusterings: all of the run.
        main: the id of the one that is meant where none is named; None where there is no such one.
        margin: applied to every cluster that is asked for; what a query excludes is excluded whole.
        leaf: returns the region of a path such as "0/1", a cluster inside a cluster.

    Raises:
        UserError: as `parse_query` and `resolve_query`; also for a query that nothing can answer,
            and for a margin without any cluster that it could be applied to.
    """
    wanted = str(text).strip()
    is_name = main is not None and bool(matching(wanted, clusterings[main][1]))
    query = Term(wanted) if is_name else parse_query(str(text))
    if margin != WHOLE and not _asks_for_a_cluster(query):
        raise UserError(
            f"--margin={margin} is the part of a cluster, and --cluster={wanted} only excludes; "
            "add what to draw, or leave --margin out"
        )
    region = resolve_query(query, clusterings, main, leaf)
    if is_empty(region):
        raise UserError(
            f"--cluster={wanted} asks for nothing: a latent lies in exactly one cluster of a "
            "clustering; type | for what lies in any of several"
        )
    return region.with_margin(margin)


def resolve_query(
    query: Query, clusterings: Clusterings, main: str | None, leaf: Leaf | None = None
) -> Region:
    """Return the region that a query means.

    `!` is moved inwards to the clusters, so that what is asked for is told from what is excluded:
    `!(a & !b)` is `!a | b`. Clusters of one name answer together.

    Args:
        query: see `parse_query`.
        clusterings: all of the run.
        main: the id of the one that is meant by a term without any, and by the name of its layer;
            None where there is no such one.
        leaf: returns the region of a path; None in a run without clusters inside clusters.

    Raises:
        UserError: a clustering or cluster that the run does not hold, listing what it holds; a
            name that could mean several clusterings.
    """
    return _resolve(query, clusterings, main, leaf, is_excluded=False)


def _resolve(
    query: Query,
    clusterings: Clusterings,
    main: str | None,
    leaf: Leaf | None,
    *,
    is_excluded: bool,
) -> Region:
    if isinstance(query, Not):
        return _resolve(query.part, clusterings, main, leaf, is_excluded=not is_excluded)
    parts: list[Region]
    if isinstance(query, Term):
        clusters = _clusters(query, clusterings, main, leaf)
        parts = [Complement(cluster) if is_excluded else cluster for cluster in clusters]
    else:
        parts = [
            _resolve(part, clusterings, main, leaf, is_excluded=is_excluded) for part in query.parts
        ]
    if len(parts) == 1:
        return parts[0]
    return (Intersection if isinstance(query, AllOf) != is_excluded else Union)(tuple(parts))


def _clusters(
    term: Term, clusterings: Clusterings, main: str | None, leaf: Leaf | None
) -> Sequence[Region]:
    """Return the regions that a term means: one cluster, all of one name, or one inside another."""
    is_path = leaf is not None and term.clustering is None and "/" in term.cluster
    if leaf is not None and is_path and not _is_name(term.cluster, clusterings):
        return [leaf(term.cluster)]
    if term.clustering is None:
        named = _holding(term.cluster, clusterings, main)
    else:
        held = {name: one for name, (one, _) in clusterings.items()}
        named = find_clustering(term.clustering, held, main, term.cluster)
    clustering, entries = clusterings[named]
    shown = named if len(clusterings) > 1 or term.clustering else None
    example = f"{quoted(named)}=0" if shown else "0"
    found = find_clusters(term.cluster, entries, shown, example)
    return [ClusterRegion(clustering, c) for c in found]


def _is_name(cluster: str, clusterings: Clusterings) -> bool:
    return any(matching(cluster, entries) for _, entries in clusterings.values())


def _holding(cluster: str, clusterings: Clusterings, main: str | None) -> str:
    """Return the clustering that a cluster without any belongs to."""
    if main is not None and (is_id(cluster) or matching(cluster, clusterings[main][1])):
        return main
    found = [name for name, (_, entries) in clusterings.items() if matching(cluster, entries)]
    if len(found) > 1 and not is_id(cluster):
        raise UserError(
            f"--cluster: {cluster!r} is the name of clusters in {', '.join(found)}; say in which, "
            f"as in {typed(found[0], cluster)}"
        )
    if len(found) == 1 or main is not None:
        return found[0] if found else str(main)
    raise UserError(
        f"--cluster={cluster}: say in which clustering; this run holds {', '.join(clusterings)}; "
        f"try {typed(next(iter(clusterings)), cluster)}"
    )


def find_clustering(
    name: str,
    clusterings: Mapping[str, Clustering],
    main: str | None,
    cluster: str | None = None,
) -> str:
    """Return the id of the clustering that is named by its id or its layer.

    Args:
        name: the id or the layer.
        clusterings: of the run, by their ids.
        main: the id of the one that is meant by the name of its layer; None if there is none.
        cluster: what is asked of it, for the message; None for all of it.

    Raises:
        UserError: for a clustering that the run does not hold, listing what it holds; for a layer
            of several clusterings.
    """

    if name in clusterings:
        return name
    found = [known for known, clustering in clusterings.items() if clustering.layer == name]
    if len(found) == 1 or main in found:
        return main if main is not None and main in found else found[0]
    if found:
        raise UserError(
            f"--cluster: {name!r} may be {' or '.join(found)}; say which, as in "
            f"{typed(found[0], cluster)}"
        )
    raise UserError(
        f"--cluster: no clustering {name!r} in this run; it holds {', '.join(clusterings)}; try "
        f"{typed(main or next(iter(clusterings)), cluster and '0')}"
    )


def typed(clustering: str, cluster: str | None) -> str:
    """Return the flag that asks for a cluster of a clustering, or for all of it, as for a shell.

    >>> print(typed("layer2-k2", 'left "side"'), typed("layer2-k2", None))
    '--cluster=layer2-k2=left "side"' --cluster=layer2-k2
    """
    asked = quoted(clustering) + ("" if cluster is None else f"={quoted(cluster)}")
    return shlex.quote(f"--cluster={asked}")


def _asks_for_a_cluster(query: Query, is_excluded: bool = False) -> bool:
    """Whether any term is not excluded."""
    if isinstance(query, Term):
        return not is_excluded
    if isinstance(query, Not):
        return _asks_for_a_cluster(query.part, not is_excluded)
    return any(_asks_for_a_cluster(part, is_excluded) for part in query.parts)
