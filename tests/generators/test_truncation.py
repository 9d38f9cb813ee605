"""Truncation is a number, or one line says so; it reaches the prior only where a family says so."""

import jax
import numpy as np
import pytest

from cgjax.errors import UserError
from cgjax.generators.base import PretrainedGenerator
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.generators.families import build_network
from tests.generators.test_weights import SMALL


def small(family: str) -> PretrainedGenerator:
    return PretrainedGenerator(build_network(family, SMALL[family]))


@pytest.mark.parametrize(
    ("family", "keywords"),
    [
        ("stylegan", {"truncation": 10**400}),
        ("stylegan", {"truncation": "half"}),
        ("stylegan2", {"truncation": 0.5, "truncation_layers": float("inf")}),
        ("biggan", {"truncation": 10**400, "condition": 0}),
        ("biggan_pytorch", {"truncation": "half", "condition": 0}),
    ],
)
def test_a_truncation_that_is_not_a_number_is_refused_in_one_line(family, keywords):
    gen = small(family)
    z = np.zeros((1, gen.latent_dim), np.float32)
    with pytest.raises(UserError, match=r"truncation=.*: expected a ") as caught:
        gen.images(z, **keywords)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("family", ["biggan", "biggan_pytorch"])
def test_a_truncated_prior_is_drawn_by_the_families_that_have_one(family):
    gen = small(family)
    keywords = {"condition": 0, "truncation": 0.5}
    conditioned = ConditionedGenerator(gen, gen.layers[0], keywords, 4)
    key = jax.random.key(0)
    z = np.asarray(conditioned.sample_latents(key, 200))
    np.testing.assert_array_equal(z, gen.sample_latents(key, 200, truncation=0.5))
    assert np.abs(z).max() <= 1


def test_truncation_of_styles_leaves_the_prior_alone():
    gen = small("stylegan")
    conditioned = ConditionedGenerator(gen, gen.layers[0], {"truncation": 0.5}, 4)
    key = jax.random.key(0)
    np.testing.assert_array_equal(conditioned.sample_latents(key, 5), gen.sample_latents(key, 5))
