"""Whether a clustering of fresh rows is the same one.

Two independent sets are clustered and a third is assigned by both, repeatedly; all measures come
from the table of the third set's two labels, see `numerics.cross_tables`. The intervals come from a
bootstrap over both sources of chance: the rows of the third set, resampled within every repetition,
and the repetitions.

Symbols: r repetitions, k clusters, n rows of the third set, s resamples.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from cgjax.numerics.cross_tables import adjusted_rand, jaccard, prediction_strength

_RESAMPLES = 200


class Measure(NamedTuple):
    """A number and the ends of its interval."""

    value: float
    low: float
    high: float


class Stability(NamedTuple):
    """How reproducible a clustering is; means over the repetitions.

    Attributes:
        prediction_strength: of the least stable cluster [Tibshirani & Walther 2005].
        adjusted_rand: between both labellings of the third set.
        jaccard: for each cluster, its similarity to the most similar other one [Hennig 2007].
    """

    prediction_strength: Measure
    adjusted_rand: Measure
    jaccard: tuple[Measure, ...]


def measure_stability(
    tables: Int[np.ndarray, "r k k"],
    rng: np.random.Generator,
    *,
    confidence: float = 0.95,
) -> Stability:
    """Compare the labels that one clustering gives a third set with those of others.

    Args:
        tables: (r, k, k), `cross_table` of the labels by the clustering that is judged and by
            another one, of the same number of rows in each repetition.
        rng: for the resampling.
        confidence: confidence level of the intervals.
    """
    num_repeats, num_clusters, num_rows = *tables.shape[:2], int(tables[0].sum())
    size = (num_repeats, _RESAMPLES)
    shares = tables.reshape(num_repeats, 1, -1) / num_rows
    resampled = rng.multinomial(num_rows, shares, size=size).reshape(*size, *tables.shape[1:])
    chosen = rng.integers(num_repeats, size=size)

    def measure(observed: Float[np.ndarray, " r"], resampled: Float[np.ndarray, "r s"]) -> Measure:
        means = np.take_along_axis(resampled, chosen, axis=0).mean(axis=0)
        tail = (1 - confidence) / 2
        low, high = np.quantile(means, [tail, 1 - tail])
        return Measure(float(observed.mean()), float(low), float(high))

    similarity, similarities = jaccard(tables), jaccard(resampled)
    return Stability(
        measure(prediction_strength(tables), prediction_strength(resampled)),
        measure(adjusted_rand(tables), adjusted_rand(resampled)),
        tuple(measure(similarity[:, c], similarities[:, :, c]) for c in range(num_clusters)),
    )


def hennig(similarity: float) -> str:
    """Say in words what a cluster's mean Jaccard similarity means, by Hennig's thresholds.

    >>> hennig(0.8)
    'a valid, stable cluster'
    """
    if similarity < 0.6:
        return "not stable"
    if similarity < 0.75:
        return "a pattern whose members are doubtful"
    if similarity <= 0.85:
        return "a valid, stable cluster"
    return "highly stable"
