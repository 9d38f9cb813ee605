"""How far the centroids may have moved from a row's products since the row was last visited.

The steps d_1, d_2, ... of a centroid after the visit are bounded as one,

    rest(d_1 + d_2 + ...) <= rest(d_1) + rest(d_2) + ...

for they point in many directions: after ten steps the left side is about half of the right. That
takes the movement since every visit; here it is kept since a few marks. A row visited at one of
them has its movement from there. Before a mark is set anew, at the present centroids, what its rows
have drifted so far is added up: the mark that fewest rows go by is the one.

Symbols: y rows (n, f), r restarts, k clusters, h marks, q directions of the subspace.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from cgjax.clustering.kmeans import subspace as sub
from cgjax.clustering.kmeans.subspace import Subspace
from cgjax.runtime.mesh import varying_like

# Rows of 10,000 read for 8 clusters, ten restarts and 25 iterations: 225,000 with one mark (the sum
# of steps), 177,000 with 3, 164,000 with 8 and 162,000 with one for every step.
_MARKS = 3
# All centroids at all marks are at most so large a part of the rows.
_SHARE = 4


class Drift(NamedTuple):
    """The movement since each mark, and which mark each row goes by.

    Attributes:
        movement: (h, r, k, f) float32, of the centroids since each mark.
        along: (h, r, k, q) float32, Q movement.
        path: (h, r, k, k) float32, sum of ||d_a - d_c|| over the steps since each mark.
        rests: (h, r, k, k) float32, rest(m_a - m_c) of the movement m since each mark.
        mark: (n, r) int32, the mark each row goes by.
        before: (n, r, k) float32, bound of the drift between the visit and the mark; inf before the
            first visit.
        newest: () int32, the mark at the present centroids.
    """

    movement: Float[Array, "h r k f"]
    along: Float[Array, "h r k q"]
    path: Float[Array, "h r k k"]
    rests: Float[Array, "h r k k"]
    mark: Int[Array, "n r"]
    before: Float[Array, "n r k"]
    newest: Int[Array, ""]


def start(
    centroids: Float[Array, "r k f"], squares: Float[Array, " n"], subspace: Subspace, before: float
) -> Drift:
    """Return the drift at the first centroids: `before` is 0 if all rows are known, else inf."""
    num_init, num_clusters, _ = centroids.shape
    num = min(max(squares.shape[0] // (_SHARE * num_init * num_clusters), 1), _MARKS)
    pairs = jnp.zeros((num, num_init, num_clusters, num_clusters))
    shape = (squares.shape[0], num_init)
    return Drift(
        movement=jnp.zeros((num, *centroids.shape)),
        along=jnp.zeros((num, num_init, num_clusters, subspace.points.shape[0])),
        path=pairs,
        rests=pairs,
        mark=varying_like(jnp.zeros(shape, jnp.int32), squares),
        before=varying_like(jnp.full((*shape, num_clusters), before, jnp.float32), squares),
        newest=jnp.int32(0),
    )


def visit(drift: Drift, is_visited: Bool[Array, "n r"]) -> Drift:
    """Return the drift after some rows were visited: theirs is none."""
    return drift._replace(
        mark=jnp.where(is_visited, drift.newest, drift.mark),
        before=jnp.where(is_visited[:, :, None], 0.0, drift.before),
    )


def of_rows(drift: Drift, labels: Int[Array, "n r"]) -> Float[Array, "n r k"]:
    """Return how far each centroid may have drifted from the row's own, over rest(y)."""
    return drift.before + _since_mark(drift, labels)


def _since_mark(drift: Drift, labels: Int[Array, "n r"]) -> Float[Array, "n r k"]:
    return drift.rests[drift.mark, jnp.arange(labels.shape[1])[None, :], labels]


def count_marks(drift: Drift) -> Float[Array, " h"]:
    """Return how many rows (of all restarts) go by each mark."""
    ids = jnp.arange(drift.path.shape[0], dtype=jnp.int32)
    return jnp.sum(drift.mark[:, :, None] == ids[None, None, :], axis=(0, 1), dtype=jnp.float32)


def advance(
    drift: Drift,
    subspace: Subspace,
    step: Float[Array, "r k f"],
    labels: Int[Array, "n r"],
    marks: Float[Array, " h"],
) -> tuple[Drift, Float[Array, "n r k"]]:
    """Return the drift after a step, and by how much the products -2 <y, mu> change in it.

    Args:
        drift: the drift before.
        subspace: the directions in which products are followed.
        step: (r, k, f), d of each centroid.
        labels: (n, r), the labels from now on.
        marks: (h,), how many rows of all shards go by each mark.
    """
    along = sub.along(subspace, step)
    drift = drift._replace(
        movement=drift.movement + step[None],
        along=drift.along + along[None],
        path=drift.path + jnp.sqrt(sub.pairs(step))[None],
    )
    rests = sub.rest_of_pairs(drift.movement, drift.along, drift.path)
    drift = drift._replace(rests=rests)
    newest = jnp.argmin(marks).astype(jnp.int32)
    is_passed = (drift.mark == newest)[:, :, None]
    drift = drift._replace(
        movement=drift.movement.at[newest].set(0.0),
        along=drift.along.at[newest].set(0.0),
        path=drift.path.at[newest].set(0.0),
        rests=rests.at[newest].set(0.0),
        before=drift.before + jnp.where(is_passed, _since_mark(drift, labels), 0.0),
        newest=newest,
    )
    return drift, sub.change(subspace, along)
