"""The membership check keeps only members, counts the cost, and gives up in time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgjax.errors import UserError
from cgjax.samplers.verify import ROUND, draw_unverified, draw_verified, rescale


def propose(key, n):
    return jax.random.normal(key, (n, 2))


def right_half(z):
    return np.asarray(z[:, 0] > 0)


def test_exactly_the_number_asked_for_and_only_members(key):
    draw = draw_verified(propose, right_half, key, 100, batch=32, max_draws=10_000)
    assert draw.latents.shape == (100, 2)
    assert (draw.latents[:, 0] > 0).all()
    # 95% of binomials of this size lie within 0.5 +- 0.07.
    assert 0.4 < draw.acceptance < 0.6


def test_a_longer_draw_starts_with_a_shorter_one(key):
    short = draw_verified(propose, right_half, key, 20, batch=32, max_draws=10_000)
    long = draw_verified(propose, right_half, key, 90, batch=32, max_draws=10_000)
    np.testing.assert_array_equal(short.latents, long.latents[:20])


@pytest.mark.parametrize("batch", [16, 128, 300, 512])
def test_the_draw_and_its_cost_do_not_depend_on_how_many_are_checked_together(key, batch):
    seen = []

    def accept(z):
        seen.append(len(z))
        return right_half(z)

    options = {"max_draws": 10_000}
    expected = draw_verified(propose, right_half, key, 300, batch=ROUND, **options)
    draw = draw_verified(propose, accept, key, 300, batch=batch, **options)
    np.testing.assert_array_equal(draw.latents, expected.latents)
    assert draw.acceptance == expected.acceptance
    assert max(seen) <= max(batch, ROUND)
    plain = draw_unverified(propose, key, 300)
    kept = plain[right_half(plain)]
    np.testing.assert_array_equal(draw.latents[: len(kept)], kept)


def test_a_cluster_too_rare_for_the_budget_is_an_error_that_states_the_acceptance(key):
    with pytest.raises(UserError, match=r"only 0 of 5 samples after 128 draws \(acceptance 0\)"):
        draw_verified(propose, lambda z: np.asarray(z[:, 0] > 50), key, 5, batch=32, max_draws=128)


@pytest.mark.parametrize("batch", [ROUND, 3 * ROUND, 100 * ROUND])
def test_the_budget_does_not_depend_on_how_many_are_checked_together(key, batch):
    checked = []

    def accept(z):
        checked.append(len(z))
        return np.asarray(z[:, 0] > 50)

    with pytest.raises(UserError, match="after 640 draws"):
        draw_verified(propose, accept, key, 5, batch=batch, max_draws=600)
    assert sum(checked) == 640


def test_rescaling_gives_every_latent_the_norm_and_leaves_zero_alone():
    z = rescale(jnp.array([[3.0, 4.0], [0.0, 0.0]], jnp.float32), 10.0)
    np.testing.assert_allclose(z, [[6.0, 8.0], [0.0, 0.0]], rtol=1e-6)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("key", "num", "message"),
    [
        (jax.random.key(0), 0, "num=0: expected a whole number of at least 1"),
        (jax.random.key(0), -1, "num=-1: expected"),
        (jax.random.key(0), 2.0, r"num=2\.0: expected"),
        (0, 2, "key=0: expected a random key"),
    ],
)
def test_fewer_than_one_latent_and_an_invalid_key_are_refused(key, num, message):
    with pytest.raises(UserError, match=message):
        draw_verified(propose, right_half, key, num, batch=32, max_draws=1000)
    with pytest.raises(UserError, match=message):
        draw_unverified(propose, key, num)
