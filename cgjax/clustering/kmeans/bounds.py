"""A bound on how far the centroids have moved since each row was last visited.

With rho(x) the residual norm of `subspace` and d_1, d_2, ... the steps of a centroid after the
visit, the bound is the left side of

    rho(d_1 + d_2 + ...) <= rho(d_1) + rho(d_2) + ...

because steps point in many directions: after ten of them it is about half of the right side. That
takes the movement since every visit; here it is kept since a few reference positions. A row visited
at one of them has its movement from there. After each step the reference that the fewest rows use
is moved to the present centroids, once the movement of these rows has been added to their bounds.

Symbols: y rows (n, f), r restarts, k clusters, h references, q directions of the subspace.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from cgjax.clustering.kmeans import subspace as sub
from cgjax.clustering.kmeans.subspace import Subspace
from cgjax.runtime.mesh import varying_like

# Rows read for 10,000 rows, 8 clusters, ten restarts and 25 iterations: 225,000 with one reference
# (the sum of steps), 177,000 with 3, 164,000 with 8 and 162,000 with one for every step.
_REFERENCES = 3
# The centroids at all references take at most one part in this many of the rows' memory.
_SHARE = 4


class MovementBound(NamedTuple):
    """The movement since each reference position, and which of them each row uses.

    Attributes:
        movement: (h, r, k, f) float32, of the centroids since each reference.
        along: (h, r, k, q) float32, Q movement.
        path: (h, r, k, k) float32, sum of ||d_a - d_c|| over the steps since each reference.
        residuals: (h, r, k, k) float32, rho(m_a - m_c) of the movement m since each reference.
        reference: (n, r) int32, the reference each row uses.
        before: (n, r, k) float32, bound on the movement between the visit and the reference; inf
            before the first visit.
        newest: () int32, the reference at the present centroids.
    """

    movement: Float[Array, "h r k f"]
    along: Float[Array, "h r k q"]
    path: Float[Array, "h r k k"]
    residuals: Float[Array, "h r k k"]
    reference: Int[Array, "n r"]
    before: Float[Array, "n r k"]
    newest: Int[Array, ""]


def start(
    centroids: Float[Array, "r k f"], squares: Float[Array, " n"], subspace: Subspace, before: float
) -> MovementBound:
    """Return the bound at the first centroids; `before` is 0 if all rows were visited, else inf."""
    num_init, num_clusters, _ = centroids.shape
    num = min(max(squares.shape[0] // (_SHARE * num_init * max(num_clusters, 1)), 1), _REFERENCES)
    pairs = jnp.zeros((num, num_init, num_clusters, num_clusters), jnp.float32)
    shape = (squares.shape[0], num_init)
    return MovementBound(
        movement=jnp.zeros((num, *centroids.shape), jnp.float32),
        along=jnp.zeros((num, num_init, num_clusters, subspace.points.shape[0]), jnp.float32),
        path=pairs,
        residuals=pairs,
        reference=varying_like(jnp.zeros(shape, jnp.int32), squares),
        before=varying_like(jnp.full((*shape, num_clusters), before, jnp.float32), squares),
        newest=jnp.int32(0),
    )


def visit(bound: MovementBound, is_visited: Bool[Array, "n r"]) -> MovementBound:
    """Return the bound after some rows were visited: zero for them."""
    return bound._replace(
        reference=jnp.where(is_visited, bound.newest, bound.reference),
        before=jnp.where(is_visited[:, :, None], 0.0, bound.before),
    )


def of_rows(bound: MovementBound, labels: Int[Array, "n r"]) -> Float[Array, "n r k"]:
    """Return the most that each centroid may have moved relative to the row's own, over rho(y)."""
    return bound.before + _since_reference(bound, labels)


def _since_reference(bound: MovementBound, labels: Int[Array, "n r"]) -> Float[Array, "n r k"]:
    return bound.residuals[
        bound.reference, jnp.arange(labels.shape[1], dtype=jnp.int32)[None, :], labels
    ]


def count_references(bound: MovementBound) -> Float[Array, " h"]:
    """Return how many rows (of all restarts) use each reference."""
    ids = jnp.arange(bound.path.shape[0], dtype=jnp.int32)
    return jnp.sum(
        bound.reference[:, :, None] == ids[None, None, :], axis=(0, 1), dtype=jnp.float32
    )


def advance(
    bound: MovementBound,
    subspace: Subspace,
    step: Float[Array, "r k f"],
    labels: Int[Array, "n r"],
    num_rows: Float[Array, " h"],
) -> tuple[MovementBound, Float[Array, "n r k"]]:
    """Return the bound after a step, and by how much the tracked products -2 <y, mu> change.

    `step` is d of each centroid, `labels` are those from now on, and `num_rows` says how many rows
    of all shards use each reference.
    """
    along = sub.along(subspace, step)
    bound = bound._replace(
        movement=bound.movement + step[None],
        along=bound.along + along[None],
        path=bound.path + jnp.sqrt(sub.pairs(step))[None],
    )
    residuals = sub.residuals_of_pairs(bound.movement, bound.along, bound.path)
    bound = bound._replace(residuals=residuals)
    newest = jnp.argmin(num_rows).astype(jnp.int32)
    is_passed = (bound.reference == newest)[:, :, None]
    bound = bound._replace(
        movement=bound.movement.at[newest].set(0.0),
        along=bound.along.at[newest].set(0.0),
        path=bound.path.at[newest].set(0.0),
        residuals=residuals.at[newest].set(0.0),
        before=bound.before + jnp.where(is_passed, _since_reference(bound, labels), 0.0),
        newest=newest,
    )
    return bound, sub.change(subspace, along)
