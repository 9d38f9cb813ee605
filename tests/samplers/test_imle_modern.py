"""IMLE's modern variants: rematching, rejection from the pool, and the residual."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgjax.errors import UserError
from cgjax.samplers import imle, imle_modern
from cgjax.samplers.base import group_members
from cgjax.samplers.imle_modern import ModernImle, near_distance, usable
from tests.samplers.halves import half_spaces, train

D = 16


def test_the_residual_restores_most_of_the_length_of_the_members():
    members = half_spaces(1500, D)
    true = float(jnp.linalg.norm(members.latents[0, : int(members.counts[0])], axis=1).mean())
    lengths = {}
    for residual in (False, True):
        sampler = ModernImle(D, num_epochs=10, batch=64, residual=residual)
        x = sampler.sample(train(sampler, members), jax.random.key(2), 0, 1000)
        lengths[residual] = float(jnp.linalg.norm(x, axis=1).mean())
    # Not all of it: residuals are to the *nearest* in a pool, and so are shorter than others.
    assert lengths[False] < 0.8 * true
    assert abs(lengths[True] - true) < 0.15 * true


def test_adaptive_keeps_a_code_until_it_is_learnt_or_forced():
    members = half_spaces(400, D)
    sampler = ModernImle(
        D, num_epochs=9, batch=64, matching="adaptive", match_epochs=1, force_epochs=5
    )
    state, kept = sampler.init(jax.random.key(0), members), []
    for epoch in range(6):
        before = np.asarray(state.codes)
        state, _ = sampler.epoch(state, members, jax.random.key(epoch), epoch)
        same = (before == np.asarray(state.codes)).all(axis=2)[0, : int(members.counts[0])]
        kept.append(same.mean())
    assert kept[0] == 0  # the first match
    assert kept[1] > 0.5  # one epoch teaches few of them
    # After five epochs without a match only members matched in the meantime keep their code.
    assert kept[5] < min(kept[1:5])


def test_rejection_excludes_latents_near_a_member_but_never_all():
    z = jnp.array([[0.0, 0.0], [4.0, 0.0], [99.0, 99.0]])
    count = jnp.int32(2)
    made = jnp.array([[0.1, 0.0], [2.0, 0.0], [4.0, 0.5], [99.0, 99.0]])
    valid = jnp.array([True, True, True, False])
    assert usable(made, valid, z, count, jnp.float32(1.0)).tolist() == [False, True, False, False]
    assert usable(made, valid, z, count, jnp.float32(1e9)).tolist() == valid.tolist()


def test_eps_is_a_quantile_of_the_members_own_distances():
    z = jnp.array([[0.0], [1.0], [3.0], [7.0], [0.5]])
    # Nearest other members of the first four: 1, 1, 4, 16, squared.
    assert float(near_distance(z, jnp.int32(4), 0.0)) == 1.0
    assert float(near_distance(z, jnp.int32(4), 1.0)) == 16.0


def test_rejection_trains_and_an_unknown_matching_is_refused():
    train(ModernImle(D, num_epochs=3, batch=64, matching="rejection"), half_spaces(400, D))
    with pytest.raises(UserError, match="matching='other'; expected one of nearest"):
        ModernImle(D, matching="other")


@pytest.fixture
def by_hand(monkeypatch):
    """Matching with the identity as the mapping: a code is its own latent."""

    def map_pool(mapping, e, used, sampler, devices):
        return e.reshape(-1, D), mapping.stats

    monkeypatch.setattr(imle, "map_pool", map_pool)

    def rematch(sampler, members, state=None):
        state = sampler.init(jax.random.key(0), members) if state is None else state
        return imle_modern._rematch.__wrapped__(state, members, jax.random.key(1), sampler=sampler)

    return rematch


def squared(members, state):
    count = int(members.counts[0])
    return np.square(members.latents - state.codes).sum(axis=2)[0, :count]


def test_no_member_is_matched_to_a_latent_within_eps_of_a_member(by_hand):
    members = group_members(*few_members(), 1)
    settings = {"code_dim": D, "batch": 16, "pool_factor": 8}
    plain = by_hand(ModernImle(D, **settings), members)
    sampler = ModernImle(D, matching="rejection", **settings)
    start = sampler.init(jax.random.key(0), members)
    near = float(np.quantile(squared(members, plain), 0.5))
    state = by_hand(sampler, members, start._replace(near=jnp.full(1, near, jnp.float32)))
    assert (squared(members, plain) <= near).any()
    assert (squared(members, state) > near).all()


def few_members():
    z = 0.3 * np.random.default_rng(0).normal(size=(16, D)).astype(np.float32)
    return z, np.zeros(16, np.int32)


def test_a_member_is_rematched_once_learnt_or_old_and_gets_a_new_threshold(by_hand, monkeypatch):
    members = group_members(*few_members(), 1)
    sampler = ModernImle(
        D, code_dim=D, batch=16, matching="adaptive", force_epochs=5, threshold=0.9
    )
    start = sampler.init(jax.random.key(0), members)
    # Member 0 is below its threshold, member 2 above it but old, the others above it.
    thresholds = jnp.full((1, 16), 1.0, jnp.float32)
    ages = jnp.full((1, 16), 2, jnp.int32).at[0, 2].set(5)
    now = jnp.full((1, 16), 3.0, jnp.float32).at[0, 0].set(0.5)
    monkeypatch.setattr(imle_modern, "distances", lambda *args: now)
    state = by_hand(sampler, members, start._replace(thresholds=thresholds, ages=ages))
    due = np.isin(np.arange(16), [0, 2])
    np.testing.assert_array_equal((np.asarray(state.codes[0]) != 0).any(axis=1), due)
    np.testing.assert_array_equal(state.ages[0], np.where(due, 0, 2))
    expected = np.where(due, 0.9 * squared(members, state), 1.0)
    np.testing.assert_allclose(state.thresholds[0], expected, rtol=1e-4)


def test_the_noise_added_to_a_sample_has_the_mean_and_covariance_of_the_residual():
    sampler = ModernImle(2, code_dim=2, hidden_dim=4)
    members = group_members(np.eye(2, dtype=np.float32), np.zeros(2, np.int32), 1)
    factor = np.array([[1.0, 0.0], [5.0, 1.0]], np.float32)
    state = sampler.init(jax.random.key(0), members)._replace(
        mean=jnp.array([[3.0, -2.0]]), factor=jnp.asarray(factor)[None]
    )
    plain = dataclasses.replace(sampler, residual=False)
    both = (s.sample(state, jax.random.key(1), 0, 4000) for s in (sampler, plain))
    added = np.subtract(*map(np.asarray, both))
    # 4,000 draws estimate a mean with deviation 5 to 0.08, its variance to 0.6.
    np.testing.assert_allclose(added.mean(axis=0), [3, -2], atol=0.4)
    np.testing.assert_allclose(np.cov(added.T), factor @ factor.T, atol=3)
