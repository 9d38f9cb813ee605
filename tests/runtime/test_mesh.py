"""Rows are split over a mesh, joined and gathered without loss or duplication."""

import jax
import numpy as np
import pytest

from cgjax.errors import UserError
from cgjax.runtime import mesh as parallel


@pytest.mark.parametrize("num", [1, 3, 4, 13])
@pytest.mark.parametrize("devices", [1, 2, 3, 4])
def test_joining_and_gathering_own_rows_gives_the_rows(num, devices):
    mesh = parallel.data_mesh(devices)
    rows = np.arange(2 * num, dtype=np.float32).reshape(num, 2) + 1
    own = parallel.own_rows(num, mesh)
    assert len(own) % devices == 0
    assert num <= len(own) < num + devices
    filled = np.zeros((len(own), 2), np.float32)
    filled[:num] = rows
    whole, weights = parallel.join_rows(filled, num, mesh)
    assert parallel.is_split(whole, mesh)
    assert weights.sum() == num
    np.testing.assert_array_equal(parallel.gather_rows(whole, num), rows)


def test_fake_cpu_devices_are_used_only_if_asked_for():
    assert len(jax.devices()) == 4
    assert parallel.run_mesh() is None
    assert parallel.run_mesh(1) is None
    assert parallel.run_mesh(3).size == 3


@pytest.mark.parametrize("num", [0, 5])
def test_too_many_devices_are_a_user_error(num):
    with pytest.raises(UserError, match="--devices="):
        parallel.run_mesh(num)
