"""The result of choosing the number of clusters: the number, why, and all that it is based on."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from cgjax.clustering.selection.stability import Measure
from cgjax.clustering.selection.within import InnerSplit
from cgjax.runtime.files import as_json

Verdict = Literal["one cluster", "several clusters", "more clusters than asked for"]


@dataclass(frozen=True)
class ClusterRow:
    """One cluster of one clustering.

    Attributes:
        share: share of the third set's rows.
        parent: the cluster that holds most of its rows in the clustering with one cluster fewer;
            None for the only one.
        from_parent: the share of its rows that come from the parent.
        jaccard: its similarity to the most similar cluster of fresh rows [Hennig 2007].
        meaning: what that similarity means, by Hennig's thresholds.
        within: the result of cutting it in two; None for a cluster of too few rows.
        is_split: whether the cut shows a valley: the cluster contains several.
    """

    share: float
    parent: int | None
    from_parent: float
    jaccard: Measure
    meaning: str
    within: InnerSplit | None
    is_split: bool


@dataclass(frozen=True)
class NumberRow:
    """All measurements for one number of clusters.

    Attributes:
        num_clusters: k.
        num_groups: how many groups remain when clusters without a valley between them are joined.
        valley_p_value: of "fewer than k groups": that of the least clear valley between two
            neighbours, adjusted for the number of tests; NaN for one cluster.
        gaussian_p_value: of a cluster index as small in one Gaussian; NaN for one cluster.
        prediction_strength: of clusters of fresh rows [Tibshirani & Walther 2005].
        adjusted_rand: between clusterings of fresh rows.
        silhouette: for comparison; NaN for one cluster.
        gap: Gap(k) of the gap statistic, for comparison.
        gap_spread: its s_k.
        inertia: sum of squared distances in the span, of the rows that were clustered.
        clusters: by descending share of the rows that were clustered.
    """

    num_clusters: int
    num_groups: int
    valley_p_value: float
    gaussian_p_value: float
    prediction_strength: Measure
    adjusted_rand: Measure
    silhouette: float
    gap: float
    gap_spread: float
    inertia: float
    clusters: tuple[ClusterRow, ...]


@dataclass(frozen=True)
class Choice:
    """The number of clusters and what it is based on.

    Attributes:
        num_clusters: the number chosen.
        verdict: "one cluster", "several clusters" or "more clusters than asked for".
        reason: why, in plain sentences.
        basis: the rows that were clustered, in words.
        table: one row for each number from 1; `table[k - 1].clusters` are the k clusters, and their
            parents show how clusters split from one number to the next.
        alpha: probability that one log-concave cloud is called several clusters.
        confidence: confidence level of the intervals.
    """

    num_clusters: int
    verdict: Verdict
    reason: str
    basis: str
    table: tuple[NumberRow, ...]
    alpha: float
    confidence: float

    def summary(self) -> dict[str, Any]:
        """Return the choice for JSON: the number, why, and the table as `rows` returns it."""
        return {
            "num_clusters": self.num_clusters,
            "verdict": self.verdict,
            "reason": self.reason,
            "basis": self.basis,
            "table": self.rows(),
        }

    def rows(self) -> list[dict[str, Any]]:
        """Return the table for JSON: a dictionary for each number, NaN as None, tuples as lists.

        A `Measure` is [value, low, high], an `InnerSplit` [stability, p value].
        """
        return [
            {**as_json(asdict(row)), "is_chosen": row.num_clusters == self.num_clusters}
            for row in self.table
        ]
