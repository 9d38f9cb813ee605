"""The Gaussian is Ledoit and Wolf's, the mixture is expectation maximisation."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import multivariate_normal
from sklearn.covariance import ledoit_wolf

from cgjax.samplers.base import group_members
from cgjax.samplers.gaussian import (
    Gaussian,
    GaussianMixture,
    factor_of,
    log_densities,
    shrunk_covariance,
)


def rows(n: int = 60, d: int = 7) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + 1.0).astype(np.float32)


def test_the_covariance_is_that_of_scikit_learn():
    z = rows()
    expected, _ = ledoit_wolf(z.astype(np.float64))
    mean, found = shrunk_covariance(jnp.asarray(z), jnp.ones(len(z)))
    # float32 sums of 60 products.
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(mean, z.mean(axis=0), rtol=1e-5, atol=1e-5)


def test_padded_rows_do_not_count():
    z = rows()
    spoiled = np.concatenate([z, np.full((9, 7), 1e3, np.float32)])
    weights = jnp.asarray(np.arange(69) < 60, jnp.float32)
    a, b = (
        shrunk_covariance(jnp.asarray(z), jnp.ones(60)),
        shrunk_covariance(jnp.asarray(spoiled), weights),
    )
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4)


def test_log_densities_are_those_of_a_normal_distribution():
    z = rows(20, 3)
    mean, cov = shrunk_covariance(jnp.asarray(z), jnp.ones(20))
    found = log_densities(jnp.asarray(z), mean[None], jnp.linalg.cholesky(cov)[None])[0]
    expected = multivariate_normal.logpdf(z, np.asarray(mean), np.asarray(cov))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_samples_have_the_cluster_s_mean_and_covariance():
    z = rows(4000, 4)
    members = group_members(z, (np.arange(4000) % 4 == 0).astype(np.int32), 2)
    sampler = Gaussian(4)
    state, metrics = sampler.epoch(
        sampler.init(jax.random.key(0), members), members, jax.random.key(1), 0
    )
    assert metrics["loss"].shape == (2,)
    x = np.asarray(sampler.sample(state, jax.random.key(2), 0, 20_000))
    mine = z[np.arange(4000) % 4 != 0]
    # 20,000 draws estimate a covariance of a few units to about 0.1.
    np.testing.assert_allclose(np.cov(x.T), np.cov(mine.T), atol=0.25)
    np.testing.assert_allclose(x.mean(axis=0), mine.mean(axis=0), atol=0.1)


def test_a_mixture_finds_two_distant_parts_and_its_likelihood_never_falls():
    rng = np.random.default_rng(0)
    z = np.concatenate([rng.normal(-5, 1, (600, 3)), rng.normal(5, 0.5, (200, 3))])
    z = rng.permutation(z).astype(np.float32)
    members = group_members(z, np.zeros(800, np.int32), 1)
    sampler = GaussianMixture(3, num_components=2, num_epochs=15)
    state, losses = sampler.init(jax.random.key(3), members), []
    for epoch in range(sampler.num_epochs):
        state, metrics = sampler.epoch(state, members, jax.random.key(1), epoch)
        losses.append(float(metrics["loss"][0]))
    # Without shrinkage the likelihood could not fall at all; with it, it may fall slightly.
    assert np.diff(losses).max() < 0.02
    np.testing.assert_allclose(np.sort(state.weights[0]), [0.25, 0.75], atol=0.02)
    x = np.asarray(sampler.sample(state, jax.random.key(2), 0, 4000))
    assert abs(np.mean(x[:, 0] > 0) - 0.25) < 0.03


def test_an_empty_cluster_and_one_of_equal_members_give_finite_numbers():
    z = np.ones((5, 3), np.float32)
    members = group_members(z, np.zeros(5, np.int32), 2)
    for sampler in (Gaussian(3), GaussianMixture(3, num_components=2)):
        state = sampler.init(jax.random.key(0), members)
        for _ in range(2):
            state, _ = sampler.epoch(state, members, jax.random.key(1), 0)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(state))


def test_the_covariance_of_two_members_has_a_factor_that_is_correct_up_to_rounding():
    lines = np.random.default_rng(0).normal(size=(8, 200)).astype(np.float32)
    covariances = lines[:, :, None] * lines[:, None, :]
    factors = np.asarray(factor_of(jnp.asarray(covariances)), np.float64)
    # Rounding times the trace, 200, times the dimension, 200, is raised to the diagonal.
    np.testing.assert_allclose(factors @ factors.transpose(0, 2, 1), covariances, atol=0.01)


def test_a_mixture_of_more_components_than_members_stays_finite():
    members = group_members(rows(40, 100), np.zeros(40, np.int32), 1)
    sampler = GaussianMixture(100, num_components=41)
    state = sampler.init(jax.random.key(0), members)
    for epoch in range(3):
        state, metrics = sampler.epoch(state, members, jax.random.key(1), epoch)
        assert np.isfinite(metrics["loss"]).all()
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state))
