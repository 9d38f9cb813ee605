"""Edits follow their formulas."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from cgjax.directions import Directions, edit
from cgjax.errors import UserError


@pytest.fixture
def latents() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)


UNIT = np.array([2.0, -1.0, 0.0, 0.0, 2.0, 0.0], np.float32) / 3


def test_shift_moves_only_along_the_direction(latents):
    moved = np.asarray(edit(latents, 5 * UNIT, 1.5))  # the direction's length does not matter
    np.testing.assert_allclose(moved - latents, 1.5 * np.tile(UNIT, (50, 1)), atol=1e-6)


def test_set_brings_every_sample_to_one_coordinate_and_keeps_the_others(latents):
    mean = np.arange(6, dtype=np.float32)
    moved = np.asarray(edit(latents, UNIT, -2.0, form="set", mean=mean))
    np.testing.assert_allclose((moved - mean) @ UNIT, -2.0, atol=1e-5)
    rest = np.eye(6) - np.outer(UNIT, UNIT)
    np.testing.assert_allclose(moved @ rest, latents @ rest, atol=1e-5)


def test_alpha_may_differ_for_each_latent(latents):
    alphas = np.linspace(-2, 2, 50).astype(np.float32)
    moved = np.asarray(edit(latents, UNIT, alphas))
    np.testing.assert_allclose((moved - latents) @ UNIT, alphas, atol=1e-5)


def test_normalise_scales_to_the_radius_first(latents):
    moved = np.asarray(edit(latents, UNIT, 0.0, normalise=True))
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), np.sqrt(6), rtol=1e-5)


def test_shift_by_three_quarters_moves_a_balanced_attribute_to_77_percent():
    z = np.random.default_rng(1).normal(size=(20_000, 8)).astype(np.float32)
    axis = np.eye(8, dtype=np.float32)[3]
    share = (np.asarray(edit(z, axis, 0.75)) @ axis > 0).mean()
    assert share == pytest.approx(norm.cdf(0.75), abs=0.01)  # three standard errors of 0.003
    assert share == pytest.approx(0.77, abs=0.01)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"form": "add"}, "expected 'shift' or 'set'"),
        ({"direction": np.ones(5)}, "do not match"),
        ({"alpha": np.ones(3)}, r"expected a number or \(50,\)"),
        ({"direction": np.zeros(6)}, "has length 0: its layer does not vary along it"),
        ({"direction": np.full(6, np.nan)}, "direction holds NaN or Inf"),
        ({"direction": np.full(6, np.inf)}, "direction holds NaN or Inf"),
        ({"direction": np.full(6, 1j)}, "direction are complex128 numbers"),
        ({"direction": "abc"}, "direction are 'abc': expected"),
        ({"alpha": np.nan}, "alpha holds NaN or Inf"),
        ({"alpha": None}, "alpha are None: expected a number"),
        ({"form": "set", "mean": np.ones(5)}, r"mean has shape \(5,\); expected a number or"),
        ({"form": "set", "mean": np.nan}, "mean holds NaN or Inf"),
        ({"latents": [[1.0], [1.0, 2.0]]}, r"latents are not an array .*expected \(n, d\)"),
        ({"latents": np.full((2, 6), 1e300)}, "latents hold numbers too large for float32"),
    ],
)
def test_edit_refuses_wrong_arguments(latents, arguments, message):
    with pytest.raises(UserError, match=message):
        edit(**{"latents": latents, "direction": UNIT, "alpha": 1.0, **arguments})


@pytest.fixture
def directions() -> Directions:
    vectors = np.stack([UNIT, np.eye(6, dtype=np.float32)[3]])
    return Directions(
        method="ganspace",
        space="w",
        layers=("layer1", "layer2"),
        vectors=vectors,
        strengths=np.array([3, 2], np.float32),
        scales=np.array([0.5, 2], np.float32),
        mean=np.ones(6, np.float32),
    )


def test_directions_say_which_latents_they_edit(directions):
    assert repr(directions) == "<2 ganspace directions of w (6 numbers), layers layer1, layer2>"


def test_alpha_is_counted_in_the_directions_scale(directions, latents):
    moved = np.asarray(directions.edit(latents, 1, 3.0))
    np.testing.assert_allclose((moved - latents)[:, 3], 6.0, atol=1e-5)
    moved = np.asarray(directions.edit(jnp.asarray(latents), 0, 3.0, form="set"))
    np.testing.assert_allclose((moved - 1) @ UNIT, 1.5, atol=1e-5)
    with pytest.raises(UserError, match="direction 2 is not one of 0 to 1"):
        directions.edit(latents, 2, 1.0)


def test_measured_directions_count_alpha_in_deviations_of_the_latents(directions, latents):
    rows = latents * np.array([1, 1, 1, 7, 1, 1], np.float32) + 3
    found = directions.measured(rows)
    assert found.scales[1] == pytest.approx(rows[:, 3].std(), rel=1e-5)
    np.testing.assert_allclose(found.mean, rows.mean(axis=0), rtol=1e-5)
    with pytest.raises(UserError, match="latents of w have 5 numbers, the directions 6"):
        directions.measured(rows[:, :5])
