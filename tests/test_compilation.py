"""How often things compile: a run must not pay for the same program twice."""

import dataclasses

import jax
import numpy as np
import pytest

from cgjax.clustering import kmeans
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.runtime.cache import CompileCounter
from cgjax.samplers.base import group_members
from cgjax.samplers.registry import SAMPLERS, make_sampler
from cgjax.samplers.verify import draw_unverified
from cgjax.testing.planted import make_planted

SMALL = {"num_epochs": 4, "batch": 8}


@pytest.fixture
def compiled():
    """Count the programs that were compiled since the last call."""
    counter = CompileCounter()
    last = 0

    def count() -> int:
        nonlocal last
        before, last = last, sum(counter.counts())
        return last - before

    return count


@pytest.fixture(scope="module")
def generator():
    return ConditionedGenerator(make_planted(), "layer1", {}, 16)


@pytest.fixture(scope="module")
def learnt(generator):
    z = np.asarray(generator.sample_latents(jax.random.key(0), 60))
    return z, (z[:, 0] > 0).astype(np.int32), np.abs(z[:, 0])


def make(name, generator):
    fields = {field.name for field in dataclasses.fields(SAMPLERS[name])}
    settings = {leaf: value for leaf, value in SMALL.items() if leaf in fields}
    return make_sampler(name, settings, latent_dim=6, prior=generator.sample_latents)


@pytest.mark.parametrize("name", SAMPLERS)
def test_epochs_and_draws_of_a_sampler_compile_once(name, generator, learnt, compiled):
    sampler = make(name, generator)
    z, labels, margins = learnt
    members = group_members(z, labels, 2, margins if sampler.needs_margin_order else None)
    state = sampler.init(jax.random.key(0), members)
    # The last epoch too: one of the distilled flow's trains another network.
    order = [0, sampler.num_epochs - 1, *range(1, sampler.num_epochs - 1)]
    first_draws = {0: 300, 1: 40}
    for i, epoch in enumerate(order[: sampler.num_epochs]):
        if i == 2:
            compiled()
        state, _ = sampler.epoch(state, members, jax.random.key(epoch), epoch)
    assert sampler.num_epochs < 3 or compiled() == 0

    def draw(cluster, num):
        def propose(key, n):
            return sampler.sample(state, key, cluster, n)

        draw_unverified(propose, jax.random.key(cluster), num)

    for cluster, num in first_draws.items():
        draw(cluster, num)
    compiled()
    draw(1, 900)
    draw(0, 7)
    assert compiled() == 0


def test_features_of_any_number_of_latents_are_one_program(generator, learnt, compiled):
    z = learnt[0]
    generator.all_features(z)
    compiled()
    for num in (47, 33, 17):
        generator.all_features(z[:num])
    assert compiled() == 0


def test_the_same_clustering_again_compiles_nothing(learnt, compiled):
    z = learnt[0]
    kmeans(z, 3, key=jax.random.key(0))
    compiled()
    kmeans(z[::-1].copy(), 3, key=jax.random.key(1), tol=1e-3, max_iter=50)
    assert compiled() == 0
