"""Three independent sets of rows, in the span of the leading principal components.

The components are those of a part of the first set; they are ordered, so that coordinate 0 is the
main axis. Between-cluster differences that k-means can see lie in this span up to the noise.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, PRNGKeyArray

from cgjax.clustering.selection.options import SelectionOptions, check_rows
from cgjax.numerics.pca import PCA, fit_pca
from cgjax.numerics.rows import as_rows
from cgjax.runtime.keys import named_key

Draw = Callable[[PRNGKeyArray, int], ArrayLike]
Rows = Float[np.ndarray, "n q"]

# The components come from this many rows; drawn rows are projected block by block.
_PCA_ROWS, _BLOCK = 2000, 1024


class Samples(NamedTuple):
    """The sets and the span.

    Attributes:
        first: (a, q) float32, clustered.
        second: (b, q) float32, clustered independently.
        third: (c, q) float32, assigned by both.
        explained: share of the first set's variance in the span.
        num_components: q.
        num_pca_rows: rows from which the components come.
    """

    first: Rows
    second: Rows
    third: Rows
    explained: float
    num_components: int
    num_pca_rows: int


def take_samples(
    source: ArrayLike | Draw, max_number: int, key: PRNGKeyArray, options: SelectionOptions
) -> Samples:
    """Return the three sets; see `select_number` for the source.

    Of an array the first 30% of the rows, the next 30% and the rest: its rows must be independent
    draws, in no order. At most `num_fit`, `num_fit` and `num_third`.
    """
    if callable(source):
        sizes = (options.num_fit, options.num_fit, options.num_third)
        check_rows(sum(sizes), max_number)
        rows = as_rows(
            "the drawn features", np.asarray(source(named_key(key, "draw", 0), sizes[0]))
        )
        pca, explained, used = _fit(rows, options.dim)
        first = pca.project(rows)
        second, third = (_project(pca, _blocks(source, key, i, sizes[i])) for i in (1, 2))
    else:
        rows = as_rows("the features", np.asarray(source))
        check_rows(len(rows), max_number)
        num = min(options.num_fit, 3 * len(rows) // 10)
        end = min(len(rows), 2 * num + options.num_third)
        pca, explained, used = _fit(rows[:num], options.dim)
        first = pca.project(rows[:num])
        second, third = pca.project(rows[num : 2 * num]), pca.project(rows[2 * num : end])
    return Samples(first, second, third, explained, first.shape[1], used)


def generator(key: PRNGKeyArray, name: str) -> np.random.Generator:
    """Return numpy's generator for a named part of the work."""
    return np.random.default_rng(np.asarray(jax.random.key_data(named_key(key, name))).tolist())


def _fit(rows: Float[np.ndarray, "n f"], dim: int) -> tuple[PCA, float, int]:
    part = rows[:_PCA_ROWS]
    pca = fit_pca(part, min(dim, part.shape[1], len(part) - 1))
    total = max(pca.total_variance, float(np.finfo(np.float32).tiny))
    return pca, min(float(pca.explained_variance.sum()) / total, 1.0), len(part)


def _blocks(draw: Draw, key: PRNGKeyArray, which: int, size: int) -> Iterator[np.ndarray]:
    for begin in range(0, size, _BLOCK):
        num = min(_BLOCK, size - begin)
        yield as_rows(
            "the drawn features", np.asarray(draw(named_key(key, "draw", which, begin), num))
        )


def _project(pca: PCA, blocks: Iterator[np.ndarray]) -> Rows:
    return np.concatenate([pca.project(block) for block in blocks])
