"""Three independent sets of rows, projected on the leading principal components.

The components are those of the first set; they are ordered, so that coordinate 0 is the main axis.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, PRNGKeyArray

from cgjax.errors import UserError
from cgjax.numerics.arguments import check_differences, check_whole
from cgjax.numerics.pca import PCA, fit_pca
from cgjax.numerics.rows import as_rows
from cgjax.runtime.keys import named_key

DrawRows = Callable[[PRNGKeyArray, int], ArrayLike]

# Rows needed for each cluster that could be chosen, on average (three tenths of them are
# clustered), and at least.
_ROWS_PER_CLUSTER, _LEAST_ROWS = 60, 300
# The components come from _PCA_ROWS rows; drawn rows are projected in blocks of _BLOCK.
_PCA_ROWS, _BLOCK = 2000, 1024


class SampleSets(NamedTuple):
    """The sets and the span.

    Attributes:
        first: (a, q) float32, clustered.
        second: (b, q) float32, clustered independently.
        third: (c, q) float32, assigned by both.
        explained: share of the first set's variance in the span.
    """

    first: Float[np.ndarray, "n q"]
    second: Float[np.ndarray, "n q"]
    third: Float[np.ndarray, "n q"]
    explained: float

    @property
    def sets(self) -> tuple[Float[np.ndarray, "_ q"], ...]:
        """The first, the second and the third set."""
        return self.first, self.second, self.third

    @property
    def held_out(self) -> Float[np.ndarray, "n q"]:
        """The rows that are not clustered: the second set, then the third."""
        return np.concatenate([self.second, self.third])

    def describe(self) -> str:
        """Describe the rows that the choice is based on."""
        sizes = f"{len(self.first):,}, {len(self.second):,} and {len(self.third):,} rows"
        return (
            f"three independent sets of {sizes} in the span of {self.first.shape[1]} principal "
            f"components ({self.explained:.0%} of the variance)"
        )


def least_rows(max_clusters: int) -> int:
    """Return how many rows are needed to choose among 1 to `max_clusters` clusters.

    >>> least_rows(16)
    960
    """
    return max(_LEAST_ROWS, _ROWS_PER_CLUSTER * max_clusters)


def most_clusters(num_rows: int) -> int:
    """Return the most clusters that can be chosen from `num_rows` rows; 0 for too few rows.

    >>> most_clusters(959), most_clusters(960), most_clusters(200)
    (15, 16, 0)
    """
    return num_rows // _ROWS_PER_CLUSTER if num_rows >= _LEAST_ROWS else 0


def check_rows(
    num_rows: int,
    max_clusters: int,
    otherwise: str = ", or a number as --config.cluster.num_clusters",
) -> None:
    """Refuse too few rows before anything is computed.

    Args:
        num_rows: rows of all three sets together.
        max_clusters: most clusters that may be chosen.
        otherwise: an alternative for the user, for the message.

    Raises:
        UserError: fewer rows than `least_rows`, or a number of clusters below 1.
    """
    check_whole("max_clusters", max_clusters, hint="try --config.cluster.max_clusters=16")
    least = least_rows(max_clusters)
    if num_rows < least:
        raise UserError(
            f"choosing among 1 to {max_clusters} clusters needs at least {least} latents, not "
            f"{num_rows}; give --config.latents.num={least} or more{otherwise}"
        )


def take_samples(
    source: ArrayLike | DrawRows,
    max_clusters: int,
    key: PRNGKeyArray,
    *,
    num_rows: int,
    num_components: int,
) -> SampleSets:
    """Return the first 30% of the rows, the next 30% and the rest.

    Args:
        source: array or function, see `choose_num_clusters`.
        max_clusters: most clusters that may be chosen.
        key: for the draws.
        num_rows: number of rows to draw; of an array, at most the first `num_rows` are used.
        num_components: q, at most.
    """
    if not callable(source):
        rows = as_rows("the features", source)[:num_rows]
        num_rows = len(rows)
    check_rows(num_rows, max_clusters)
    fit = 3 * num_rows // 10
    # The rows that the components come from are drawn at once, all others a block at a time.
    num_head = min(fit, _PCA_ROWS)
    head = _ask(source, named_key(key, "draw", 0), num_head) if callable(source) else rows[:fit]
    check_differences("the features", head[:_PCA_ROWS])
    pca = fit_pca(head[:_PCA_ROWS], min(num_components, head.shape[1], num_head - 1))
    total = max(pca.total_variance, float(np.finfo(np.float32).tiny))
    if callable(source):
        sizes = (fit - num_head, fit, num_rows - 2 * fit)
        first, second, third = (
            _draw(source, pca, named_key(key, "draw", i), size)
            for i, size in enumerate(sizes, start=1)
        )
        first = np.concatenate([pca.project(head), first])
    else:
        first, second = pca.project(head), pca.project(rows[fit : 2 * fit])
        third = pca.project(rows[2 * fit :])
    explained = min(float(pca.explained_variance.sum()) / total, 1.0)
    return SampleSets(first, second, third, explained)


def named_rng(key: PRNGKeyArray, name: str) -> np.random.Generator:
    """Return a NumPy generator for a named part of the work."""
    return np.random.default_rng(np.asarray(jax.random.key_data(named_key(key, name))).tolist())


def _ask(source: DrawRows, key: PRNGKeyArray, num: int) -> np.ndarray:
    rows = as_rows("the drawn features", source(key, num))
    if len(rows) != num:
        raise UserError(f"draw(key, {num}) returned {len(rows)} rows; expected {num}")
    return rows


def _draw(source: DrawRows, pca: PCA, key: PRNGKeyArray, size: int) -> Float[np.ndarray, "n q"]:
    begins = range(0, size, _BLOCK)
    blocks = (_ask(source, named_key(key, at), min(_BLOCK, size - at)) for at in begins)
    none = np.empty((0, len(pca.components)), np.float32)
    return np.concatenate([none, *(pca.project(block) for block in blocks)])
