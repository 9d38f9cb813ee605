"""How many clusters: one call.

A number of clusters is right when its clusters are groups with gaps between them, and no more such
groups can be found by asking for more clusters. Stability alone cannot say that: two clusters of
one long cloud are found again in every fresh draw.

1. Three independent sets of rows, in the span of the leading components (`samples`).
2. The first is clustered into 1, 2, ... up to half as many again as asked for (`partitions`).
3. The other two say between which of these clusters there is a gap; clusters without one are joined
   (`gaps`). The number is that of the groups left, at most over all numbers.
4. The second is clustered too, and the third assigned by both (`stability`).
5. One Gaussian (`null`), splits within each cluster (`inner`), the usual criteria (`criteria`).
"""

from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int, PRNGKeyArray

from cgjax.clustering.selection.criteria import (
    elbow,
    gap_choice,
    gap_statistic,
    silhouettes,
)
from cgjax.clustering.selection.gaps import Gaps, gaps_of, groups_of
from cgjax.clustering.selection.inner import split_within
from cgjax.clustering.selection.null import one_gaussian_p_value, one_gaussian_p_value_of_two
from cgjax.clustering.selection.options import SelectionOptions
from cgjax.clustering.selection.partitions import (
    Partition,
    inertia,
    nearest,
    partition_all,
    products,
)
from cgjax.clustering.selection.results import Alternatives, NumberRow, Selection
from cgjax.clustering.selection.samples import Draw, Samples, generator, take_samples
from cgjax.clustering.selection.stability import Stability, measure_stability
from cgjax.clustering.selection.tree import split_tree
from cgjax.clustering.selection.words import Evidence, explain, verdict_of
from cgjax.numerics.partitions import adjusted_rand, cross_table

# The criteria for comparison need all distances, or many clusterings, and see this many rows.
_SILHOUETTE_ROWS, _GAP_ROWS = 1500, 500
_STRONG = 0.8


def select_number(
    source: ArrayLike | Draw,
    max_number: int = 16,
    *,
    key: PRNGKeyArray,
    options: SelectionOptions | None = None,
) -> Selection:
    """Choose the number of clusters, from 1 to `max_number`, and say why.

    A cloud is one cluster if it has one peak along every line, however long it is: to be called
    several, all gaps between two parts of it would have to be seen by chance, each of which has
    at most the chance `alpha`.

    Args:
        source: (n, f) or (n, h, w, c) features of independent draws in no order; or a function
            `draw(key, num)` that returns that many fresh ones.
        max_number: most clusters.
        key: random key: of the draws, the resamples and the null.
        options: how to choose.

    Raises:
        UserError: fewer rows than that takes (`check_rows`), or a row that is not finite.

    Example:
        >>> import jax
        >>> rng = np.random.default_rng(0)
        >>> rows = rng.normal(size=(1000, 3)) + 8.0 * rng.integers(0, 2, (1000, 1))
        >>> selection = select_number(rows, 4, key=jax.random.key(0))
        >>> selection.number, selection.verdict
        (2, 'several clusters')
    """
    options = SelectionOptions() if options is None else options
    samples = take_samples(source, max_number, key, options)
    most = max(max_number + max_number // 2, 2)
    parts = partition_all(samples.first, most, seed_rows=options.seed_rows)
    found = _find_groups(samples, parts, options.alpha)
    number = min(found.num_groups, max_number)
    labels = [_assign(samples.third, part) for part in parts[:max_number]]
    stabilities = _stabilities(parts[:max_number], found, len(samples.second), key, options)
    rows = _table(samples, parts, labels, found, stabilities, generator(key, "gap statistic"))
    rng = generator(key, "null")
    p_value = _against_one_gaussian(parts[found.at - 1], found, rng, options.num_null)
    sets = (samples.first, samples.second, samples.third)
    own = [_assign(part, parts[number - 1]) for part in sets]
    inner = [split_within(sets, own, c, rng) for c in range(number)]
    pair = parts[1].centroids
    line = pair[1] - pair[0]
    evidence = Evidence(
        number,
        found.num_groups,
        found.at if found.num_groups > 1 else 1,
        _agreement(found.groups[_assign(samples.third, parts[found.at - 1])], own[2]),
        options.alpha,
        p_value,
        float(abs(line[0]) / max(float(np.linalg.norm(line)), 1e-30)),
        rows,
        stabilities[number - 1].jaccard,
        tuple(split for split in inner if split is not None),
    )
    return Selection(
        number,
        verdict_of(evidence),
        explain(evidence),
        p_value,
        rows,
        split_tree(labels),
        evidence.clusters,
        evidence.inner,
        evidence.found_at,
        evidence.agreement,
        _basis(samples),
        _alternatives(rows),
    )


class _Found(NamedTuple):
    """The groups.

    Attributes:
        num_groups: most groups over all numbers.
        at: smallest number of clusters that shows them; 2 where there is one group.
        groups: (at,) the group of each cluster.
        between: (at, at), the windows of the gaps.
        is_apart: (at, at), neighbours in different groups.
        held_out: rows in which the gaps were counted.
        per_number: groups and gaps for 2, 3, ... clusters.
    """

    num_groups: int
    at: int
    groups: Int[np.ndarray, " k"]
    between: Int[np.ndarray, "k k"]
    is_apart: Bool[np.ndarray, "k k"]
    held_out: Float[np.ndarray, "n q"]
    per_number: tuple[tuple[Int[np.ndarray, " _"], Gaps], ...]


def _find_groups(samples: Samples, parts: tuple[Partition, ...], alpha: float) -> _Found:
    held_out = np.concatenate([samples.second, samples.third])
    windows, per_number = [], []
    for part in parts[1:]:
        gaps, between = gaps_of(samples.first, part.labels, held_out, part.centroids)
        windows.append(between)
        per_number.append((groups_of(gaps, alpha), gaps))
    index = int(np.argmax([groups.max() for groups, _ in per_number]))
    groups = per_number[index][0]
    num_groups = int(groups.max()) + 1
    is_apart = per_number[index][1].is_next & (groups[:, None] != groups[None, :])
    return _Found(
        num_groups, index + 2, groups, windows[index], is_apart, held_out, tuple(per_number)
    )


def _against_one_gaussian(
    part: Partition, found: _Found, rng: np.random.Generator, num_draws: int
) -> float:
    if found.at == 2:
        return one_gaussian_p_value_of_two(found.held_out, part.centroids, found.between, rng)
    return one_gaussian_p_value(
        found.held_out, part.centroids, found.between, found.is_apart, rng, num_draws=num_draws
    )


def _assign(rows: Float[np.ndarray, "n q"], part: Partition) -> Int[np.ndarray, " n"]:
    return nearest(products(rows, part.centroids), part.centroids)


def _stabilities(
    parts: tuple[Partition, ...],
    found: _Found,
    num_second: int,
    key: PRNGKeyArray,
    options: SelectionOptions,
) -> list[Stability]:
    """Return the stability of each of these partitions, for 1, 2, ... clusters."""
    rng = generator(key, "repeats")
    labels = [_assign(found.held_out, part) for part in parts]
    order = np.arange(len(found.held_out))
    tables: list[list[Int[np.ndarray, "k k"]]] = [[] for _ in parts]
    for _ in range(options.num_repeats):
        second, third = order[:num_second], order[num_second:]
        # Half as large a tree costs a quarter.
        again = partition_all(found.held_out[second], len(parts), seed_rows=options.seed_rows // 2)
        for k, part in enumerate(again, start=1):
            own = _assign(found.held_out[third], part)
            tables[k - 1].append(cross_table(labels[k - 1][third], own, (k, k)))
        order = rng.permutation(len(found.held_out))
    return [
        measure_stability(
            np.stack(table),
            rng,
            num_resamples=options.num_resamples,
            confidence=options.confidence,
        )
        for table in tables
    ]


def _table(
    samples: Samples,
    parts: tuple[Partition, ...],
    labels: list[Int[np.ndarray, " n"]],
    found: _Found,
    stabilities: list[Stability],
    rng: np.random.Generator,
) -> tuple[NumberRow, ...]:
    part = slice(_SILHOUETTE_ROWS)
    widths = silhouettes(samples.third[part], [own[part] for own in labels])
    gaps = gap_statistic(samples.first[:_GAP_ROWS], len(labels), rng)
    rows = []
    for k, stability in enumerate(stabilities, start=1):
        groups, pairs = (None, None) if k == 1 else found.per_number[k - 2]
        apart = np.nan if pairs is None else pairs.p_values[pairs.is_next].max()
        rows.append(
            NumberRow(
                k,
                1 if groups is None else int(groups.max()) + 1,
                float(apart),
                stability.prediction_strength,
                stability.adjusted_rand,
                min(stability.jaccard),
                widths[k - 1],
                *gaps[k - 1],
                inertia(samples.first, parts[k - 1]),
            )
        )
    return tuple(rows)


def _agreement(first: Int[np.ndarray, " n"], second: Int[np.ndarray, " n"]) -> float:
    shape = (int(first.max()) + 1, int(second.max()) + 1)
    return float(adjusted_rand(cross_table(first, second, shape)))


def _alternatives(rows: tuple[NumberRow, ...]) -> Alternatives:
    widths = [row.silhouette for row in rows]
    return Alternatives(
        max(row.number for row in rows if row.prediction_strength.value >= _STRONG),
        1 if np.isnan(widths).all() else 1 + int(np.nanargmax(widths)),
        elbow([row.inertia for row in rows]),
        gap_choice([(row.gap_statistic, row.gap_spread) for row in rows]),
    )


def _basis(samples: Samples) -> str:
    sizes = (len(samples.first), len(samples.second), len(samples.third))
    return (
        f"three independent sets of {sizes[0]:,}, {sizes[1]:,} and {sizes[2]:,} rows, in the span "
        f"of the leading {samples.num_components} components of {samples.num_pca_rows:,} rows "
        f"({samples.explained:.0%} of the variance)"
    )
