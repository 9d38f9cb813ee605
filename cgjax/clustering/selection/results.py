"""What choosing the number of clusters leaves: the number, why, and everything it rests on."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from cgjax.clustering.selection.inner import InnerSplit
from cgjax.clustering.selection.stability import Measure
from cgjax.clustering.selection.tree import Branch

Verdict = Literal["one cluster", "several clusters", "more clusters than asked for"]


class NumberRow(NamedTuple):
    """All criteria for one number of clusters.

    Attributes:
        number: k.
        num_groups: what is left of k clusters when those without a gap between them are joined.
        gap_p_value: of the least clear gap between two of the k clusters; NaN for one.
        prediction_strength: of clusters of fresh rows.
        adjusted_rand: between clusterings of fresh rows.
        least_jaccard: of the cluster that is found again worst.
        silhouette: NaN for one.
        gap_statistic: Gap(k).
        gap_spread: s_k.
        inertia: sum of squared distances in the span, of the rows that were clustered.
    """

    number: int
    num_groups: int
    gap_p_value: float
    prediction_strength: Measure
    adjusted_rand: Measure
    least_jaccard: Measure
    silhouette: float
    gap_statistic: float
    gap_spread: float
    inertia: float


class Alternatives(NamedTuple):
    """What other criteria would choose.

    Attributes:
        prediction_strength: largest k of at least 0.8 [Tibshirani & Walther 2005].
        silhouette: its maximum, never 1; 1 means that it is not defined.
        elbow: farthest below the chord.
        gap_statistic: the rule of one standard error.
    """

    prediction_strength: int
    silhouette: int
    elbow: int
    gap_statistic: int


@dataclass(frozen=True)
class Selection:
    """How many clusters there are.

    Attributes:
        number: of clusters, from 1 to the most that was asked for.
        verdict: "one cluster", "several clusters" or "more clusters than asked for".
        reason: the verdict in plain sentences.
        p_value: how likely one Gaussian with the rows' own covariance is cut as clearly; of two
            clusters if the number is 1.
        table: one row a number, from 1.
        tree: how clusters split from each number to the next.
        clusters: Jaccard similarity of each cluster of k-means with `number` clusters, when fresh
            rows are clustered; by descending share.
        inner: for each of these clusters, whether it holds a split of its own; without those of too
            few rows.
        found_at: the smallest number of k-means clusters that shows all `number` groups.
        agreement: adjusted Rand index of these groups and k-means with `number` clusters; far below
            1 where k-means cuts a long cluster before it tells two apart.
        basis: in what span and from how many rows, in words.
        alternatives: what other criteria would choose.
    """

    number: int
    verdict: Verdict
    reason: str
    p_value: float
    table: tuple[NumberRow, ...]
    tree: tuple[Branch, ...]
    clusters: tuple[Measure, ...]
    inner: tuple[InnerSplit, ...]
    found_at: int
    agreement: float
    basis: str
    alternatives: Alternatives
