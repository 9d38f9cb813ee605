"""The smallest values of each row of a matrix, and where they are, as fast as a CPU reads it.

On a CPU XLA's argmin costs as much as the product that made the values, and its top_k many times
that. Here the columns are taken in groups: one vectorised pass finds the minimum of every group,
and only the groups that matter are looked into.

Symbols: s rows, b columns.
"""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

# Columns whose minimum is taken together when looking for a row's smallest value, and how many of
# them side by side: a vector register.
GROUP = 128
_LANES = 16


def row_argmin(values: Float[Array, "s b"]) -> Int[Array, " s"]:
    """Return the index of the smallest value of each row; the lowest one on ties.

    The same as `jnp.argmin(values, 1)`, whose pair-wise reduction costs XLA as much on a CPU as the
    product that made the values. Where the width allows it, one vectorised pass takes the minimum
    of every group of columns; the first group that has the row's minimum is then searched alone.
    Elsewhere a second pass looks for the smallest index that equals the minimum. A row of
    infinities gives index 0; a row with NaN any index.
    """
    num = values.shape[1]
    if num % GROUP == 0 and num > GROUP:
        group = _first_smallest(_group_minima(values))
        return group * GROUP + _first_smallest(_columns_of(values, group))
    return _first_smallest(values)


def _group_minima(values: Float[Array, "s b"]) -> Float[Array, "s groups"]:
    """Return the smallest value of every group of columns; b is a multiple of their number.

    First lane by lane, for XLA does not vectorise a minimum along a row.
    """
    vectors = values.reshape(values.shape[0], -1, GROUP // _LANES, _LANES)
    lanes = reduce(jnp.minimum, (vectors[:, :, i] for i in range(vectors.shape[2])))
    # Fused into the last minimum the lanes would be taken one at a time.
    return jnp.min(jax.lax.optimization_barrier(lanes), axis=2)


def _columns_of(values: Float[Array, "s b"], group: Int[Array, " s"]) -> Float[Array, "s group"]:
    """Return one group of columns of each row."""
    groups = values.reshape(values.shape[0], -1, GROUP)
    return jnp.take_along_axis(groups, group[:, None, None], axis=1)[:, 0]


def _first_smallest(values: Float[Array, "s b"]) -> Int[Array, " s"]:
    smallest = jnp.min(values, axis=1, keepdims=True)
    columns = jax.lax.broadcasted_iota(jnp.int32, values.shape, 1)
    return jnp.min(jnp.where(values == smallest, columns, values.shape[1] - 1), axis=1)


class Ascending(NamedTuple):
    """Where a walk through each row's values, smallest first and lower columns first, stands.

    Attributes:
        value: of the column that was reached.
        column: which that is; -1 at the beginning, and where only infinite values are left.
        ahead: the smallest value of every group of columns that has not been reached.
    """

    value: Float[Array, " s"]
    column: Int[Array, " s"]
    ahead: Float[Array, "s groups"]

    @classmethod
    def begin(cls, values: Float[Array, "s b"]) -> Ascending:
        """Stand before the first value; b is a multiple of the columns of a group."""
        before = jnp.full(values.shape[:1], -jnp.inf, values.dtype)
        ahead = jnp.min(values.reshape(values.shape[0], -1, GROUP), axis=2)
        return cls(before, jnp.full(values.shape[:1], -1, jnp.int32), ahead)

    def next(self, values: Float[Array, "s b"]) -> Ascending:
        """Go to the next value of each row, which costs one group of columns."""
        group = _first_smallest(self.ahead)
        inside = _columns_of(values, group)
        place = jax.lax.broadcasted_iota(jnp.int32, inside.shape, 1)
        columns = group[:, None] * GROUP + place
        is_ahead = (inside > self.value[:, None]) | (
            (inside == self.value[:, None]) & (columns > self.column[:, None])
        )
        inside = jnp.where(is_ahead, inside, jnp.inf)
        first = _first_smallest(inside)
        rest = jnp.min(jnp.where(place == first[:, None], jnp.inf, inside), axis=1)
        groups = jax.lax.broadcasted_iota(jnp.int32, self.ahead.shape, 1)
        ahead = jnp.where(groups == group[:, None], rest[:, None], self.ahead)
        value = jnp.min(inside, axis=1)
        return Ascending(value, jnp.where(jnp.isposinf(value), -1, group * GROUP + first), ahead)
