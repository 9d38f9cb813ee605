"""One-hot parts of latents are found in draws of the prior, and proposals keep them one-hot."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgjax.generators.conditions import with_categories
from cgjax.run.sampling import FittedSampler, Source
from cgjax.samplers.one_hot import as_one_hot, one_hot_parts


@pytest.mark.parametrize("categories", [(), (3,), (2, 4), (1, 3), (5,)])
def test_the_one_hot_vectors_of_a_prior_are_found(categories, key):
    normal = jax.random.normal(key, (200, 6))
    z = np.asarray(with_categories(key, normal[:, : 6 - (sum(categories) == 5)], categories))
    ends = z.shape[1] - sum(categories) + np.cumsum((0, *categories))
    assert one_hot_parts(z) == tuple(zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True))
    np.testing.assert_array_equal(as_one_hot(jnp.asarray(z), one_hot_parts(z)), z)


def test_bits_that_are_not_one_hot_and_constants_stay_as_they_are():
    bits = np.random.default_rng(0).integers(0, 2, (50, 4)).astype(np.float32)
    assert one_hot_parts(bits) == ()
    assert one_hot_parts(np.zeros((50, 3), np.float32)) == ()


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("norm", [None, 3.0])
def test_what_a_sampler_proposes_is_one_hot_where_the_prior_is(norm, key):
    def sample(state, key, cluster, num, margin):
        return jax.random.uniform(key, (num, 6))

    fitted = FittedSampler(SimpleNamespace(sample=sample), {}, norm, one_hot=((2, 4), (4, 6)))
    z = np.asarray(Source(fitted).propose(key, 40))
    plain = np.asarray(Source(fitted._replace(one_hot=())).propose(key, 40))
    np.testing.assert_array_equal(z[:, :2], plain[:, :2])
    for part in (slice(2, 4), slice(4, 6)):
        np.testing.assert_array_equal(z[:, part], np.eye(2)[plain[:, part].argmax(axis=1)])
