"""The choice in plain sentences and as a table of text: nothing is chosen silently."""

import math
from typing import NamedTuple

from cgjax.clustering.selection.inner import InnerSplit
from cgjax.clustering.selection.results import NumberRow, Selection, Verdict
from cgjax.clustering.selection.stability import Measure, hennig
from cgjax.clustering.selection.tree import Branch

# Of the cosine between the line through two centroids and the main axis.
_ALONG = 0.9
# k-means with as many clusters as there are groups finds the groups.
FOUND = 0.8


class Evidence(NamedTuple):
    """What the sentences are made from.

    Attributes:
        number: chosen.
        num_groups: found; more than the number where that is the most that was asked for.
        found_at: the number of k-means clusters that shows them.
        agreement: see `Selection`.
        alpha: the level of the gaps.
        p_value: against one Gaussian.
        main_axis: |cos| between the line through two clusters and the main axis.
        rows: of the table.
        clusters: Jaccard similarities.
        inner: splits within the clusters.
    """

    number: int
    num_groups: int
    found_at: int
    agreement: float
    alpha: float
    p_value: float
    main_axis: float
    rows: tuple[NumberRow, ...]
    clusters: tuple[Measure, ...]
    inner: tuple[InnerSplit, ...]


def verdict_of(evidence: Evidence) -> Verdict:
    """Name the verdict."""
    if evidence.num_groups > evidence.number:
        return "more clusters than asked for"
    return "one cluster" if evidence.number == 1 else "several clusters"


def explain(evidence: Evidence) -> str:
    """Say what was chosen and why."""
    verdict = verdict_of(evidence)
    if verdict == "more clusters than asked for":
        return (
            f"At least {evidence.num_groups} groups with gaps between them, more than the "
            f"{evidence.number} that were asked for; choose among more."
        )
    return _one(evidence) if verdict == "one cluster" else _several(evidence)


def _one(evidence: Evidence) -> str:
    text = "1 cluster: no part of the features is set apart from the rest by a gap."
    if len(evidence.rows) < 2:
        return text
    where = "only cut the main axis" if evidence.main_axis >= _ALONG else "only cut one cloud"
    strength = evidence.rows[1].prediction_strength.value
    text += f" Two clusters {where} (prediction strength {strength:.2f} in fresh draws): "
    clarity = "less" if evidence.p_value <= 0.05 else "as"
    if clarity == "as":
        return text + (
            "one Gaussian with the same covariance is cut as clearly "
            f"({probability(evidence.p_value)})."
        )
    return text + (
        f"they are not one Gaussian ({probability(evidence.p_value)}), but the middle between them "
        "is not emptier than both sides."
    )


def _several(evidence: Evidence) -> str:
    number = evidence.number
    text = (
        f"{number} clusters: between any two lie fewer features than around either (p <= "
        f"{evidence.alpha:g} for each pair); one Gaussian with the same covariance is not cut as "
        f"clearly ({probability(evidence.p_value)})."
    )
    if evidence.agreement < FOUND:
        return text + (
            f" k-means with {number} does not find them (adjusted Rand index "
            f"{evidence.agreement:.2f}): it cuts a long one first. With {evidence.found_at} it "
            "separates them, some in several parts."
        )
    least = min(evidence.clusters, key=lambda cluster: cluster.value)
    text += (
        f" The one found again worst in fresh draws has Jaccard similarity {least.value:.2f}: "
        f"{hennig(least.value)}."
    )
    held = [str(split.cluster) for split in evidence.inner if split.gap_p_value <= evidence.alpha]
    if held:
        return text + f" Within cluster {', '.join(held)} a gap remains."
    if number < len(evidence.rows):
        strength = evidence.rows[number].prediction_strength.value
        text += f" One more only cuts one of them (prediction strength {strength:.2f})."
    return text


def probability(p_value: float) -> str:
    """Print a p-value.

    >>> probability(0.0004), probability(0.62)
    ('p < 0.001', 'p = 0.62')
    """
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.2g}"


def table_text(selection: Selection) -> str:
    """Return the table, one line a number, the chosen one marked."""
    lines = [
        "   k  groups   gap p  prediction strength     adjusted Rand     worst Jaccard  "
        "silhouette   gap statistic"
    ]
    for row in selection.table:
        chosen = "*" if row.number == selection.number else " "
        p_value = "-" if math.isnan(row.gap_p_value) else f"{row.gap_p_value:.2g}"
        width = "-" if math.isnan(row.silhouette) else f"{row.silhouette:.3f}"
        lines.append(
            f"{chosen}{row.number:>3}{row.num_groups:>8}{p_value:>8}"
            f"{_measure(row.prediction_strength):>21}{_measure(row.adjusted_rand):>18}"
            f"{_measure(row.least_jaccard):>18}{width:>12}"
            f"{f'{row.gap_statistic:.3f} +- {row.gap_spread:.3f}':>16}"
        )
    return "\n".join(lines)


def _measure(measure: Measure) -> str:
    low, high = measure.interval
    return f"{measure.value:.2f} ({low:.2f}-{high:.2f})"


def tree_text(tree: tuple[Branch, ...]) -> str:
    """Return how clusters split, one line a number."""
    lines: dict[int, list[str]] = {}
    for branch in tree:
        lines.setdefault(branch.number, []).append(
            f"{branch.cluster} ({branch.share:.0%}) from {branch.parent}"
            + ("" if branch.from_parent > 0.95 else f" ({branch.from_parent:.0%} of it)")
        )
    return "\n".join(f"{number} clusters: {', '.join(parts)}" for number, parts in lines.items())
