"""The results of a sweep: its tables, and a ranked list of which clusters hold which attribute."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cgjax.evaluation.explained import Explained
from cgjax.numerics.intervals import with_ends

HALF = 0.5
"""A clustering holds an attribute if it explains this much of the attribute's variance."""

LITTLE = 0.1
"""A clustering that explains less of an attribute is not listed."""


class SweepRow(NamedTuple):
    """One clustering of a sweep, measured.

    Attributes:
        layer: its layer.
        num_clusters: k.
        shares: of the clusters.
        inertia: of k-means, in the layer's features.
        stability: the row of `Choice.rows` for this layer and k, from k-means on fresh draws in the
            span of the leading components.
        explained: eta squared of every attribute, by "judge.attribute".
        flags: further flags that reproduce the clustering.
    """

    layer: str
    num_clusters: int
    shares: list[float]
    inertia: float
    stability: dict[str, Any]
    explained: dict[str, Explained]
    flags: str = ""

    @property
    def worst(self) -> dict[str, Any]:
        """The stability of the cluster that fresh draws reproduce worst."""
        return min(self.stability["clusters"], key=lambda cluster: float(cluster["jaccard"][0]))

    @property
    def reproducibility(self) -> float:
        """The worst cluster's Jaccard similarity to the closest of fresh draws [Hennig 2007]."""
        return float(self.worst["jaccard"][0])


class Finding(NamedTuple):
    """Where an attribute is held: by the fewest clusters that hold it, at the best layer for it.

    Attributes:
        attribute: "judge.attribute".
        where: the clustering.
    """

    attribute: str
    where: SweepRow

    @property
    def share(self) -> Explained:
        """How much of the attribute the clustering explains."""
        return self.where.explained[self.attribute]


def findings(rows: Sequence[SweepRow]) -> list[Finding]:
    """Return where each attribute is held, the clearest first.

    More clusters always explain more. Hence the smallest number of clusters that explains half of
    an attribute is chosen, at the layer where it explains most; if none explains half, the
    clustering that explains most. They are ranked by the explained share times the reproducibility
    of the least stable cluster in fresh draws.
    """
    best = []
    for attribute in rows[0].explained if rows else ():
        every = [Finding(attribute, row) for row in rows if row.num_clusters > 1]
        some = [one for one in every if one.share.value >= LITTLE]
        half = [one for one in some if one.share.value >= HALF]
        fewest = min((one.where.num_clusters for one in half), default=0)
        candidates = [one for one in half if one.where.num_clusters == fewest] or some
        if candidates:
            best.append(max(candidates, key=lambda one: one.share.value))
    return sorted(best, key=lambda f: f.share.value * f.where.reproducibility, reverse=True)


def sentence(finding: Finding, num_judged: int) -> str:
    """Return what a clustering holds, how certain that is, and the flags that reproduce it.

    Args:
        finding: the attribute and the clustering.
        num_judged: number of images shown to the judge.
    """
    row, share = finding.where, finding.share
    judge, _, attribute = finding.attribute.rpartition(".")
    value, low, high = row.worst["jaccard"]
    return (
        f"{row.layer}, {row.num_clusters} clusters: {row.worst['meaning']} in fresh draws (least "
        f"Jaccard similarity of a cluster {value:.2f}, {low:.2f}-{high:.2f}); explains "
        f"{share.value:.0%} ({share.low:.0%}-{share.high:.0%}) of {attribute} (judge {judge}, "
        f"which sees it in {share.num:,} of {num_judged:,} images)"
        f"{_small(row)}\n    {shlex.quote(f'--config.layer={row.layer}')} "
        f"--config.cluster.num_clusters={row.num_clusters}{row.flags}"
    )


def _small(row: SweepRow) -> str:
    least = min(row.shares)
    return f"; its smallest cluster is {least:.1%} of the latents" if least < 0.05 else ""


def to_text(rows: Sequence[SweepRow], reasons: Mapping[str, str], num_judged: int) -> str:
    """Lay out a sweep: the table, the verdict on every layer, and the ranked list.

    Args:
        rows: one per clustering.
        reasons: for each layer, how many clusters it holds and why.
        num_judged: number of images shown to the judges.
    """
    wide = max((len(row.layer) for row in rows), default=5)
    head = f"{'layer':<{wide}}   k        worst Jaccard  prediction strength  valley p  Gaussian p"
    head += "  silhouette  explains"
    lines = [head]
    for row in rows:
        own = row.stability
        measures = (row.worst["jaccard"], own["prediction_strength"])
        shown = "".join(f"{f'{v:.2f} ({low:.2f}-{high:.2f})':>21}" for v, low, high in measures)
        lines.append(
            f"{row.layer:<{wide}}{row.num_clusters:>4}{shown}"
            f"{_number(own['valley_p_value']):>10}{_number(own['gaussian_p_value']):>12}"
            f"{_number(own['silhouette']):>12}  {_strongest(row)}; shares "
            + " ".join(f"{share:.2f}" for share in row.shares)
        )
    lines += ["", *(f"{layer}: {reason}" for layer, reason in reasons.items()), ""]
    ranked = findings(rows)
    lines += [f"{i}. {sentence(one, num_judged)}" for i, one in enumerate(ranked, start=1)]
    held = {finding.attribute for finding in ranked}
    missing = [name for name in (rows[0].explained if rows else ()) if name not in held]
    if missing:
        lines.append(f"No clustering explains {LITTLE:.0%} of: {', '.join(missing)}.")
    return "\n".join(lines)


def _strongest(row: SweepRow) -> str:
    known = [(e.value, name) for name, e in row.explained.items() if e.value >= LITTLE]
    shown = [f"{value:.2f} {name}" for value, name in sorted(known, reverse=True)[:3]]
    return ", ".join(shown) or "-"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def clustering_rows(rows: Sequence[SweepRow]) -> list[dict[str, Any]]:
    """Return the rows of `sweep.csv`, one per clustering."""
    lines = []
    for row in rows:
        own = row.stability
        line: dict[str, Any] = {
            "layer": row.layer,
            "num_clusters": row.num_clusters,
            "shares": " ".join(f"{share:.6f}" for share in row.shares),
            "inertia": row.inertia,
        }
        for name in ("prediction_strength", "adjusted_rand"):
            line |= with_ends(name, *own[name])
        line |= with_ends("worst_jaccard", *row.worst["jaccard"])
        names = ("num_groups", "valley_p_value", "gaussian_p_value", "silhouette")
        line |= {name: own[name] for name in (*names, "gap", "gap_spread")}
        for name, share in row.explained.items():
            line |= with_ends(f"eta2 {name}", *share[:3]) | {f"seen {name}": share.num}
        lines.append(line)
    return lines
