"""The smallest values of rows, against numpy."""

import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cgjax.kernels.smallest import GROUP, Ascending, row_argmin


def test_row_argmin_equals_argmin_with_ties_and_infinities():
    values = jnp.array([[3.0, 1.0, 1.0], [jnp.inf, jnp.inf, jnp.inf], [-jnp.inf, 0.0, -jnp.inf]])
    np.testing.assert_array_equal(row_argmin(values), jnp.argmin(values, 1))


def test_row_argmin_of_groups_of_columns_equals_argmin_with_ties():
    values = np.random.default_rng(0).integers(0, 9, (40, 3 * GROUP)).astype(np.float32)
    values[:20] += 100.0 * (np.arange(3 * GROUP) < GROUP + 5)
    values[0] = np.inf
    np.testing.assert_array_equal(row_argmin(jnp.array(values)), values.argmin(1))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 30))
def test_a_walk_visits_values_in_order_and_equal_ones_from_the_left(seed, num_groups, num_steps):
    values = np.random.default_rng(seed).integers(0, 20, (4, GROUP * num_groups)).astype(np.float32)
    at, met = Ascending.begin(jnp.array(values)), []
    for _ in range(num_steps):
        at = at.next(jnp.array(values))
        met.append(at)
    order = np.argsort(values, axis=1, kind="stable")
    np.testing.assert_array_equal(np.stack([m.column for m in met], 1), order[:, :num_steps])
    left = np.take_along_axis(values, order, 1)[:, num_steps:]
    if left.shape[1]:
        np.testing.assert_array_equal(np.asarray(at.ahead).min(1), left[:, 0])
