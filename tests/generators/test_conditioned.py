"""Several devices give the result of one, and a user's own generator must return finite numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgjax.errors import UserError
from cgjax.evaluation.fidelity import check_components
from cgjax.features.stream import FeatureStream
from cgjax.generators.base import PretrainedGenerator
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.generators.families import build_network
from cgjax.runtime import mesh as parallel
from cgjax.testing.planted import make_planted
from tests.generators.objects import Good, NoZeros

STYLEGAN = {
    "form": "genforce",
    "latent_dim": 8,
    "style_dim": 8,
    "mapping_widths": [8, 8],
    "depths": [8, 4],
}


def stylegan() -> PretrainedGenerator:
    return PretrainedGenerator(build_network("stylegan", STYLEGAN))


@pytest.mark.parametrize("n", [0, 3, 4, 11])
def test_image_blocks_are_the_images_to_the_bit(n):
    gen = make_planted()
    generator = ConditionedGenerator(gen, gen.layers[-1], {}, batch=4)
    z = np.asarray(generator.sample_latents(jax.random.key(0), n))
    blocks = list(generator.image_blocks(z))
    assert [len(block) for block in blocks] == [min(4, n - i) for i in range(0, n, 4)]
    if n:
        np.testing.assert_array_equal(np.concatenate(blocks), generator.images(z))


@pytest.mark.parametrize("make", [stylegan, make_planted])
@pytest.mark.parametrize("devices", [2, 3])
def test_several_devices_give_the_result_of_one_for_any_number_of_rows(make, devices):
    gen = make()
    one = ConditionedGenerator(gen, gen.layers[-1], {}, batch=4)
    several = one.over(parallel.data_mesh(devices))
    z = np.asarray(one.sample_latents(jax.random.key(0), 4 * devices + 3))
    np.testing.assert_allclose(several.all_features(z), one.all_features(z), atol=1e-5)
    np.testing.assert_allclose(several.images(z), one.images(z), atol=1e-5)
    few = jnp.asarray(z[:1])
    np.testing.assert_allclose(several.features(few), one.features(few), atol=1e-5)


def test_every_device_runs_its_own_rows():
    gen = stylegan()
    several = ConditionedGenerator(gen, "layer0", {}, batch=2).over(parallel.data_mesh(4))
    h = several.features(jnp.ones((8, 8)))
    assert several.batch == 8
    assert {shard.data.shape[0] for shard in h.addressable_shards} == {2}


def test_with_condition_keeps_the_mesh():
    generator = ConditionedGenerator(make_planted(), "layer2", {}, batch=4)
    other = generator.over(parallel.data_mesh(2)).with_condition(3)
    assert other.mesh is not None
    assert other.keywords == {"condition": 3}
    assert generator.keywords == {}


def test_local_mesh_is_none_for_a_single_device():
    assert parallel.local_mesh(None) is None
    assert parallel.local_mesh(parallel.data_mesh(1)) is None
    mesh = parallel.local_mesh(parallel.data_mesh(3))
    assert mesh is not None
    assert mesh.size == 3


class Sometimes(Good):
    """Returns NaN for latents whose first number is above 2."""

    def images(self, z):
        return np.where(np.asarray(z)[:, :1, None, None] > 2, np.nan, super().images(z))


class SometimesInfinite(Good):
    def sample_latents(self, key, n):
        z = super().sample_latents(key, n)
        return np.where(z > 2, np.inf, z)


def test_nan_from_a_users_own_generator_is_refused_in_any_batch():
    generator = ConditionedGenerator(Sometimes(), "late", {}, 4)
    z = np.zeros((9, 6), np.float32)
    assert np.isfinite(generator.images(z)).all()
    z[8, 0] = 3
    with pytest.raises(UserError, match=r"Sometimes\.images returned NaN; expected finite"):
        generator.images(z)
    blocks = generator.image_blocks(z)
    assert len(next(blocks)) == len(next(blocks)) == 4
    with pytest.raises(UserError, match=r"Sometimes\.images returned NaN; expected finite"):
        next(blocks)
    infinite = ConditionedGenerator(SometimesInfinite(), "late", {}, 4)
    with pytest.raises(UserError, match=r"sample_latents returned infinite values"):
        infinite.sample_latents(jax.random.key(0), 1000)


@pytest.mark.parametrize("features", ["pca_pixels", "layer:early"])
def test_shapes_are_learned_without_zero_latents(features):
    generator = ConditionedGenerator(NoZeros(), "early", {}, 4)
    assert generator.image_shape == (8, 8, 3)
    none = np.zeros((0, 6), np.float32)
    assert generator.images(none).shape == (0, 8, 8, 3)
    assert generator.all_features(none).shape == (0, 16)
    settings = {"features": features, "components": 16, "prior_images": 40}
    check_components(settings, generator)


def test_rows_are_padded_without_zero_latents():
    generator = ConditionedGenerator(NoZeros(), "early", {}, 4)
    z = np.asarray(generator.sample_latents(jax.random.key(0), 5))
    several = generator.over(parallel.data_mesh(3))
    np.testing.assert_allclose(several.all_features(z), generator.all_features(z), atol=1e-6)
    np.testing.assert_allclose(several.images(z[:1]), generator.images(z[:1]), atol=1e-6)
    with FeatureStream(generator, z, block=5) as stream:
        np.testing.assert_allclose(stream.read(np.arange(5)), generator.all_features(z), atol=1e-6)
