"""Latents inside a region, for training a sampler on it."""

import contextlib
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from cgjax.errors import TooRare
from cgjax.stages.inside import latents_inside

PRIOR = np.arange(20, dtype=np.float32)[:, None]
KEY = jax.random.key(0)


def the_run(max_draws: int) -> SimpleNamespace:
    """A run whose generator proposes the latents 0 to 19 in turn."""
    return SimpleNamespace(
        prior_latents=PRIOR,
        config={"sample": {"max_draws": max_draws}},
        generator=SimpleNamespace(sample_latents=lambda key, n: np.resize(PRIOR, (n, 1)), batch=40),
        are_inside=lambda z, region: np.asarray(z)[:, 0] < 2,
        naming=lambda region, instead: contextlib.nullcontext(),
    )


REGION = SimpleNamespace(members=lambda: PRIOR[:, 0] < 2)


@pytest.mark.usefixtures("untyped")
def test_the_runs_own_latents_come_first_and_the_rest_is_drawn():
    found = latents_inside(the_run(4000), REGION, 6, KEY, lambda: None, "")
    assert found[:2, 0].tolist() == [0, 1]
    assert len(found) == 6
    assert set(found[:, 0]) == {0, 1}


@pytest.mark.usefixtures("untyped")
def test_a_draw_beyond_the_budget_is_refused_before_it_starts():
    run = the_run(12)
    run.generator = None  # nothing is drawn
    with pytest.raises(
        TooRare, match=r"2 of 20 latents: .* 4 true members would take more than 13"
    ):
        latents_inside(run, REGION, 6, KEY, lambda: None, "")
