"""The supplementary's mappings: the same network with other losses."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgjax.samplers import gan, vae
from cgjax.samplers.base import group_members
from cgjax.samplers.gan import LatentGan
from cgjax.samplers.imle import Imle
from cgjax.samplers.training import dense, draw_members
from cgjax.samplers.vae import Vae
from tests.samplers.halves import half_spaces, train

D = 6


@pytest.mark.parametrize(
    "sampler",
    [LatentGan(D, num_epochs=30, critic_dim=64, learning_rate=1e-3), Vae(D, num_epochs=30)],
    ids=["gan", "vae"],
)
def test_samples_lie_on_the_cluster_s_side(sampler):
    state = train(sampler, half_spaces(3000, D))
    for cluster, side in ((0, 1), (1, -1)):
        x = np.asarray(sampler.sample(state, jax.random.key(2), cluster, 1000))
        # A few hundred steps; chance is 0.5.
        assert np.mean(side * x[:, 0] > 0) > 0.75


def test_the_vae_s_noise_restores_the_norm_that_its_mean_lacks():
    sampler, members = Vae(D, num_epochs=30), half_spaces(3000, D)
    state = train(sampler, members)
    noisy = dataclasses.replace(sampler, output_noise=True)
    lengths = [
        float(jnp.linalg.norm(s.sample(state, jax.random.key(2), 0, 2000), axis=1).mean())
        for s in (sampler, noisy)
    ]
    true = float(jnp.linalg.norm(members.latents[0, : int(members.counts[0])], axis=1).mean())
    assert lengths[0] < lengths[1]
    assert abs(lengths[1] - true) < 0.1 * true


def test_both_use_imle_s_mapping_network():
    for sampler in (LatentGan(100), Vae(100)):
        assert sampler.mapping == Imle(100).mapping


def test_rows_are_drawn_from_members_only(key):
    members = group_members(
        np.arange(1, 9, dtype=np.float32)[:, None], np.repeat([0, 1], [6, 2]), 3
    )
    z = np.asarray(draw_members(members, key, 500))[..., 0]
    assert set(z[0]) == {1, 2, 3, 4, 5, 6}
    assert set(z[1]) == {7, 8}
    assert set(z[2]) == {0}  # an empty cluster


def test_every_member_is_drawn_as_often_as_any_other(key):
    members = group_members(np.arange(14, dtype=np.float32)[:, None], np.repeat([0, 1], [10, 4]), 2)
    z = np.asarray(draw_members(members, key, 4000))[..., 0].astype(int)
    for rows, ids in ((z[0], np.arange(10)), (z[1], np.arange(10, 14))):
        shares = np.bincount(rows, minlength=14)[ids] / 4000
        # 4,000 draws estimate a share of a tenth or a quarter to 0.005 or 0.007.
        np.testing.assert_allclose(shares, 1 / len(ids), atol=0.03)


def one_cluster(sampler, seed=0):
    """A new state of one cluster, and its members."""
    z = np.random.default_rng(seed).normal(size=(16, sampler.latent_dim)).astype(np.float32)
    state = sampler.init(jax.random.key(seed), group_members(z, np.zeros(16, np.int32), 1))
    return jax.tree.map(lambda leaf: leaf[0], state), jnp.asarray(z)


def test_the_critics_penalty_is_half_of_gamma_times_the_mean_squared_slope(key):
    losses = {}
    for penalty in (0.0, 3.0):
        sampler = LatentGan(D, hidden_dim=8, critic_dim=8, penalty=penalty)
        state, z = one_cluster(sampler)
        losses[penalty] = jax.jit(functools.partial(gan.step, sampler=sampler))(state, z, key)[1][1]
    slopes = jax.vmap(jax.grad(lambda row: dense(state.critic, row[None])[0, 0]))(z)
    expected = 0.5 * 3.0 * np.square(slopes).sum(axis=1).mean()
    assert expected > 1e-3
    np.testing.assert_allclose(losses[3.0] - losses[0.0], expected, rtol=1e-3)


def test_the_divergence_is_phased_in_over_the_warm_up():
    sampler, members = Vae(D, beta=0.8, warmup_epochs=4), half_spaces(20, D)
    found = [float(sampler.data_parallel_epoch(members, i).scalar) for i in (0, 1, 3, 50)]
    np.testing.assert_allclose(found, [0.2, 0.4, 0.8, 0.8], rtol=1e-6)
    plain = Vae(D, warmup_epochs=0)
    assert float(plain.data_parallel_epoch(members, 0).scalar) == 1


@pytest.mark.parametrize(
    ("log_s2", "counted"), [(2.0, 2.0), (-3.0, -3.0), (50.0, 10.0), (-50.0, -10.0)]
)
def test_the_divergence_is_that_of_a_normal_distribution_with_clipped_variance(
    log_s2, counted, key
):
    sampler = Vae(D, code_dim=5, hidden_dim=8, encoder_dim=8)
    state, z = one_cluster(sampler)
    last = {
        "kernel": jnp.zeros_like(state.encoder[-1]["kernel"]),
        "bias": jnp.concatenate([jnp.full(5, 0.5), jnp.full(5, log_s2)]),
    }
    state = state._replace(encoder=[*state.encoder[:-1], last])
    run = jax.jit(functools.partial(vae.step, sampler=sampler))
    with_it, without = (float(run(state, z, key, beta=jnp.float32(b))[1]) for b in (1, 0))
    expected = 0.5 * 5 * (0.5**2 + np.exp(counted) - 1 - counted)
    # Per coordinate of the latent.
    assert with_it - without == pytest.approx(expected / D, rel=1e-3)
