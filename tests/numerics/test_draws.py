"""The number of draws that is named is enough."""

import numpy as np
import pytest

from cgjax.numerics.draws import enough_draws


@pytest.mark.parametrize(("num", "share"), [(1, 0.01), (4, 0.2), (64, 0.0014), (2000, 0.001)])
def test_the_draws_that_are_named_are_nearly_always_enough_and_not_far_too_many(num, share):
    hits = np.random.default_rng(0).binomial(enough_draws(num, share), share, 4000)
    assert np.mean(hits >= num) > 0.975
    assert hits.mean() < 5 * num


def test_the_number_is_one_that_can_be_typed():
    assert enough_draws(2000, 1e-7) == 2**31 - 1
