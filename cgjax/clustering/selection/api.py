"""Choosing the number of clusters: one call.

A number of clusters is right when a valley lies between any two of them and asking for more shows
no more such groups. Stability alone cannot tell: every fresh draw gives the same two halves of one
long cloud.

1. Three independent sets of rows are projected on the leading components (`samples`).
2. The first is clustered into 1, 2, ... up to a quarter more than asked for (`partitions`).
3. The other two show where a valley lies between two of these clusters; neighbours without one are
   joined (`valleys`). The number is the largest number of groups left, over all clusterings.
4. In addition, for every number: whether fresh rows give the same clusters (`stability`), whether
   one Gaussian is cut as clearly (`null`), whether clusters contain a split of their own (`within`)
   and the usual criteria (`criteria`).
"""

from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Int, PRNGKeyArray

from cgjax.clustering.selection.criteria import gap_statistic, silhouettes
from cgjax.clustering.selection.null import gaussian_p_values
from cgjax.clustering.selection.partitions import Partition, assign, inertia, partition_all
from cgjax.clustering.selection.results import Choice, ClusterRow, NumberRow
from cgjax.clustering.selection.samples import DrawRows, SampleSets, named_rng, take_samples
from cgjax.clustering.selection.stability import Stability, hennig, measure_stability
from cgjax.clustering.selection.valleys import find_groups, num_tests, valley_p_values
from cgjax.clustering.selection.within import splits_within
from cgjax.clustering.selection.words import Grouping, explain, verdict_of
from cgjax.numerics.arguments import check_share, check_whole
from cgjax.numerics.cross_tables import adjusted_rand, cross_table
from cgjax.runtime.keys import check_key

# The criteria for comparison need all distances, or many clusterings, and use this many rows (the
# gap as many as there are clusters, if these are more).
_SILHOUETTE_ROWS, _GAP_ROWS = 1000, 400
# Repeats start from smaller trees, whose cost is quadratic in their rows.
_SEED_ROWS = 1000


class _Cut(NamedTuple):
    """The rows in k clusters.

    Attributes:
        part: the clusters of the first set.
        groups: (k,) the group of each cluster: clusters without a valley between them are joined.
        valley_p_value: of "fewer than k groups"; NaN for one cluster.
        labels: the cluster of each row of the first, the second and the third set.
    """

    part: Partition
    groups: Int[np.ndarray, " k"]
    valley_p_value: float
    labels: tuple[Int[np.ndarray, " _"], ...]

    @property
    def num_clusters(self) -> int:
        """k."""
        return len(self.groups)

    @property
    def num_groups(self) -> int:
        """Number of groups."""
        return 1 + int(self.groups.max())

    @property
    def third(self) -> Int[np.ndarray, " n"]:
        """The cluster of each row of the third set."""
        return self.labels[2]


def choose_num_clusters(
    source: ArrayLike | DrawRows,
    max_clusters: int = 16,
    *,
    key: PRNGKeyArray,
    num_rows: int = 10_000,
    num_components: int = 64,
    num_repeats: int = 4,
    alpha: float = 0.05,
    confidence: float = 0.95,
) -> Choice:
    """Choose the number of clusters, from 1 to `max_clusters`, and say why.

    One log-concave cloud, such as a Gaussian of any covariance, is called several clusters with
    probability at most `alpha`; see `valleys`.

    The rows of an array are taken in their order: the first 30% of them are clustered, the next 30%
    and the rest are the fresh rows. Latents drawn at random are in no order. Shuffle rows that are,
    such as images sorted by class, or the answer is wrong and looks certain:
    `rows[np.random.default_rng(0).permutation(len(rows))]`.

    Args:
        source: (n, f) or (n, h, w, c) features of independent draws, in no order; or a function
            `draw(key, num)` that returns that many fresh ones, which is called for blocks.
        max_clusters: most clusters.
        key: random key, for the draws, the resamples and the null.
        num_rows: number of rows to draw; of an array, at most the first `num_rows` are used.
        num_components: most leading principal components to project the rows on.
        num_repeats: how many clusterings each cluster is compared with: one of the second set, then
            of the same number of random rows of the second and third set. The rest is assigned.
        alpha: probability of a false split.
        confidence: confidence level of the intervals.

    Raises:
        UserError: too few rows (`check_rows`), a row that is not finite or too large, rows that
            differ too little for float32, a key that is not a random key, or an option out of its
            range.

    Example:
        >>> import jax
        >>> rng = np.random.default_rng(0)
        >>> rows = rng.normal(size=(1000, 3)) + 8.0 * rng.integers(0, 2, (1000, 1))
        >>> choice = choose_num_clusters(rows, 4, key=jax.random.key(0))
        >>> choice.num_clusters, choice.verdict
        (2, 'several clusters')
    """
    check_key(key)
    max_clusters = check_whole("max_clusters", max_clusters)
    num_rows = check_whole("num_rows", num_rows)
    num_repeats = check_whole("num_repeats", num_repeats)
    num_components = check_whole("num_components", num_components)
    check_share("alpha", alpha, 0.05)
    check_share("confidence", confidence, 0.95)
    samples = take_samples(
        source, max_clusters, key, num_rows=num_rows, num_components=num_components
    )
    cuts = _cut_all(samples, max(max_clusters + max_clusters // 4, max_clusters + 1), alpha)
    most_split = max(cuts, key=lambda cut: cut.num_groups)
    number = min(most_split.num_groups, max_clusters)
    table = _measure(samples, cuts[:max_clusters], key, num_repeats, alpha, confidence)
    grouping = Grouping(
        most_split.num_groups,
        most_split.num_clusters,
        _agreement(most_split.groups[most_split.third], cuts[number - 1].third),
        _cosine_to_main_axis(cuts[1].part),
    )
    verdict = verdict_of(number, grouping)
    return Choice(
        num_clusters=number,
        verdict=verdict,
        reason=explain(verdict, number, table, grouping, alpha),
        basis=samples.describe(),
        table=table,
        alpha=alpha,
        confidence=confidence,
    )


def _cut_all(samples: SampleSets, most: int, alpha: float) -> list[_Cut]:
    """Cut the rows into 1, 2, ... `most` clusters and join those without a valley between them."""
    parts, held_out = partition_all(samples.first, most), samples.held_out
    p_values = [valley_p_values(held_out, part.centroids) for part in parts]
    cuts = []
    for part, own, groups in zip(parts, p_values, find_groups(p_values, alpha), strict=True):
        labels = tuple(assign(rows, part.centroids) for rows in samples.sets)
        cuts.append(_Cut(part, groups, _least_clear(own, most), labels))
    return cuts


def _least_clear(p_values: Float[np.ndarray, "k k"], most: int) -> float:
    """Return the p-value of "fewer than k groups"."""
    k = len(p_values)
    if k == 1:
        return float("nan")
    return float(min(1.0, num_tests(k - 1, most) * np.nanmax(p_values)))


def _measure(
    samples: SampleSets,
    cuts: list[_Cut],
    key: PRNGKeyArray,
    num_repeats: int,
    alpha: float,
    confidence: float,
) -> tuple[NumberRow, ...]:
    """Measure the clusterings into 1, 2, ... clusters."""
    parts, held_out = [cut.part for cut in cuts], samples.held_out
    rng = named_rng(key, "repeats")
    stable = _stabilities(parts, held_out, len(samples.second), rng, num_repeats, confidence)
    rng = named_rng(key, "null")
    gaussian = gaussian_p_values(held_out, [part.centroids for part in parts], rng)
    first = slice(_SILHOUETTE_ROWS)
    widths = silhouettes(samples.third[first], [cut.third[first] for cut in cuts])
    rows = samples.first[: max(_GAP_ROWS, len(cuts))]
    gaps = gap_statistic(rows, len(cuts), named_rng(key, "gap statistic"))
    before = [None, *cuts[:-1]]
    return tuple(
        NumberRow(
            num_clusters=cut.num_clusters,
            num_groups=cut.num_groups,
            valley_p_value=cut.valley_p_value,
            gaussian_p_value=p_value,
            prediction_strength=stability.prediction_strength,
            adjusted_rand=stability.adjusted_rand,
            silhouette=width,
            gap=gap,
            gap_spread=spread,
            inertia=inertia(samples.first, cut.part),
            clusters=_describe(cut, fewer, samples, stability, alpha),
        )
        for cut, fewer, stability, p_value, width, (gap, spread) in zip(
            cuts, before, stable, gaussian, widths, gaps, strict=True
        )
    )


def _stabilities(
    parts: list[Partition],
    held_out: Float[np.ndarray, "n q"],
    num_second: int,
    rng: np.random.Generator,
    num_repeats: int,
    confidence: float,
) -> list[Stability]:
    """Return the stability of each partition, for 1, 2, ... clusters."""
    labels = [assign(held_out, part.centroids) for part in parts]
    order = np.arange(len(held_out))
    tables: list[list[Int[np.ndarray, "k k"]]] = [[] for _ in parts]
    for _ in range(num_repeats):
        second, third = order[:num_second], order[num_second:]
        again = partition_all(held_out[second], len(parts), seed_rows=_SEED_ROWS)
        for k, part in enumerate(again, start=1):
            own = assign(held_out[third], part.centroids)
            tables[k - 1].append(cross_table(labels[k - 1][third], own, (k, k)))
        order = rng.permutation(len(held_out))
    return [measure_stability(np.stack(own), rng, confidence=confidence) for own in tables]


def _describe(
    cut: _Cut, fewer: _Cut | None, samples: SampleSets, stability: Stability, alpha: float
) -> tuple[ClusterRow, ...]:
    """Describe each cluster, given the clustering into one fewer; None if there is only one."""
    k, third = cut.num_clusters, cut.third
    table = cross_table(fewer.third if fewer else np.zeros_like(third), third, (max(k - 1, 1), k))
    sizes = table.sum(axis=0)
    parents = table.argmax(axis=0)
    return tuple(
        ClusterRow(
            share=float(sizes[c] / len(third)),
            parent=int(parents[c]) if fewer else None,
            from_parent=float(table[parents[c], c] / max(sizes[c], 1)),
            jaccard=stability.jaccard[c],
            meaning=hennig(stability.jaccard[c].value),
            within=split,
            is_split=split is not None and split.p_value <= alpha,
        )
        for c, split in enumerate(splits_within(samples.sets, cut.labels, k))
    )


def _agreement(first: Int[np.ndarray, " n"], second: Int[np.ndarray, " n"]) -> float:
    shape = (int(first.max()) + 1, int(second.max()) + 1)
    return float(adjusted_rand(cross_table(first, second, shape)))


def _cosine_to_main_axis(pair: Partition) -> float:
    line = pair.centroids[-1] - pair.centroids[0]
    return float(abs(line[0]) / max(float(np.linalg.norm(line)), 1e-30))
