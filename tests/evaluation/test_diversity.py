"""Diversity measures equal their definitions and detect a collapse."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from cgjax.errors import UserError
from cgjax.evaluation import diversity


@pytest.mark.parametrize("shape", [(30, 8), (8, 30)])
def test_participation_ratio_equals_the_eigenvalue_form(shape):
    rows = np.random.default_rng(0).normal(size=shape) * np.linspace(1, 5, shape[1]) + 7
    values = np.linalg.eigvalsh(np.cov(rows.T))
    want = values.sum() ** 2 / (values**2).sum()
    assert diversity.participation_ratio(rows) == pytest.approx(want, rel=1e-9)


def test_participation_ratio_of_a_line_is_one_and_of_a_cube_its_dimension():
    line = np.outer(np.linspace(-1, 1, 9), [1.0, 2.0, 3.0])
    assert diversity.participation_ratio(line) == pytest.approx(1, rel=1e-12)
    cube = np.concatenate([np.eye(6), -np.eye(6)])
    assert diversity.participation_ratio(cube) == pytest.approx(6, rel=1e-12)


def test_participation_ratio_does_not_depend_on_shift_or_scale():
    rows = np.random.default_rng(1).normal(size=(50, 5))
    want = diversity.participation_ratio(rows)
    assert diversity.participation_ratio(rows * 3 + 1000) == pytest.approx(want, rel=1e-8)


def test_participation_ratio_refuses_equal_rows():
    with pytest.raises(UserError, match="all rows are equal"):
        diversity.participation_ratio(np.ones((4, 3)))


@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_mean_pairwise_distance_equals_scipys(shift):
    rows = np.random.default_rng(2).normal(size=(1100, 6)) + shift  # more rows than one block holds
    assert diversity.mean_pairwise_distance(rows) == pytest.approx(pdist(rows).mean(), rel=1e-9)


def test_norm_ratio_of_shrunk_latents_is_the_shrinkage():
    z = np.random.default_rng(3).normal(size=(100, 10)).astype(np.float32)
    assert diversity.norm_ratio(0.4 * z, z) == pytest.approx(0.4, rel=1e-6)
    with pytest.raises(UserError, match="reference latents are all zero"):
        diversity.norm_ratio(z, 0 * z)
