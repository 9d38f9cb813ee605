"""The tree of splits, from k clusters to k + 1, as a drawing for the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WIDTH, ROW, BAR, LEFT = 720, 56, 18, 96


def tree_of(choice: Mapping[str, Any]) -> dict[str, Any]:
    """Lay out the tree: a row for each number of clusters, a bar as wide as each cluster's share.

    Args:
        choice: the result of `Choice.summary`.

    Returns:
        `width`, `height`, `bar` (a bar's height), `bars` (x, y, width, the number of clusters, the
        cluster, its share and its stability) and `bands`, polygons from a cluster to its parts.
    """
    rows = sorted(choice["table"], key=lambda row: row["num_clusters"])
    bars: list[dict[str, Any]] = []
    bands: list[dict[str, Any]] = []
    edges: dict[int, float] = {}  # for each cluster of the row above, where its next band begins
    for i, row in enumerate(rows):
        clusters = row["clusters"]
        # In the order of their parents, so that bands seldom cross.
        places = {cluster: place for place, cluster in enumerate(edges)}
        order = sorted(
            range(len(clusters)), key=lambda c: (places.get(clusters[c]["parent"], 0), c)
        )
        total = sum(cluster["share"] for cluster in clusters) or 1.0
        x, below = float(LEFT), {}
        for c in order:
            cluster, parent = clusters[c], clusters[c]["parent"]
            width = (WIDTH - LEFT) * cluster["share"] / total
            bars.append(
                {
                    "x": round(x + 1, 1),
                    "y": i * ROW + 4,
                    "width": round(max(width - 2, 1), 1),
                    "num": row["num_clusters"],
                    "cluster": c,
                    "share": cluster["share"],
                    "jaccard": cluster["jaccard"][0],
                    "from_parent": cluster["from_parent"],
                }
            )
            if parent in edges:
                bands.append(_band(edges[parent], x, width, i))
                edges[parent] += width
            below[c] = x
            x += width
        edges = below
    return {"width": WIDTH, "height": len(rows) * ROW, "bar": BAR, "bars": bars, "bands": bands}


def _band(begin: float, end: float, width: float, row: int) -> dict[str, Any]:
    top, bottom = (row - 1) * ROW + 4 + BAR, row * ROW + 4
    corners = ((begin, top), (begin + width, top), (end + width, bottom), (end, bottom))
    return {"points": " ".join(f"{x:.1f},{y}" for x, y in corners)}
