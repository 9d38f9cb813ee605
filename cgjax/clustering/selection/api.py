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

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Int, PRNGKeyArray

from cgjax.clustering.selection.criteria import gap_statistic, silhouettes
from cgjax.clustering.selection.null import gaussian_p_values
from cgjax.clustering.selection.partitions import Partition, assign, inertia, partition_all
from cgjax.clustering.selection.results import Choice, ClusterRow, NumberRow
from cgjax.clustering.selection.samples import DrawRows, named_rng, take_samples
from cgjax.clustering.selection.stability import Stability, hennig, measure_stability
from cgjax.clustering.selection.valleys import find_groups, num_tests, valley_p_values
from cgjax.clustering.selection.within import splits_within
from cgjax.clustering.selection.words import Grouping, explain, verdict_of
from cgjax.numerics.arguments import check_share, check_whole
from cgjax.numerics.cross_tables import adjusted_rand, cross_table
from cgjax.runtime.keys import check_key

# The criteria for comparison need all distances, or many clusterings, and use this many rows.
_SILHOUETTE_ROWS, _GAP_ROWS = 1000, 400
# Repeats start from smaller trees, whose cost is quadratic in their rows.
_SEED_ROWS = 1000


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

    Args:
        source: (n, f) or (n, h, w, c) features of independent draws in no order; or a function
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
        UserError: too few rows (`check_rows`), a row that is not finite or too large, a key that is
            not a random key, or an option out of its range.

    Example:
        >>> import jax
        >>> rng = np.random.default_rng(0)
        >>> rows = rng.normal(size=(1000, 3)) + 8.0 * rng.integers(0, 2, (1000, 1))
        >>> choice = choose_num_clusters(rows, 4, key=jax.random.key(0))
        >>> choice.num_clusters, choice.verdict
        (2, 'several clusters')
    """
    check_key(key)
    counts = {"max_clusters": max_clusters, "num_rows": num_rows, "num_repeats": num_repeats}
    for name, count in (counts | {"num_components": num_components}).items():
        check_whole(name, count)
    check_share("alpha", alpha)
    check_share("confidence", confidence)
    samples = take_samples(
        source, max_clusters, key, num_rows=num_rows, num_components=num_components
    )
    held_out = np.concatenate([samples.second, samples.third])
    most = max(max_clusters + max_clusters // 4, max_clusters + 1)
    parts = partition_all(samples.first, most)
    p_values = [valley_p_values(held_out, part.centroids) for part in parts]
    groups = find_groups(p_values, alpha)
    num_groups = [1 + int(group_ids.max()) for group_ids in groups]
    most_split = int(np.argmax(num_groups))
    number = min(num_groups[most_split], max_clusters)

    shown = parts[:max_clusters]
    sets = (samples.first, samples.second, samples.third)
    labels = [[assign(rows, part.centroids) for rows in sets] for part in shown]
    rng = named_rng(key, "repeats")
    stable = _stabilities(shown, held_out, len(samples.second), rng, num_repeats, confidence)
    rng = named_rng(key, "null")
    gaussian = gaussian_p_values(held_out, [part.centroids for part in shown], rng)
    first = slice(_SILHOUETTE_ROWS)
    widths = silhouettes(samples.third[first], [own[2][first] for own in labels])
    gaps = gap_statistic(samples.first[:_GAP_ROWS], max_clusters, named_rng(key, "gap statistic"))
    table = tuple(
        NumberRow(
            num_clusters=k,
            num_groups=num_groups[k - 1],
            valley_p_value=_least_clear(p_values[k - 1], most),
            gaussian_p_value=gaussian[k - 1],
            prediction_strength=stable[k - 1].prediction_strength,
            adjusted_rand=stable[k - 1].adjusted_rand,
            silhouette=widths[k - 1],
            gap=gaps[k - 1][0],
            gap_spread=gaps[k - 1][1],
            inertia=inertia(samples.first, part),
            clusters=_clusters(sets, labels, k, stable[k - 1], alpha),
        )
        for k, part in enumerate(shown, start=1)
    )
    group_labels = groups[most_split][assign(samples.third, parts[most_split].centroids)]
    grouping = Grouping(
        num_groups[most_split],
        most_split + 1,
        _agreement(group_labels, labels[number - 1][2]),
        _cosine_to_main_axis(parts[1]),
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


def _least_clear(p_values: Float[np.ndarray, "k k"], most: int) -> float:
    """Return the p-value of "fewer than k groups"."""
    k = len(p_values)
    if k == 1:
        return float("nan")
    return float(min(1.0, num_tests(k - 1, most) * np.nanmax(p_values)))


def _stabilities(
    parts: tuple[Partition, ...],
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


def _clusters(
    sets: tuple[Float[np.ndarray, "_ q"], ...],
    labels: list[list[Int[np.ndarray, " _"]]],
    k: int,
    stability: Stability,
    alpha: float,
) -> tuple[ClusterRow, ...]:
    """Describe each of the k clusters, given the labels of all sets for 1, 2, ... clusters."""
    third = labels[k - 1][2]
    before = labels[k - 2][2] if k > 1 else np.zeros_like(third)
    table = cross_table(before, third, (max(k - 1, 1), k))
    sizes = table.sum(axis=0)
    parents = table.argmax(axis=0)
    splits = splits_within(sets, labels[k - 1], k)
    return tuple(
        ClusterRow(
            share=float(sizes[c] / len(third)),
            parent=int(parents[c]) if k > 1 else None,
            from_parent=float(table[parents[c], c] / max(sizes[c], 1)),
            jaccard=stability.jaccard[c],
            meaning=hennig(stability.jaccard[c].value),
            within=split,
            is_split=split is not None and split.p_value <= alpha,
        )
        for c, split in enumerate(splits)
    )


def _agreement(first: Int[np.ndarray, " n"], second: Int[np.ndarray, " n"]) -> float:
    shape = (int(first.max()) + 1, int(second.max()) + 1)
    return float(adjusted_rand(cross_table(first, second, shape)))


def _cosine_to_main_axis(pair: Partition) -> float:
    line = pair.centroids[-1] - pair.centroids[0]
    return float(abs(line[0]) / max(float(np.linalg.norm(line)), 1e-30))
