"""Which rows an iteration visits: all in one product, or only those whose label may have changed.

Symbols: n rows, r restarts, k clusters, g groups of restarts.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from cgjax.clustering.kmeans.bounds import visit
from cgjax.clustering.kmeans.rows import Rows, some_products, whole_products
from cgjax.clustering.kmeans.state import KMeansState, may_change

# Rows are gathered for groups of restarts of about _GROUP centroids. Measured on a CPU: gathering a
# row takes as long as _GATHERING of its products, reading it in place as long as _READING.
_GROUP, _GATHERING, _READING = 16, 56, 16
# How much longer gathering takes compared with reading on a GPU; with 10 an iteration took 16 ms on
# an H200, with 2 it took 7 (benchmarks/kmeans_gpu.py).
_KERNELS = 2

# Products (n, r, k), and which rows were visited (n, r): a branch would copy a whole state.
Known = tuple[Array, Array]


def update_products(rows: Rows, states: tuple[KMeansState, ...]) -> tuple[KMeansState, ...]:
    """Compute the products of all rows whose nearest centroid may have changed.

    Either all rows at once, or gathered for a few restarts at a time: whichever is less work.
    """
    opens = [may_change(state, rows.squares, rows.weights) for state in states]
    points = [state.centroids.reshape(-1, state.centroids.shape[2]) for state in states]
    widths = [len(part) for part in points]
    gathering = sum(map(_gathering_work, states, opens))
    reading = rows.weights.shape[0] * (sum(widths) + _READING)
    is_whole = jax.lax.platform_dependent(
        gathering, cpu=lambda work: work > reading, default=lambda work: _KERNELS * work > reading
    )

    def whole(known: tuple[Known, ...]) -> tuple[Known, ...]:
        parts = jnp.split(
            whole_products(rows, jnp.concatenate(points)), np.cumsum(widths)[:-1], axis=1
        )
        return tuple(
            (part.reshape(product.shape), jnp.ones_like(is_visited))
            for part, (product, is_visited) in zip(parts, known, strict=True)
        )

    def by_groups(known: tuple[Known, ...]) -> tuple[Known, ...]:
        return tuple(map(partial(_visit_open, rows), states, opens, known))

    known = tuple(
        (state.products, jnp.zeros_like(is_open))
        for state, is_open in zip(states, opens, strict=True)
    )
    known = jax.lax.cond(is_whole & ~rows.is_far, whole, by_groups, known)
    return tuple(
        state._replace(products=product, bound=visit(state.bound, is_visited))
        for state, (product, is_visited) in zip(states, known, strict=True)
    )


def _gathering_work(state: KMeansState, is_open: Bool[Array, "n r"]) -> Float[Array, ""]:
    """Return the work of gathering the open rows, in units of one product of a row."""
    size, begins = _groups(state)
    is_gathered = jax.vmap(lambda begin: _any_open(is_open, begin, size))(begins)
    return jnp.sum(is_gathered, dtype=jnp.float32) * (size * state.centroids.shape[1] + _GATHERING)


def _visit_open(rows: Rows, state: KMeansState, is_open: Bool[Array, "n r"], known: Known) -> Known:
    """Compute the products of the open rows, one group of restarts after the other."""
    size, begins = _groups(state)
    dim = state.centroids.shape[2]
    part = jax.lax.dynamic_slice_in_dim
    put = jax.lax.dynamic_update_slice_in_dim

    def visit_group(group: Array, known: Known) -> Known:
        begin = begins[group]
        is_selected = _any_open(is_open, begin, size)
        product, is_visited = (part(values, begin, size, 1) for values in known)
        updated = some_products(
            rows,
            part(state.centroids, begin, size).reshape(-1, dim),
            is_selected=is_selected,
            known=product.reshape(product.shape[0], -1),
        )
        return (
            put(known[0], updated.reshape(product.shape), begin, 1),
            put(known[1], is_visited | is_selected[:, None], begin, 1),
        )

    return jax.lax.fori_loop(0, len(begins), visit_group, known)


def _any_open(is_open: Bool[Array, "n r"], begin: Int[Array, ""], size: int) -> Bool[Array, " n"]:
    return jnp.any(jax.lax.dynamic_slice_in_dim(is_open, begin, size, 1), axis=1)


def _groups(state: KMeansState) -> tuple[int, Int[Array, " g"]]:
    """Return the size of the groups of restarts, and the first restart of each group."""
    num_init, num_clusters = state.centroids.shape[:2]
    num_groups = min(max(num_init * num_clusters // _GROUP, 1), num_init)
    size = -(-num_init // num_groups)
    # The last group may overlap the one before it.
    begins = jnp.arange(0, num_init, size, dtype=jnp.int32)
    return size, jnp.minimum(begins, num_init - size)
