"""Training spread over devices ends where one device does, even if nothing divides evenly."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgjax.runtime.mesh import data_mesh
from cgjax.samplers import flow
from cgjax.samplers.base import Members, group_members
from cgjax.samplers.flow import Flow
from cgjax.samplers.gan import LatentGan
from cgjax.samplers.gaussian import Gaussian
from cgjax.samplers.imle import Imle
from cgjax.samplers.imle_modern import ModernImle
from cgjax.samplers.training import Devices, over_mesh
from cgjax.samplers.vae import Vae

D = 6
# 13 rows per batch: not a multiple of any number of devices.
SAMPLERS = {
    "flow": Flow(D, hidden_dim=16, batch=26),
    "imle": Imle(D, hidden_dim=16, batch=13),
    "gan": LatentGan(D, hidden_dim=16, critic_dim=16, batch=13),
    "vae": Vae(D, hidden_dim=16, encoder_dim=16, batch=13),
}


@functools.cache
def members() -> Members:
    z = np.random.default_rng(0).normal(size=(200, D)).astype(np.float32)
    return group_members(z, (z[:, 0] > 0.4).astype(np.int32), 2, margins=np.abs(z[:, 0] - 0.4))


def trained(name, epoch):
    """Two epochs from the same start; the second continues on the devices of the first."""
    state = SAMPLERS[name].init(jax.random.key(0), members())
    for number in range(2):
        state, metrics = epoch(state, members(), jax.random.key(1 + number), number)
    return state, metrics


@functools.cache
def on_one(name):
    return trained(name, SAMPLERS[name].epoch)


@pytest.mark.parametrize("devices", [1, 3])
@pytest.mark.parametrize("name", SAMPLERS)
def test_parameters_and_losses_equal_those_of_one_device(name, devices):
    expected, expected_metrics = on_one(name)
    found, found_metrics = trained(name, over_mesh(data_mesh(devices), SAMPLERS[name]))
    # Sums over devices in another order; Adam divides by the root of tiny moments, which magnifies
    # the rounding of near-zero gradients to a small part of a step of 1e-3.
    for a, b in zip(*map(jax.tree.leaves, (expected, found)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    for metric, value in expected_metrics.items():
        np.testing.assert_allclose(value, found_metrics[metric], rtol=1e-4)
    assert all(len(x.sharding.device_set) == devices for x in jax.tree.leaves(found))


@pytest.mark.parametrize("devices", [1, 3])
def test_flow_runs_under_pmap(devices):
    sampler = SAMPLERS["flow"]
    state = sampler.init(jax.random.key(0), members())
    _, scalar, static = sampler.data_parallel_epoch(members(), 0)
    given = (state, members(), jax.random.key(1), scalar)
    expected, _ = flow.epoch_(*given, **static)
    epoch = functools.partial(flow.epoch_, devices=Devices("devices", devices), **static)
    mapped = jax.pmap(epoch, axis_name="devices", devices=jax.devices()[:devices])
    copies = jax.tree.map(lambda x: jnp.broadcast_to(x, (devices, *x.shape)), given)
    found, _ = mapped(*copies)
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(a, b[-1], atol=1e-4)  # as above


def test_the_state_is_donated():
    sampler = SAMPLERS["flow"]
    epoch = over_mesh(data_mesh(2), sampler)
    state, _ = epoch(sampler.init(jax.random.key(0), members()), members(), jax.random.key(1), 0)
    epoch(state, members(), jax.random.key(2), 1)
    assert state.params["inner"].is_deleted()


@pytest.mark.parametrize("sampler", [Gaussian(D), ModernImle(D, batch=13)])
def test_a_sampler_without_a_data_parallel_epoch_trains_on_one_device(sampler):
    states = [
        epoch(sampler.init(jax.random.key(0), members()), members(), jax.random.key(1), 0)[0]
        for epoch in (sampler.epoch, over_mesh(data_mesh(2), sampler))
    ]
    for a, b in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_array_equal(a, b)
