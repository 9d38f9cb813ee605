"""Cross-class transfer: clusters learnt on one class of a conditional generator, used on others.

A sampler T_c learnt on class A gives latents; class B, given the same latents, has a clustering of
its own. The transfer is good if B's own cluster reveals which c was asked for [Georgopoulos et al.
2022, Fig. 6, which shows pictures and no number].
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

from cgjax.errors import UserError
from cgjax.numerics.cross_tables import cross_table
from cgjax.numerics.intervals import Interval, wilson_interval


class TransferScore(NamedTuple):
    """How well a class's own clustering agrees with the clusters that were asked for.

    Attributes:
        agreement: share of samples whose own cluster is matched to the one asked for.
        interval: its 95% Wilson interval.
        chance: the agreement after matching if the two clusterings are unrelated (the mean over
            random permutations): at least 1 / C, and more for few samples or unequal clusters,
            since the matching is chosen after the fact.
        matching: (C,) the class's own cluster matched to each one asked for; -1 for none.
        by_cluster: (C,) the agreement per cluster asked for; NaN for those without samples.
    """

    agreement: float
    interval: Interval
    chance: float
    matching: Int[np.ndarray, " k"]
    by_cluster: Float[np.ndarray, " k"]


def transfer_score(
    asked: Int[np.ndarray, " n"],
    own: Int[np.ndarray, " n"],
    num_clusters: int,
    *,
    seed: int = 0,
    num_permutations: int = 200,
) -> TransferScore:
    """Match the clusters asked for to a class's own, and count how often they agree.

    agreement = max over one-to-one matchings m of (1/n) sum_i [own_i = m(asked_i)], by the
    Hungarian method.

    Args:
        asked: (n,) the cluster of the source class that each latent was drawn for.
        own: (n,) the cluster that the target class's own k-means assigns to the same latent.
        num_clusters: C, the same for both.
        seed: of the permutations.
        num_permutations: number of permutations for `chance`.

    Returns:
        The score.

    Raises:
        UserError: the two differ in length, are empty, or contain ids out of range.

    Example:
        >>> transfer_score(np.array([0, 0, 1, 1]), np.array([1, 1, 0, 0]), 2).agreement
        1.0
    """
    asked, own = np.asarray(asked), np.asarray(own)
    if asked.ndim != 1 or asked.shape != own.shape or not len(asked):
        raise UserError(
            f"asked {asked.shape} and own {own.shape} clusters; expected two non-empty (n,) arrays "
            "of the same length"
        )
    if min(asked.min(), own.min()) < 0 or max(asked.max(), own.max()) >= num_clusters:
        raise UserError(f"cluster ids must be from 0 to {num_clusters - 1}")
    shape = (num_clusters, num_clusters)
    table = cross_table(asked, own, shape)
    rows, columns = linear_sum_assignment(table, maximize=True)
    matching = np.full(num_clusters, -1)
    matching[rows] = columns
    hits = int(table[rows, columns].sum())
    sizes = table.sum(axis=1)
    with np.errstate(invalid="ignore"):
        by_cluster = np.where(sizes > 0, table[np.arange(num_clusters), matching] / sizes, np.nan)
    rng = np.random.default_rng(seed)
    hits_by_chance = [
        _matched(cross_table(asked, rng.permutation(own), shape)) for _ in range(num_permutations)
    ]
    return TransferScore(
        agreement=hits / len(asked),
        interval=wilson_interval(hits, len(asked)),
        chance=float(np.mean(hits_by_chance)) / len(asked),
        matching=matching,
        by_cluster=by_cluster,
    )


def _matched(table: Int[np.ndarray, "k k"]) -> int:
    return int(table[linear_sum_assignment(table, maximize=True)].sum())
