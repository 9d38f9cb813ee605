"""The sums of each cluster's rows, updated by the rows that changed their cluster.

Symbols: y rows (n, f), r restarts, k clusters, s rows of a chunk, p clusters of all restarts.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from cgjax.clustering.kmeans.rows import Rows, visit
from cgjax.clustering.kmeans.state import one_hot
from cgjax.kernels.products import float32_product
from cgjax.runtime.mesh import all_sum, varying_like


class Relabelling(NamedTuple):
    """Labels of one number of clusters before and after a step.

    Attributes:
        new: (n, r) int32, cluster of each row in each restart; -1 for none.
        old: (n, r) int32, the labels before.
        sums: (r, k, f) float32, the sums of the labels before.
    """

    new: Int[Array, "n r"]
    old: Int[Array, "n r"]
    sums: Float[Array, "r k f"]

    def at(self, index: Int[Array, " s"]) -> "Relabelling":
        """Return the relabelling of some rows."""
        new, old = (labels.at[index].get(mode="clip") for labels in (self.new, self.old))
        return Relabelling(new, old, self.sums)


def sums(
    rows: Rows, changes: Sequence[Relabelling], *, axis_name: str | None = None
) -> list[Array]:
    """Return the sums (r, k, f) of each cluster's rows for every new labelling, in shared passes.

    Whichever is least work: on a CPU the rows that moved, one by one, which it always is for many
    clusters; a product of the rows that moved in any restart; or one product of all rows.

    Args:
        rows: all rows.
        changes: for each number of clusters.
        axis_name: mesh axis over which the rows are split, if any.
    """
    is_moved = [change.new != change.old for change in changes]
    has_moved = jnp.any(jnp.concatenate(is_moved, axis=1), axis=1)
    moves, moved_rows, all_rows = (
        all_sum(sum(jnp.sum(part, dtype=jnp.int32) for part in parts), axis_name)
        for parts in (is_moved, [has_moved], [rows.weights > 0.0])
    )
    widths = [change.sums.shape[0] * change.sums.shape[1] for change in changes]
    # A move takes about as long as a row's share of the product for 40 sums.
    # As floats: with many rows the products exceed int32.
    is_few = 40.0 * jnp.float32(moves) <= sum(widths) * jnp.float32(moved_rows)
    is_whole = ~is_few & (2 * moved_rows > all_rows) & ~rows.is_far
    zero = jnp.zeros((sum(widths), rows.features.shape[1]), jnp.float32)
    zero = varying_like(zero, rows.features)
    by_chunks = partial(_by_chunks, rows, changes, has_moved)
    one_by_one = partial(_one_by_one, rows, changes, has_moved)

    def few(zero: Array) -> Array:
        # On a GPU adding rows one by one would be many small kernels.
        return jax.lax.platform_dependent(zero, cpu=one_by_one, default=by_chunks)

    def many(zero: Array) -> Array:
        return jax.lax.cond(is_whole, lambda _: _whole(rows, changes), by_chunks, zero)

    total = all_sum(jax.lax.cond(is_few, few, many, zero), axis_name)
    parts = jnp.split(total, np.cumsum(widths)[:-1])
    return [
        part.reshape(change.sums.shape) + jnp.where(is_whole, 0.0, change.sums)
        for part, change in zip(parts, changes, strict=True)
    ]


def _whole(rows: Rows, changes: Sequence[Relabelling]) -> Float[Array, "p f"]:
    """Return the new sums by one product of all rows."""
    member = _members([change.new for change in changes], changes)
    total = float32_product(member, rows.features, ((0,), (0,)))
    return total - jnp.sum(member, axis=0)[:, None] * rows.offset[None, :]


def _by_chunks(
    rows: Rows, changes: Sequence[Relabelling], has_moved: Array, zero: Float[Array, "p f"]
) -> Float[Array, "p f"]:
    """Return by how much the sums change, from the rows that moved in any restart."""

    def add(total: Array, index: Array, picked: Array, is_real: Array) -> Array:
        own = [change.at(index) for change in changes]
        new, old = _members([c.new for c in own], own), _members([c.old for c in own], own)
        member = jnp.where(is_real[:, None], new - old, 0.0)
        return total + float32_product(member, picked, ((0,), (0,)))

    return visit(rows, has_moved, add, zero)


def _one_by_one(
    rows: Rows, changes: Sequence[Relabelling], has_moved: Array, zero: Float[Array, "p f"]
) -> Float[Array, "p f"]:
    """Return by how much the sums change, each row added to the sums that it moved between."""

    def add(total: Array, index: Array, picked: Array, is_real: Array) -> Array:
        first = 0
        for change in changes:
            new, old, sums = change.at(index)
            num_init, num_clusters, _ = sums.shape
            begins = first + num_clusters * jnp.arange(num_init, dtype=jnp.int32)[None, :]
            first += num_init * num_clusters
            is_moved = is_real[:, None] & (new != old)
            # A label of -1, of padding and before the first step, belongs to no sum.
            joined, left = (
                jnp.where(is_moved & (labels >= 0), begins + labels, total.shape[0])
                for labels in (new, old)
            )
            for restart in range(num_init):
                total = total.at[joined[:, restart]].add(picked, mode="drop")
                total = total.at[left[:, restart]].subtract(picked, mode="drop")
        return total

    return visit(rows, has_moved, add, zero)


def _members(labels: Sequence[Array], changes: Sequence[Relabelling]) -> Float[Array, "s p"]:
    pairs = zip(labels, changes, strict=True)
    return jnp.concatenate([one_hot(own, change.sums.shape[1]) for own, change in pairs], axis=1)
