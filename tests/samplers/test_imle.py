"""IMLE is the published algorithm: direction of the match, masking, settings, devices."""

import dataclasses
import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from cgjax.errors import UserError
from cgjax.numerics.networks import Arrays
from cgjax.samplers import imle, matching
from cgjax.samplers.base import Members, group_members
from cgjax.samplers.imle import Imle
from cgjax.samplers.mapping import CodeMapping
from cgjax.samplers.training import Devices


def half_space_members(n: int = 700, d: int = 6) -> tuple[Members, np.ndarray]:
    z = np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)
    labels = (z[:, 0] > 0.4).astype(np.int32)  # unequal clusters
    return group_members(z, labels, 2), labels


def test_every_member_is_matched_to_its_nearest_generated_latent_not_the_other_way_round():
    z = jnp.array([[0.0, 0.0], [0.1, 0.0], [9.0, 0.0]])
    generated = jnp.array([[0.0, 0.05], [50.0, 0.0], [10.0, 0.0], [9.0, 0.0]])
    index, distance = matching.match(z, generated, jnp.int32(3))
    # Two members share a match, generated latent 1 has none, and padding (index 3) is ignored.
    assert index.tolist() == [0, 0, 2]
    # Distances are exact in float32 up to the rounding of 0.05**2.
    np.testing.assert_allclose(distance, [0.0025, 0.0125, 1.0], rtol=1e-5)


def test_batch_norm_counts_valid_rows_only():
    mapping = CodeMapping(3, 8, 2)
    state = mapping.init(jax.random.key(0))
    e = jax.random.normal(jax.random.key(1), (10, 3))
    mask = jnp.arange(10) < 6
    spoiled = jnp.where(mask[:, None], e, 1e6)
    alone, stats_alone = mapping.apply(state, e[:6], train=True)
    masked, stats_masked = mapping.apply(state, spoiled, mask, train=True)
    # The same sums in another order: a few units in the last place.
    np.testing.assert_allclose(masked[:6], alone, rtol=1e-5, atol=1e-6)
    for a, b in zip(jax.tree.leaves(stats_alone), jax.tree.leaves(stats_masked), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_sample_does_not_depend_on_the_batch_it_came_in():
    members, _ = half_space_members()
    sampler = Imle(6, batch=32, num_epochs=2)
    state = sampler.init(jax.random.key(0), members)
    state, _ = sampler.epoch(state, members, jax.random.key(1), 0)
    one = jax.tree.map(lambda x: x[0], state.mapping)
    e = jax.random.normal(jax.random.key(2), (50, sampler.mapping.code_dim))
    together = sampler.mapping.apply(one, e)[0]
    alone = sampler.mapping.apply(one, e[:1])[0]
    np.testing.assert_allclose(alone[0], together[0], rtol=1e-5, atol=1e-6)


def test_padding_affects_neither_the_loss_nor_the_moments():
    members, _ = half_space_members()
    pad = jnp.arange(members.latents.shape[1])[None] >= members.counts[:, None]
    spoiled = dataclasses.replace(members, latents=jnp.where(pad[..., None], 1e6, members.latents))
    sampler = Imle(6, batch=32)
    results = [
        sampler.epoch(sampler.init(jax.random.key(0), m), m, jax.random.key(1), 0)
        for m in (members, spoiled)
    ]
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_array_equal(a, b)


def torch_epoch(sampler, state, members, key, rate):
    """The same epoch for one cluster, written as a PyTorch user would."""
    import torch

    torch.manual_seed(0)
    e_dim, hidden, d = sampler.mapping
    net = torch.nn.Sequential(
        torch.nn.Linear(e_dim, hidden, bias=False),
        torch.nn.BatchNorm1d(hidden),
        torch.nn.ReLU(),
        torch.nn.Linear(hidden, hidden, bias=False),
        torch.nn.BatchNorm1d(hidden),
        torch.nn.ReLU(),
        torch.nn.Linear(hidden, d, bias=False),
    )
    params = jax.tree.map(np.asarray, state.mapping.params)
    with torch.no_grad():
        for layer, i in zip((0, 3, 6), range(3), strict=True):
            net[layer].weight.copy_(torch.tensor(params["kernels"][i][0].T))
    b = sampler.batch
    n = int(members.counts[0])
    steps = n // b
    key_pool, key_order = jax.random.split(key)
    m = members.latents.shape[1]
    pool = sampler.pool_factor * (m // b)
    codes = np.asarray(jax.random.normal(key_pool, (1, pool, b, e_dim), jnp.float32))[0]
    codes = torch.tensor(codes[: sampler.pool_factor * steps])
    z = torch.tensor(np.asarray(members.latents[0, :n]))
    net.train()
    with torch.no_grad():
        generated = torch.cat([net(batch) for batch in codes])
    index = torch.cdist(z, generated).argmin(1)
    matched = codes.reshape(-1, e_dim)[index]
    noise = np.asarray(jax.random.uniform(key_order, (1, m), jnp.float32))[0]
    order = np.argsort(np.where(np.arange(m) < n, noise, 2.0), kind="stable")[:n]
    adam = torch.optim.Adam(
        net.parameters(),
        lr=rate,
        betas=(sampler.beta1, sampler.beta2),
        weight_decay=sampler.weight_decay,
    )
    losses = []
    for s in range(steps):
        rows = order[s * b : (s + 1) * b].copy()
        loss = torch.nn.functional.mse_loss(net(matched[rows]), z[rows])
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    return net, float(np.mean(losses))


@pytest.mark.torch
def test_an_epoch_equals_the_pytorch_loop_with_the_same_random_numbers():
    z = np.random.default_rng(0).normal(size=(150, 5)).astype(np.float32)
    members = group_members(z, np.zeros(150, np.int32), 1)
    sampler = Imle(5, code_dim=4, hidden_dim=16, batch=32)
    state, key = sampler.init(jax.random.key(0), members), jax.random.key(1)
    net, loss = torch_epoch(sampler, state, members, key, 1e-3)
    ours, metrics = sampler.epoch(state, members, key, 0)
    # Two libraries, float32, a handful of Adam steps: rounding is near 1e-6.
    np.testing.assert_allclose(metrics["loss"][0], loss, rtol=1e-5)
    for layer, i in ((0, 0), (3, 1), (6, 2)):
        ref = net[layer].weight.detach().numpy().T
        np.testing.assert_allclose(ours.mapping.params["kernels"][i][0], ref, atol=1e-5)
    for layer, i in ((1, 0), (4, 1)):
        stats = ours.mapping.stats["norms"][i]
        np.testing.assert_allclose(stats["mean"][0], net[layer].running_mean, atol=1e-5)
        np.testing.assert_allclose(stats["var"][0], net[layer].running_var, atol=1e-5)


def test_the_learning_rate_is_halved_every_fifty_epochs():
    sampler = Imle(6)
    rates = [float(sampler.rate(epoch)) for epoch in (0, 49, 50, 100, 399)]
    np.testing.assert_allclose(rates, [1e-3, 1e-3, 5e-4, 2.5e-4, 1e-3 / 2**7], rtol=1e-6)


def test_a_cluster_smaller_than_a_batch_trains_on_all_its_members():
    z = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    labels = (np.arange(300) < 9).astype(np.int32)
    members = group_members(z, labels, 2)
    sampler = Imle(4, batch=64)
    state = sampler.init(jax.random.key(0), members)
    before = jax.tree.map(lambda x: np.asarray(x[1]), state.mapping.params)
    state, metrics = sampler.epoch(state, members, jax.random.key(1), 0)
    assert np.isfinite(metrics["loss"]).all()
    after = jax.tree.map(lambda x: np.asarray(x[1]), state.mapping.params)
    moved = [
        np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (before, after)), strict=True)
    ]
    assert min(moved[-3:]) > 0


@pytest.mark.parametrize("devices", [1, 3])
@pytest.mark.parametrize("wrap", ["shard_map", "pmap"])
def test_several_devices_give_the_same_parameters_as_one(devices, wrap):
    members, _ = half_space_members(n=400)
    sampler = Imle(6, batch=32, hidden_dim=16)
    state, key, rate = (
        sampler.init(jax.random.key(0), members),
        jax.random.key(1),
        jnp.float32(1e-3),
    )
    expected, metrics = imle.epoch_(state, members, key, rate, sampler=sampler)
    epoch = functools.partial(imle.epoch_, sampler=sampler, devices=Devices("devices", devices))
    if wrap == "pmap":

        def copies(tree):
            return jax.tree.map(lambda x: jnp.broadcast_to(x, (devices, *x.shape)), tree)

        mapped = jax.pmap(epoch, axis_name="devices", devices=jax.devices()[:devices])
        found, found_metrics = mapped(*map(copies, (state, members, key, rate)))
        found, found_metrics = jax.tree.map(lambda x: x[0], (found, found_metrics))
    else:
        mesh = jax.make_mesh(
            (devices,),
            ("devices",),
            devices=jax.devices()[:devices],
            axis_types=(jax.sharding.AxisType.Auto,),
        )
        mapped = jax.jit(
            jax.shard_map(epoch, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False)
        )
        found, found_metrics = mapped(state, members, key, rate)
    # Sums over devices in another order; Adam divides by the root of tiny moments, which
    # magnifies the rounding of near-zero gradients to a small part of a step of 1e-3.
    for a, b in zip(*map(jax.tree.leaves, (expected.mapping, found.mapping)), strict=True):
        np.testing.assert_allclose(a, b, atol=5e-5)
    np.testing.assert_allclose(metrics["loss"], found_metrics["loss"], rtol=1e-4)


def test_it_learns_the_cluster_and_shrinks_it_as_the_docs_say():
    z = np.random.default_rng(0).normal(size=(2000, 32)).astype(np.float32)
    labels = (z[:, 0] < 0).astype(np.int32)
    members = group_members(z, labels, 2)
    sampler = Imle(32, num_epochs=20)
    state = sampler.init(jax.random.key(0), members)
    losses = []
    for epoch in range(sampler.num_epochs):
        key = jax.random.fold_in(jax.random.key(1), epoch)
        state, metrics = sampler.epoch(state, members, key, epoch)
        losses.append(float(metrics["loss"].mean()))
    assert losses[-1] < losses[0]
    for cluster, side in ((0, 1), (1, -1)):
        x = np.asarray(sampler.sample(state, jax.random.key(2), cluster, 1000))
        assert np.mean(side * x[:, 0] > 0) > 0.95
        # Nearest matching explains little variance in 32 dimensions: the output is short.
        assert np.linalg.norm(x, axis=1).mean() < 0.75 * np.linalg.norm(z, axis=1).mean()


def test_equal_seeds_give_equal_bytes():
    members, _ = half_space_members()
    sampler = Imle(6, batch=32)
    runs = [
        sampler.epoch(sampler.init(jax.random.key(0), members), members, jax.random.key(1), 0)[0]
        for _ in range(2)
    ]
    for a, b in zip(*map(jax.tree.leaves, runs), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_stacked_states_are_plain_arrays():
    members, _ = half_space_members()
    state = Imle(6).init(jax.random.key(0), members)
    assert isinstance(state.mapping, Arrays)
    assert all(isinstance(x, jax.Array) and x.shape[0] == 2 for x in jax.tree.leaves(state))


@pytest.mark.faiss
def test_matching_by_faiss_gives_the_same_epoch():
    pytest.importorskip("faiss")
    members, _ = half_space_members()
    results = []
    for matcher in ("jax", "faiss"):
        sampler = Imle(6, batch=32, matcher=matcher)
        state = sampler.init(jax.random.key(0), members)
        results.append(sampler.epoch(state, members, jax.random.key(1), 0))
    # The matches are the same; two programs may round the steps after them differently.
    for a, b in zip(*(jax.tree.leaves(state.mapping) for state, _ in results), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    for name in ("loss", "match"):
        np.testing.assert_allclose(results[0][1][name], results[1][1][name], rtol=1e-5)


def test_matching_by_faiss_without_faiss_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    members, _ = half_space_members(100)
    sampler = Imle(6, batch=32, matcher="faiss")
    with pytest.raises(UserError, match=r"cgjax\[faiss\]") as error:
        sampler.epoch(sampler.init(jax.random.key(0), members), members, jax.random.key(1), 0)
    assert "\n" not in str(error.value)


def test_an_unknown_matcher_is_refused():
    with pytest.raises(UserError, match="jax, faiss"):
        Imle(6, matcher="annoy")
