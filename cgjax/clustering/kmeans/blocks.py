"""The jitted functions of one block of rows, and of what was summed over the blocks.

Those that take an index and a block are steps of `sources.Reader.fold`: they take what is known so
far and return it updated. The index is padded with n, which a scatter drops.

Symbols: y rows (n, f), s rows of a block, p points, r restarts, k clusters, h references.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from cgjax.clustering.assignment import Assignment, assign_rows
from cgjax.clustering.kmeans import bounds
from cgjax.clustering.kmeans import state as states
from cgjax.clustering.kmeans.state import Counts, KMeansState, may_change, nearest_labels, one_hot
from cgjax.kernels.products import HIGHEST

means, fill_empty = jax.jit(states.means), jax.jit(states.fill_empty)


@partial(jax.jit, static_argnames=("num_rows",))
def add_up(
    total: Float[Array, " f"], index: Int[Array, " s"], block: Float[Array, "s f"], num_rows: int
) -> Float[Array, " f"]:
    """Add a block's real rows to a sum."""
    is_real = (index < num_rows)[:, None]
    return total + jnp.sum(jnp.where(is_real, block, 0.0), axis=0)


@partial(jax.jit, donate_argnames=("known",))
def seed(
    known: tuple[Float[Array, "n p"], Float[Array, " n"]],
    index: Int[Array, " s"],
    block: Float[Array, "s f"],
    offset: Float[Array, " f"],
    points: Float[Array, "p f"],
) -> tuple[Float[Array, "n p"], Float[Array, " n"]]:
    """Enter -2 <y, point> and ||y||^2 of a block's rows."""
    product, squares = known
    rows = block - offset[None, :]
    products = -2.0 * jnp.matmul(rows, points.T, precision=HIGHEST)
    return (
        product.at[index].set(products, mode="drop"),
        squares.at[index].set(jnp.sum(jnp.square(rows), axis=1), mode="drop"),
    )


@jax.jit
def must_be_read(
    states: tuple[KMeansState, ...], squares: Float[Array, " n"], weights: Float[Array, " n"]
) -> Bool[Array, " n"]:
    """Return which rows an iteration has to read."""

    def any_restart(state: KMeansState) -> Array:
        is_open = may_change(state, squares, weights)
        return jnp.any(is_open | (nearest_labels(state, weights) != state.labels), axis=1)

    return jnp.any(jnp.stack(list(map(any_restart, states))), axis=0)


@partial(jax.jit, donate_argnames=("known",))
def visit(
    known: tuple[tuple[KMeansState, ...], Float[Array, " n"]],
    index: Int[Array, " s"],
    block: Float[Array, "s f"],
    offset: Float[Array, " f"],
) -> tuple[tuple[KMeansState, ...], Float[Array, " n"]]:
    """Enter the products of a block's rows, and move rows whose label changed to their new sums."""
    states, squares = known
    is_real = index < squares.shape[0]
    rows = jnp.where(is_real[:, None], block - offset[None, :], 0.0)
    own_squares = jnp.sum(jnp.square(rows), axis=1)
    states = tuple(_visit_rows(state, index, rows, is_real) for state in states)
    return states, squares.at[index].set(own_squares, mode="drop")


def _visit_rows(
    state: KMeansState,
    index: Int[Array, " s"],
    rows: Float[Array, "s f"],
    is_real: Bool[Array, " s"],
) -> KMeansState:
    num_init, num_clusters, dim = state.centroids.shape
    inner = jnp.matmul(rows, state.centroids.reshape(-1, dim).T, precision=HIGHEST)
    product = -2.0 * inner.reshape(-1, num_init, num_clusters)
    before = state.labels.at[index].get(mode="clip")
    weights = is_real.astype(jnp.float32)
    after = nearest_labels(state._replace(products=product, labels=before), weights)
    before = jnp.where(is_real[:, None], before, -1)

    def move(sums: Array) -> Array:
        member = one_hot(after, num_clusters) - one_hot(before, num_clusters)
        change = jax.lax.dot_general(member, rows, (((0,), (0,)), ((), ())), precision=HIGHEST)
        return sums + change.reshape(sums.shape)

    sums = jax.lax.cond(jnp.any(after != before), move, lambda sums: sums, state.sums)
    is_visited = jnp.zeros(state.labels.shape, bool).at[index].set(True, mode="drop")
    return state._replace(
        products=state.products.at[index].set(product, mode="drop"),
        bound=bounds.visit(state.bound, is_visited),
        sums=sums,
    )


@jax.jit
def count(
    state: KMeansState, squares: Float[Array, " n"], weights: Float[Array, " n"]
) -> tuple[Int[Array, "n r"], Counts]:
    """Return the new labels, and the counts of this process's rows."""
    labels = nearest_labels(state, weights)
    return labels, states.count(state, labels, squares)


@partial(jax.jit, donate_argnames=("state",))
def advance(
    state: KMeansState,
    labels: Int[Array, "n r"],
    total: Float[Array, "r k f"] | None,
    counts: Counts,
    moved: Float[Array, "r k f"],
    tol: Float[Array, ""],
) -> KMeansState:
    """Return the state after a step; `total` is None where it is the state's own sums."""
    total = state.sums if total is None else total
    # The clusters of any restart together hold all rows.
    num_rows = jnp.sum(counts.members[0])
    mean = jnp.sum(total[0], axis=0) / num_rows
    spread = counts.squares / num_rows - jnp.sum(jnp.square(mean))
    least_shift = tol * spread / moved.shape[2]
    advanced = states.advance(state, labels, total, counts, moved, least_shift)
    # `advance` stores the sums over all rows; here each process keeps the sums of its own rows.
    return advanced._replace(sums=state.sums)


@partial(jax.jit, donate_argnames=("assigned",))
def assign(
    assigned: tuple[Assignment, ...],
    index: Int[Array, " s"],
    block: Float[Array, "s f"],
    centroids: tuple[Array, ...],
) -> tuple[Assignment, ...]:
    """Enter the assignment of a block's rows to several sets of centroids (k, f)."""

    def enter(known: Assignment, centroids: Array) -> Assignment:
        new = assign_rows(block, centroids)
        entered = (a.at[index].set(b, mode="drop") for a, b in zip(known, new, strict=True))
        return Assignment(*entered)

    return tuple(map(enter, assigned, centroids))
