"""The smallest values of each row of a matrix and their positions, as fast as a CPU reads it.

On a CPU XLA's argmin costs as much as the product that made the values, and its top_k many times
that. Here the columns are taken in groups: one vectorised pass finds the minimum of every group,
and only the groups that matter are searched.

Symbols: s rows, b columns.
"""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

# The number of columns in a group, and how many of them fill a vector register.
GROUP = 128
_LANES = 16


def row_argmin(values: Float[Array, "s b"]) -> Int[Array, " s"]:
    """Return the index of the smallest value of each row; the lowest index on ties.

    The same as `jnp.argmin(values, 1)`, whose pair-wise reduction costs XLA on a CPU as much as the
    product that made the values. If the width is a multiple of the group's, one vectorised pass
    takes the minimum of every group of columns, and only the first group with the row's minimum is
    searched. Otherwise a second pass finds the lowest index whose value equals the minimum. A row
    of infinities gives index 0; a row with NaN gives any index.
    """
    num = values.shape[1]
    if num % GROUP == 0 and num > GROUP:
        group = _first_smallest(_group_minima(values))
        return group * GROUP + _first_smallest(_columns_of(values, group))
    return _first_smallest(values)


def _group_minima(values: Float[Array, "s b"]) -> Float[Array, "s groups"]:
    """Return the smallest value of every group of columns; b is a multiple of a group's columns.

    Lane by lane first, since XLA does not vectorise a minimum along a row.
    """
    vectors = values.reshape(values.shape[0], -1, GROUP // _LANES, _LANES)
    lanes = reduce(jnp.minimum, (vectors[:, :, i] for i in range(vectors.shape[2])))
    # If XLA fused this with the last minimum, it would take the lanes one at a time.
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
    """The position in a walk through each row's values, in ascending order of (value, column).

    Attributes:
        value: the value at the current column.
        column: the current column; -1 at the start, and when only infinite values are left.
        ahead: the smallest value of every group of columns that has not been visited yet.
    """

    value: Float[Array, " s"]
    column: Int[Array, " s"]
    ahead: Float[Array, "s groups"]

    @classmethod
    def begin(cls, values: Float[Array, "s b"]) -> Ascending:
        """Start before the first value; b is a multiple of a group's columns."""
        before = jnp.full(values.shape[:1], -jnp.inf, values.dtype)
        ahead = jnp.min(values.reshape(values.shape[0], -1, GROUP), axis=2)
        return cls(before, jnp.full(values.shape[:1], -1, jnp.int32), ahead)

    def next(self, values: Float[Array, "s b"]) -> Ascending:
        """Go to the next value of each row, which reads one group of columns."""
        group = _first_smallest(self.ahead)
        inside = _columns_of(values, group)
        place = jax.lax.broadcasted_iota(jnp.int32, inside.shape, 1)
        columns = group[:, None] * GROUP + place
        is_ahead = (inside > self.value[:, None]) | (
            (inside == self.value[:, None]) & (columns > self.column[:, None])
        )
        inside = jnp.where(is_ahead, inside, jnp.inf)
        first = _first_smallest(inside)
        remaining = jnp.min(jnp.where(place == first[:, None], jnp.inf, inside), axis=1)
        groups = jax.lax.broadcasted_iota(jnp.int32, self.ahead.shape, 1)
        ahead = jnp.where(groups == group[:, None], remaining[:, None], self.ahead)
        value = jnp.min(inside, axis=1)
        return Ascending(value, jnp.where(jnp.isposinf(value), -1, group * GROUP + first), ahead)
