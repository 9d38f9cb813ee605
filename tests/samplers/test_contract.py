"""Every entry of the samplers' table follows the protocol, whatever kind of sampler it is."""

import copy
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgjax.config.schema import leaf_of
from cgjax.errors import UserError
from cgjax.run.sampling import Fit
from cgjax.runtime.checkpoints import Checkpoints
from cgjax.samplers.base import DataParallelEpoch, Members, Sampler, as_cluster, group_members
from cgjax.samplers.registry import RUN_LEAVES, SAMPLERS, make_sampler
from cgjax.stages.trainer import _check_loss
from configs import common

D, K, NUM = 5, 3, 7
SMALL = {
    "num_epochs": 2,
    "num_latents": None,
    "batch": 8,
    "code_dim": 4,
    "hidden_dim": 8,
    "critic_dim": 8,
    "encoder_dim": 8,
    "num_components": 2,
}

every_sampler = pytest.mark.parametrize("name", SAMPLERS)


def settings_of(name: str) -> dict[str, Any]:
    """The defaults of config.samplers.<name> with smaller sizes; the reference has none."""
    defaults = common.get_config().samplers.get(name, {})
    return {leaf: SMALL.get(leaf, value) for leaf, value in dict(defaults).items()}


def prior(key, n):
    return jax.random.normal(key, (n, D), jnp.float32)


def make(name: str, **changed: Any) -> Sampler:
    return make_sampler(name, settings_of(name) | changed, latent_dim=D, prior=prior)


@functools.cache
def members(is_ordered: bool = True) -> Members:
    """Two clusters of unequal size and an empty one."""
    z = np.random.default_rng(0).normal(size=(60, D)).astype(np.float32)
    labels = (z[:, 0] > 0.4).astype(np.int32)
    return group_members(z, labels, K, np.abs(z[:, 0] - 0.4) if is_ordered else None)


def train(sampler: Sampler, data: Members | None = None) -> tuple[Any, dict[str, Any]]:
    data = members() if data is None else data
    state, metrics = sampler.init(jax.random.key(0), data), {}
    for epoch in range(min(sampler.num_epochs, 2)):
        state, metrics = sampler.epoch(state, data, jax.random.key(1 + epoch), epoch)
    return state, metrics


@functools.cache
def trained(name: str) -> tuple[Any, dict[str, Any]]:
    return train(make(name))


def content(tree: Any) -> list[bytes]:
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(tree)]


def shapes(tree: Any) -> Any:
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


@every_sampler
def test_it_declares_everything_callers_read(name):
    sampler = make(name)
    assert isinstance(sampler, Sampler)
    assert isinstance(sampler.num_epochs, int)
    assert isinstance(sampler.num_latents, int | None)
    for flag in ("always_verified", "aims_at_margin", "starts_at_prior", "needs_margin_order"):
        assert isinstance(getattr(sampler, flag), bool), flag
    # Callers read this from the class: they need it before a sampler is built.
    assert set(SAMPLERS[name].sampling_leaves) <= set(settings_of(name)) - set(RUN_LEAVES)


@every_sampler
def test_the_shapes_of_its_state_follow_from_the_shapes_of_the_members(name):
    state = jax.eval_shape(make(name).init, jax.random.key(0), members())
    assert shapes(state) == shapes(trained(name)[0])


@every_sampler
def test_it_is_an_immutable_value(name):
    sampler = make(name)
    assert sampler == make(name)
    assert hash(sampler) == hash(make(name))
    field = dataclasses.fields(sampler)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(sampler, field, None)


@every_sampler
def test_training_keeps_the_shapes_of_the_state(name):
    """A checkpoint can therefore be restored into a template of shapes alone."""
    sampler = make(name)
    template = jax.eval_shape(sampler.init, jax.random.key(0), members())
    state, _ = trained(name)
    assert shapes(template) == shapes(sampler.init(jax.random.key(0), members())) == shapes(state)
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(state))


@every_sampler
def test_a_checkpoint_restores_the_same_bytes(name, tmp_path):
    sampler, (state, _) = make(name), trained(name)
    if not sampler.num_epochs:
        assert not jax.tree.leaves(state)
        return
    saved = Checkpoints(tmp_path)
    saved.save(2, {"state": state}, {})
    template = jax.eval_shape(sampler.init, jax.random.key(0), members())
    restored = saved.restore(2, {"state": template})["state"]
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert content(restored) == content(state)


@every_sampler
def test_equal_keys_train_equal_bytes_without_nan(name):
    state, metrics = trained(name)
    again, _ = train(make(name))
    assert content(state) == content(again)
    # NaN, not "finite", because a threshold that was never set is infinite.
    assert not any(np.isnan(x).any() for x in jax.tree.leaves(state))
    if make(name).num_epochs:
        assert metrics["loss"].shape == (K,)
        assert np.isfinite(np.asarray(metrics["loss"])[:2]).all()


@every_sampler
def test_a_loss_that_is_not_finite_is_reported_with_a_setting_of_the_sampler(name, tmp_path):
    fit = Fit(f"{name} in 0/1", make(name), Checkpoints(tmp_path), "key")
    if not fit.sampler.num_epochs:
        return
    with pytest.raises(
        UserError, match=r"became nan in epoch 2, cluster 1; lower --config"
    ) as error:
        _check_loss(np.array([0.0, np.nan]), fit, 2)
    assert leaf_of(str(error.value).split("--config.")[1]) is not None


@every_sampler
def test_samples_are_finite_latents_determined_by_the_key(name):
    sampler, (state, _) = make(name), trained(name)
    drawn = {
        (seed, c): np.asarray(sampler.sample(state, jax.random.key(seed), c, NUM))
        for seed in (3, 4)
        for c in range(K)
    }
    for z in drawn.values():
        assert z.shape == (NUM, D)
        assert z.dtype == np.float32
        assert np.isfinite(z).all()
    assert (drawn[3, 0] != drawn[4, 0]).any()
    again = sampler.sample(state, jax.random.key(3), 0, NUM)
    assert content(again) == content(drawn[3, 0])
    assert sampler.sample(state, jax.random.key(3), 1, 1).shape == (1, D)


@every_sampler
def test_every_sampler_accepts_a_margin_and_those_that_aim_at_it_use_it(name):
    sampler, (state, _) = make(name), trained(name)
    whole, upper, end = (
        np.asarray(sampler.sample(state, jax.random.key(3), 0, NUM, margin))
        for margin in (0.0, 0.5, 1.0)
    )
    assert content(whole) == content(sampler.sample(state, jax.random.key(3), 0, NUM))
    assert (content(whole) != content(upper)) == sampler.aims_at_margin
    assert np.isfinite(end).all()


@every_sampler
def test_a_sampler_that_starts_at_the_prior_proposes_it_untrained(name):
    sampler = make(name)
    state = sampler.init(jax.random.key(0), members())
    proposed = sampler.sample(state, jax.random.key(3), 0, NUM)
    # Two programs may round the same normal numbers differently.
    is_prior = np.allclose(proposed, prior(jax.random.key(3), NUM), rtol=0.0, atol=1e-6)
    assert is_prior == (sampler.starts_at_prior or sampler.always_verified)


@every_sampler
def test_unsorted_members_are_refused_if_order_matters(name):
    sampler, unordered = make(name), members(is_ordered=False)
    if not sampler.needs_margin_order:
        train(sampler, unordered)
        return
    message = "members must be sorted by margin"
    with pytest.raises(ValueError, match=message):
        sampler.init(jax.random.key(0), unordered)
    state = sampler.init(jax.random.key(0), members())
    with pytest.raises(ValueError, match=message):
        sampler.epoch(state, unordered, jax.random.key(1), 0)
    with pytest.raises(ValueError, match=message):
        sampler.data_parallel_epoch(unordered, 0)


def test_samplers_that_need_an_order_declare_it():
    """Only these samplers would train differently on the same members in another order."""
    assert {name for name in SAMPLERS if make(name).needs_margin_order} == {
        "flow",
        "flow_one_step",
    }


LEAVES = [(name, leaf) for name in SAMPLERS for leaf in SAMPLERS[name].sampling_leaves]


def other(value: Any) -> Any:
    return not value if isinstance(value, bool) else type(value)(value * 2)


@pytest.mark.parametrize(("name", "leaf"), LEAVES)
def test_a_sampling_leaf_changes_samples_and_not_training(name, leaf):
    changed = make(name, **{leaf: other(settings_of(name)[leaf])})
    state, _ = trained(name)
    assert content(train(changed)[0]) == content(state)
    before, after = (s.sample(state, jax.random.key(3), 0, NUM) for s in (make(name), changed))
    assert content(before) != content(after)


@pytest.mark.parametrize("leaf", ["num_steps", "guidance"])
def test_the_flows_sampling_leaves_affect_training_of_the_one_step_flow(leaf):
    changed = make("flow_one_step", **{leaf: other(settings_of("flow_one_step")[leaf])})
    assert content(train(changed)[0]) != content(trained("flow_one_step")[0])


@every_sampler
def test_the_data_parallel_epoch_is_valid_or_none(name):
    sampler = make(name)
    parts = sampler.data_parallel_epoch(members(), 0)
    if parts is not None:
        assert isinstance(parts, DataParallelEpoch)
        assert parts.scalar.shape == ()
        assert parts.scalar.dtype == jnp.float32
        hash(tuple(parts.static.items()))


def test_members_are_sorted_by_margin_or_keep_their_order():
    z = np.arange(12, dtype=np.float32)[:, None]
    labels, margins = np.arange(12) % 2, np.array([3, 1, 2, 1, 1, 0, 2, 9, 0, 4, 5, 1.0])
    drawn, ordered = group_members(z, labels, 3), group_members(z, labels, 3, margins)
    assert (drawn.is_ordered, ordered.is_ordered) == (False, True)
    np.testing.assert_array_equal(drawn.latents[..., 0][0], [0, 2, 4, 6, 8, 10])
    np.testing.assert_array_equal(ordered.latents[..., 0][0], [8, 4, 2, 6, 0, 10])
    np.testing.assert_array_equal(ordered.latents[..., 0][1], [5, 1, 3, 11, 9, 7])
    for grouped in (drawn, ordered):
        assert grouped.counts.tolist() == [6, 6, 0]
        assert jax.tree.map(lambda x: x, grouped).is_ordered == grouped.is_ordered
        assert copy.copy(grouped) is not grouped


@every_sampler
@pytest.mark.parametrize("cluster", [-1, K])
def test_a_cluster_that_does_not_exist_is_refused(name, cluster):
    sampler, (state, _) = make(name), trained(name)
    if sampler.always_verified:
        return  # it proposes from the prior
    with pytest.raises(ValueError, match=rf"cluster={cluster}: expected 0 to {K - 1}"):
        sampler.sample(state, jax.random.key(0), cluster, NUM)


@pytest.mark.parametrize("label", [-1, 2])
def test_members_of_a_cluster_that_does_not_exist_are_refused(label):
    with pytest.raises(ValueError, match="expected 0 to 1"):
        group_members(np.zeros((2, 3), np.float32), np.array([0, label]), 2)


def test_a_traced_cluster_is_not_checked():
    found = jax.vmap(lambda c: as_cluster(c, K))(jnp.arange(5, dtype=jnp.int32))
    assert found.tolist() == [0, 1, 2, 3, 4]
