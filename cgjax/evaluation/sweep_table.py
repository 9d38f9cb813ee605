"""What a sweep found: its tables, and a ranked list of which clusters hold which attribute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cgjax.evaluation.explained import Explained

HALF = 0.5
"""A clustering with this much of an attribute's variance between its clusters holds it."""

LITTLE = 0.1
"""What explains less of an attribute is not worth a line."""


class Measured(NamedTuple):
    """One clustering of a sweep.

    Attributes:
        layer: its layer.
        num_clusters: k.
        shares: of the clusters.
        inertia: of k-means, in the layer's features.
        stability: the chooser's row of this layer and k: `Choice.rows`; there k-means works in the
            span of the leading components, on fresh draws.
        explained: eta squared of every attribute, by "judge.attribute".
        flags: what else is to be typed to cluster so.
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
        """The chooser's row of the cluster that fresh draws give again worst."""
        return min(self.stability["clusters"], key=lambda cluster: float(cluster["jaccard"][0]))

    @property
    def found_again(self) -> float:
        """Its Jaccard similarity to the most similar cluster of fresh draws [Hennig 2007]."""
        return float(self.worst["jaccard"][0])


class Finding(NamedTuple):
    """Where an attribute is held: by the fewest clusters that do, at the layer that does it best.

    Attributes:
        attribute: "judge.attribute".
        where: the clustering.
    """

    attribute: str
    where: Measured

    @property
    def share(self) -> Explained:
        """How much of the attribute it explains."""
        return self.where.explained[self.attribute]


def findings(rows: Sequence[Measured]) -> list[Finding]:
    """Return where each attribute is held, the clearest first.

    More clusters always explain more. So the smallest number of clusters that explains half of an
    attribute is taken, at the layer where it explains most; if none explains half of it, the
    clustering that explains most. They are ranked by the share that is explained, times how well
    the least stable cluster is found again in fresh draws.
    """
    found = []
    for attribute in rows[0].explained if rows else ():

        def share(row: Measured, name: str = attribute) -> float:
            return row.explained[name].value

        seen = [row for row in rows if row.num_clusters > 1 and share(row) >= LITTLE]
        halves = [row for row in seen if share(row) >= HALF]
        fewest = min((row.num_clusters for row in halves), default=0)
        candidates = [row for row in halves if row.num_clusters == fewest] or seen
        if candidates:
            found.append(Finding(attribute, max(candidates, key=share)))
    return sorted(found, key=lambda f: f.share.value * f.where.found_again, reverse=True)


def sentence(finding: Finding, num_judged: int) -> str:
    """Say what a clustering holds, how sure that is, and what to type for it.

    Args:
        finding: what was found.
        num_judged: images that the judge was shown.
    """
    row, share = finding.where, finding.share
    judge, _, attribute = finding.attribute.rpartition(".")
    value, low, high = row.worst["jaccard"]
    return (
        f"{row.layer}, {row.num_clusters} clusters: {row.worst['meaning']} in fresh draws (least "
        f"Jaccard similarity of a cluster {value:.2f}, {low:.2f}-{high:.2f}); explains "
        f"{share.value:.0%} ({share.low:.0%}-{share.high:.0%}) of {attribute} (judge {judge}, "
        f"which sees it in {share.num:,} of {num_judged:,} images)"
        f"{_small(row)}\n    --config.layer={row.layer} "
        f"--config.cluster.num_clusters={row.num_clusters}{row.flags}"
    )


def _small(row: Measured) -> str:
    least = min(row.shares)
    return f"; its smallest cluster is {least:.1%} of the latents" if least < 0.05 else ""


def to_text(rows: Sequence[Measured], reasons: Mapping[str, str], num_judged: int) -> str:
    """Lay a sweep out: the table, the verdict on every layer, and the ranked list.

    Args:
        rows: one a clustering.
        reasons: for each layer, how many clusters it holds and why.
        num_judged: images that the judges were shown.
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
        lines.append(f"Of these no clustering explains {LITTLE:.0%}: {', '.join(missing)}.")
    return "\n".join(lines)


def _strongest(row: Measured, num: int = 3) -> str:
    known = [(e.value, name) for name, e in row.explained.items() if e.value >= LITTLE]
    shown = [f"{value:.2f} {name}" for value, name in sorted(known, reverse=True)[:num]]
    return ", ".join(shown) or "-"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def clustering_rows(rows: Sequence[Measured]) -> list[dict[str, Any]]:
    """Return `sweep.csv`: one line a clustering."""
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
            line |= _with_ends(name, own[name])
        line |= _with_ends("worst_jaccard", row.worst["jaccard"])
        for name in ("num_groups", "valley_p_value", "gaussian_p_value", "silhouette", "gap"):
            line[name] = own[name]
        line["gap_spread"] = own["gap_spread"]
        for name, share in row.explained.items():
            line |= _with_ends(f"eta2 {name}", share[:3]) | {f"seen {name}": share.num}
        lines.append(line)
    return lines


def _with_ends(name: str, measure: Sequence[float]) -> dict[str, float]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), measure, strict=True))
