"""Flow matching learns the cluster's distribution: path, start, margin, guidance, padding."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgjax.samplers import flow
from cgjax.samplers.base import Members, group_members
from cgjax.samplers.flow import Flow
from tests.samplers.halves import half_spaces, train

D = 8


@pytest.fixture(scope="module")
def trained() -> tuple[Flow, flow.FlowState]:
    sampler = Flow(D, hidden_dim=64, num_epochs=60, batch=256)
    return sampler, train(sampler, half_spaces(8000, D, is_ordered=True))


def test_the_target_is_the_time_derivative_of_the_path(key):
    e, z = jax.random.normal(key, (2, 5, D))
    t = jnp.linspace(0.0, 1.0, 5)
    (x, target), (derivative, _) = jax.jvp(lambda t: flow.path(e, z, t), (t,), (jnp.ones(5),))
    np.testing.assert_allclose(target, derivative, atol=1e-5)  # float32 rounding
    np.testing.assert_allclose(x[0], e[0], atol=1e-6)
    np.testing.assert_allclose(x[-1], z[-1], atol=1e-6)


def test_an_untrained_flow_is_the_prior(key):
    sampler, members = Flow(D), half_spaces(100, D, is_ordered=True)
    state = sampler.init(key, members)
    samples = sampler.sample(state, key, 1, 20)
    np.testing.assert_array_equal(samples, jax.random.normal(key, (20, D), jnp.float32))


def test_samples_have_the_distribution_of_the_cluster_and_not_only_its_side(trained):
    sampler, state = trained
    for cluster, side in ((0, 1), (1, -1)):
        x = np.asarray(sampler.sample(state, jax.random.key(2), cluster, 4000))
        assert np.mean(side * x[:, 0] > 0) > 0.95
        # A half normal has mean 0.798 and deviation 0.603; 4,000 draws estimate them to 0.01, and
        # the rest of the tolerance is for two midpoint steps of a small network.
        assert abs(side * x[:, 0].mean() - 0.798) < 0.08
        assert abs(x[:, 0].std() - 0.603) < 0.08
        # Every other direction stays as in the prior: nothing shrinks.
        np.testing.assert_allclose(x[:, 1:].std(axis=0), 1.0, atol=0.08)
        np.testing.assert_allclose(x[:, 1:].mean(axis=0), 0.0, atol=0.08)


def test_margin_and_guidance_control_the_strength(trained):
    sampler, state = trained

    def strength(**kwargs: float) -> float:
        return float(sampler.sample(state, jax.random.key(3), 0, 4000, **kwargs)[:, 0].mean())

    # The mean of |x| above the half normal's median is 1.27.
    assert abs(strength(margin=0.5) - 1.27) < 0.12
    assert strength() < strength(margin=0.3) < strength(margin=0.6) < strength(margin=0.9)
    guided = dataclasses.replace(sampler, guidance=1.5)
    more = float(guided.sample(state, jax.random.key(3), 0, 4000)[:, 0].mean())
    assert more > strength() + 0.1


def test_drawn_rows_are_members_above_their_quantile(key):
    latents = jnp.stack([jnp.arange(10.0), jnp.arange(10.0)])[..., None]
    members = Members(latents, jnp.array([10, 4], jnp.int32))
    z, q = flow.draw_rows(members, key, 2000)
    rank = np.asarray(z[..., 0])
    counts = np.array([[10], [4]])
    assert (rank < counts).all()
    assert (rank >= np.floor(np.asarray(q) * counts)).all()
    # Half of the rows come from the whole cluster: a binomial of 2,000, sd 0.011.
    np.testing.assert_allclose(np.mean(np.asarray(q) == 0, axis=1), 0.5, atol=0.05)


def test_padding_affects_no_result():
    members = half_spaces(600, D, is_ordered=True)
    short = dataclasses.replace(members, counts=jnp.array([300, 50], jnp.int32))
    pad = jnp.arange(members.latents.shape[1])[None] >= short.counts[:, None]
    spoiled = dataclasses.replace(short, latents=jnp.where(pad[..., None], 1e6, members.latents))
    sampler = Flow(D, hidden_dim=16, batch=64)
    results = [
        sampler.epoch(sampler.init(jax.random.key(0), m), m, jax.random.key(1), 0)
        for m in (short, spoiled)
    ]
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_array_equal(a, b)


def test_more_steps_end_near_where_fewer_do(trained):
    sampler, state = trained
    fine = dataclasses.replace(sampler, num_steps=16)
    a, b = (np.asarray(s.sample(state, jax.random.key(4), 0, 500)) for s in (sampler, fine))
    # Not equal, but the same flow: far closer than two different latents.
    assert np.square(a - b).mean() < 0.05


def test_equal_seeds_give_equal_bytes():
    members, sampler = half_spaces(600, D, is_ordered=True), Flow(D, hidden_dim=16, batch=64)
    runs = [
        sampler.epoch(sampler.init(jax.random.key(0), members), members, jax.random.key(1), 0)[0]
        for _ in range(2)
    ]
    for a, b in zip(*map(jax.tree.leaves, runs), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_one_cluster_and_more_clusters_than_rows_in_a_batch_both_train():
    z = np.random.default_rng(0).normal(size=(300, D)).astype(np.float32)
    for k in (1, 100):
        members = group_members(z, np.arange(300, dtype=np.int32) % k, k, margins=np.ones(300))
        sampler = Flow(D, hidden_dim=16, batch=64)
        state = sampler.init(jax.random.key(0), members)
        _, metrics = sampler.epoch(state, members, jax.random.key(1), 0)
        assert metrics["loss"].shape == (k,)
        assert np.isfinite(metrics["loss"]).all()


def test_a_batch_has_one_time_in_each_equal_part_of_the_path(key):
    e, t = flow.draw_noise(key, 3, 20, D)
    assert e.shape == (3, 20, D)
    np.testing.assert_allclose(np.sort(np.ravel(t)), (np.arange(60) + 0.5) / 60, rtol=1e-6)
    assert not np.array_equal(np.sort(np.ravel(t)), np.ravel(t))  # in random order


@pytest.mark.parametrize(("done", "share"), [(0, 1.0), (25, 0.5 + 0.5**1.5), (50, 0.5), (100, 0.0)])
def test_the_learning_rate_falls_to_zero_along_half_a_cosine(done, share):
    sampler, params = Flow(D, learning_rate=0.1), {"x": jnp.zeros(3)}
    state = flow.FlowState(params, params, sampler.optimizer.init(params))
    state = flow.descend(state, {"x": jnp.ones(3)}, jnp.float32(done), 100.0, sampler)
    # Adam's first step is of length one.
    np.testing.assert_allclose(state.params["x"], -0.1 * share, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(("done", "kept"), [(0, 0.0), (1, 0.5), (3, 0.75), (10**6, 0.9)])
def test_the_average_forgets_its_start_and_then_follows_its_decay(done, kept):
    sampler, params = Flow(D, average=0.9), {"x": jnp.zeros(3)}
    state = flow.FlowState(params, {"x": jnp.ones(3)}, sampler.optimizer.init(params))
    state = flow.descend(state, {"x": jnp.ones(3)}, jnp.float32(done), 1e9, sampler)
    expected = kept + (1 - kept) * state.params["x"]
    np.testing.assert_allclose(state.average["x"], expected, rtol=1e-5)
