"""The choice in plain sentences and as a table of text: nothing is chosen silently."""

import math
from typing import NamedTuple

from cgjax.clustering.selection.results import Choice, NumberRow, Verdict
from cgjax.clustering.selection.stability import Measure, hennig

# From this |cos| on, the line through two centroids counts as the main axis.
_ALONG = 0.9
# From this adjusted Rand index on, k-means counts as finding the groups.
_FOUND = 0.8


class Grouping(NamedTuple):
    """The groups, as the sentences describe them.

    Attributes:
        num_groups: groups found; more than the chosen number if that is the most asked for.
        found_at: the smallest number of k-means clusters that shows them.
        agreement: adjusted Rand index between the groups and k-means with the chosen number.
        main_axis: |cos| between the main axis and the line through the centroids of two clusters.
    """

    num_groups: int
    found_at: int
    agreement: float
    main_axis: float


def verdict_of(number: int, grouping: Grouping) -> Verdict:
    """Name the verdict on the chosen number."""
    if grouping.num_groups > number:
        return "more clusters than asked for"
    return "one cluster" if number == 1 else "several clusters"


def explain(
    verdict: Verdict,
    number: int,
    table: tuple[NumberRow, ...],
    grouping: Grouping,
    alpha: float,
) -> str:
    """Say what was chosen and why."""
    if verdict == "more clusters than asked for":
        return (
            f"At least {grouping.num_groups} groups with valleys between them, more than the "
            f"{number} that were asked for; choose among more."
        )
    if verdict == "one cluster":
        return _one(table, grouping, alpha)
    return _several(number, table, grouping, alpha)


def _one(table: tuple[NumberRow, ...], grouping: Grouping, alpha: float) -> str:
    text = "1 cluster: no valley sets a part of the features apart from the rest."
    if len(table) < 2:
        return text
    two = table[1]
    cut = "the main axis" if grouping.main_axis >= _ALONG else "one cloud"
    chance = probability(two.gaussian_p_value)
    gaussian = f"one Gaussian with the same covariance is cut as clearly ({chance})"
    if two.gaussian_p_value <= alpha:
        gaussian = f"although one Gaussian with the same covariance is cut less clearly ({chance})"
    strength = two.prediction_strength.value
    return text + (
        f" Two clusters only cut {cut}: no valley lies between them "
        f"({probability(two.valley_p_value)}), {gaussian}; their prediction strength in fresh "
        f"draws is {strength:.2f}."
    )


def _several(number: int, table: tuple[NumberRow, ...], grouping: Grouping, alpha: float) -> str:
    row = table[number - 1]
    text = (
        f"{number} clusters: valleys lie between them (p <= {alpha:g}, over all numbers together; "
        f"one Gaussian cut as clearly: {probability(row.gaussian_p_value)})."
    )
    if grouping.agreement < _FOUND:
        return text + (
            f" k-means with {number} does not find them (adjusted Rand index "
            f"{grouping.agreement:.2f}): it cuts a long one first. With {grouping.found_at} it "
            "separates them, some into several parts."
        )
    least = min((cluster.jaccard for cluster in row.clusters), key=lambda one: one.value)
    text += (
        f" The one least reproduced by fresh draws has Jaccard similarity {least.value:.2f}: "
        f"{hennig(least.value)}."
    )
    split = [str(c) for c, cluster in enumerate(row.clusters) if cluster.is_split]
    if split:
        return text + f" Within cluster {', '.join(split)} a valley remains."
    if number < len(table):
        strength = table[number].prediction_strength.value
        text += f" One more only cuts one of them (prediction strength {strength:.2f})."
    return text


def probability(p_value: float) -> str:
    """Format a p-value.

    >>> probability(0.0004), probability(0.62)
    ('p < 0.001', 'p = 0.62')
    """
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.2g}"


def table_text(choice: Choice) -> str:
    """Return the table, one line for each number, the chosen one marked."""
    lines = [
        "   k  groups  valley p  Gaussian p  prediction strength     adjusted Rand"
        "     worst Jaccard  silhouette              gap"
    ]
    for row in choice.table:
        chosen = "*" if row.num_clusters == choice.num_clusters else " "
        worst = min((cluster.jaccard for cluster in row.clusters), key=lambda one: one.value)
        lines.append(
            f"{chosen}{row.num_clusters:>3}{row.num_groups:>8}{_number(row.valley_p_value):>10}"
            f"{_number(row.gaussian_p_value):>12}{_measure(row.prediction_strength):>21}"
            f"{_measure(row.adjusted_rand):>18}{_measure(worst):>18}{_number(row.silhouette):>12}"
            f"{f'{row.gap:.3f} +- {row.gap_spread:.3f}':>17}"
        )
    return "\n".join(lines)


def tree_text(choice: Choice) -> str:
    """Return how clusters split from one number to the next, one line for each number."""
    lines = []
    for row in choice.table[1:]:
        parts = [
            f"{c} ({cluster.share:.0%}) from {cluster.parent}"
            + ("" if cluster.from_parent > 0.95 else f" ({cluster.from_parent:.0%} of it)")
            for c, cluster in enumerate(row.clusters)
        ]
        lines.append(f"{row.num_clusters} clusters: {', '.join(parts)}")
    return "\n".join(lines)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _measure(measure: Measure) -> str:
    return f"{measure.value:.2f} ({measure.low:.2f}-{measure.high:.2f})"
