"""IMLE's modern forms: who is matched again, what the pool loses, what the residual restores."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgjax.errors import UserError
from cgjax.samplers.base import Members, group_members
from cgjax.samplers.imle_modern import ModernImle, near_distance, usable

D = 16


def half_spaces(n: int = 1500) -> Members:
    z = np.random.default_rng(0).normal(size=(n, D)).astype(np.float32)
    return group_members(z, (z[:, 0] < 0).astype(np.int32), 2)


def train(sampler: ModernImle, members: Members):
    state = sampler.init(jax.random.key(0), members)
    for epoch in range(sampler.num_epochs):
        key = jax.random.fold_in(jax.random.key(1), epoch)
        state, metrics = sampler.epoch(state, members, key, epoch)
        assert np.isfinite(metrics["loss"]).all()
    return state


def test_the_residual_restores_most_of_the_length_of_the_members():
    members = half_spaces()
    true = float(jnp.linalg.norm(members.latents[0, : int(members.counts[0])], axis=1).mean())
    lengths = {}
    for residual in (False, True):
        sampler = ModernImle(D, num_epochs=10, batch=64, residual=residual)
        x = sampler.sample(train(sampler, members), jax.random.key(2), 0, 1000)
        lengths[residual] = float(jnp.linalg.norm(x, axis=1).mean())
    # Not all of it: residuals are those of the *nearest* of a pool, which are shorter than others.
    assert lengths[False] < 0.8 * true
    assert abs(lengths[True] - true) < 0.15 * true


def test_adaptive_keeps_a_code_until_it_is_learnt_or_forced():
    members = half_spaces(400)
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
    # After five epochs without a match nothing is kept but what was matched on the way.
    assert kept[5] < min(kept[1:5])


def test_rejection_leaves_out_what_lies_near_a_member_but_never_everything():
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


def test_rejection_trains_and_an_unknown_matching_is_named():
    train(ModernImle(D, num_epochs=3, batch=64, matching="rejection"), half_spaces(400))
    with pytest.raises(UserError, match="matching='other'; expected one of nearest"):
        ModernImle(D, matching="other")
