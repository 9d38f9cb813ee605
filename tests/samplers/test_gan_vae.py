"""The supplementary's mappings: same network, other losses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgjax.samplers.base import Members, group_members
from cgjax.samplers.gan import Gan
from cgjax.samplers.imle import Imle
from cgjax.samplers.training import draw_members
from cgjax.samplers.vae import Vae

D = 6


def half_spaces(n: int = 3000) -> Members:
    z = np.random.default_rng(0).normal(size=(n, D)).astype(np.float32)
    return group_members(z, (z[:, 0] < 0).astype(np.int32), 2)


def train(sampler, members: Members):
    state = sampler.init(jax.random.key(0), members)
    for epoch in range(sampler.num_epochs):
        key = jax.random.fold_in(jax.random.key(1), epoch)
        state, metrics = sampler.epoch(state, members, key, epoch)
    assert metrics["loss"].shape == (2,)
    return state


@pytest.mark.parametrize(
    "sampler",
    [Gan(D, num_epochs=30, critic_dim=64, learning_rate=1e-3), Vae(D, num_epochs=30)],
    ids=["gan", "vae"],
)
def test_samples_lie_on_the_cluster_s_side(sampler):
    state = train(sampler, half_spaces())
    for cluster, side in ((0, 1), (1, -1)):
        x = np.asarray(sampler.sample(state, jax.random.key(2), cluster, 1000))
        # A few hundred steps; chance is 0.5.
        assert np.mean(side * x[:, 0] > 0) > 0.75


def test_the_vae_s_own_noise_restores_the_length_that_its_mean_lacks():
    sampler, members = Vae(D, num_epochs=30), half_spaces()
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
    for sampler in (Gan(100), Vae(100)):
        inner = getattr(sampler, "generator", None) or sampler.decoder
        assert inner.dims == Imle(100).dims


def test_rows_are_drawn_from_members_only(key):
    members = group_members(
        np.arange(1, 9, dtype=np.float32)[:, None], np.repeat([0, 1], [6, 2]), 3
    )
    z = np.asarray(draw_members(members, key, 500))[..., 0]
    assert set(z[0]) == {1, 2, 3, 4, 5, 6}
    assert set(z[1]) == {7, 8}
    assert set(z[2]) == {0}  # an empty cluster
