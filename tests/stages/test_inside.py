"""Latents of a region for a sampler of its own."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from cgjax.errors import UserError
from cgjax.stages.inside import latents_inside

PRIOR = np.arange(20, dtype=np.float32)[:, None]
KEY = jax.random.key(0)


def the_run(max_draws: int) -> SimpleNamespace:
    """A run whose generator proposes the latents 0 to 19 again and again."""
    return SimpleNamespace(
        prior_latents=PRIOR,
        config={"sample": {"max_draws": max_draws}},
        generator=SimpleNamespace(sample_latents=lambda key, n: np.resize(PRIOR, (n, 1)), batch=40),
        are_inside=lambda z, region: np.asarray(z)[:, 0] < 2,
    )


REGION = SimpleNamespace(members=lambda: PRIOR[:, 0] < 2)


@pytest.mark.usefixtures("untyped")
def test_those_of_the_run_come_first_and_what_is_missing_is_drawn():
    found = latents_inside(the_run(4000), REGION, 6, KEY, lambda: None)
    assert found[:2, 0].tolist() == [0, 1]
    assert len(found) == 6
    assert set(found[:, 0]) == {0, 1}


@pytest.mark.usefixtures("untyped")
def test_more_than_the_budget_will_pay_for_is_refused_before_any_draw():
    run = the_run(30)
    run.generator = None  # nothing is drawn
    with pytest.raises(UserError, match=r"4 more latents of it are wanted, and 2 of 20 lie in it"):
        latents_inside(run, REGION, 6, KEY, lambda: None)
