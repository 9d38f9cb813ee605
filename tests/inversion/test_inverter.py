"""Inverting small generators with known latents: by JAX, by torch, and by an encoder alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgjax.generators.base import PretrainedGenerator
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.generators.families import build_network
from cgjax.inversion.encoder import Encoder, to_length
from cgjax.inversion.gradients import own_pull, traced
from cgjax.inversion.held_out import HeldOut, num_right
from cgjax.inversion.inverter import Inverted, Inverter
from cgjax.inversion.learning import EncoderTraining, learn
from cgjax.inversion.prior import prior_of
from cgjax.inversion.search import Search, Target, features_of, losses
from cgjax.runtime.mesh import data_mesh
from cgjax.testing.planted import make_planted

SIZE, DIM = 8, 4
BASIS = np.random.default_rng(0).standard_normal((DIM, SIZE * SIZE * 3)).astype(np.float32) / 4


class Linear:
    """Images are a linear function of the latent, so that each has only one latent."""

    layers = ("all",)
    latent_dim, image_size = DIM, SIZE

    def sample_latents(self, key, n):
        return jax.random.normal(key, (n, DIM), jnp.float32)

    def features(self, z, layer):
        return self.images(z)

    def images(self, z):
        return (z @ jnp.asarray(BASIS)).reshape(-1, SIZE, SIZE, 3)


class Plain(Linear):
    """The same in NumPy, which cannot be differentiated."""

    def images(self, z):
        return (np.asarray(z) @ BASIS).reshape(-1, SIZE, SIZE, 3)


class Pulled(Plain):
    """The same in NumPy, with its own gradient."""

    def pull_back(self, z):
        return self.images(z), lambda slope: slope.reshape(len(slope), -1) @ BASIS.T


class Sphere(Linear):
    """Only the latent's direction matters."""

    normalizes_latent = True

    def images(self, z):
        return super().images(to_length(z, 2.0))


def inverter(own, **search):
    generator = ConditionedGenerator(own, "all", {}, 16)
    only_direction = generator.normalizes_latent
    sample = generator.sample_latents(jax.random.key(9), 512)
    prior = prior_of(sample, only_direction=only_direction)
    encoder = Encoder(DIM, SIZE, 3, 4, norm=prior.norm)
    params = encoder.init(jax.random.key(1))
    given = {"num_steps": 120, "step_size": 0.1, "feature_weight": 0.0} | search
    return generator, Inverter(generator, Search(encoder, **given), params, prior)


def some_images(generator, num=5):
    z = np.asarray(generator.sample_latents(jax.random.key(3), num))
    return z, generator.images(z)


@pytest.mark.parametrize("own", [Linear(), Pulled()], ids=["jax", "own gradient"])
def test_latents_are_recovered_from_a_guess_that_knows_nothing(own):
    generator, one = inverter(own)
    z, images = some_images(generator)
    found = one.invert(images)
    assert one.function is not None
    assert np.abs(found.guesses - z).max() > 0.5
    np.testing.assert_allclose(found.latents, z, atol=0.02)
    assert found.errors.max() < 0.01


def test_both_ways_to_differentiate_take_the_same_steps():
    found = []
    for own in (Linear(), Pulled()):
        generator, one = inverter(own, num_steps=5, feature_weight=0.1)
        found.append(one.invert(some_images(generator)[1]).latents)
    np.testing.assert_allclose(*found, atol=1e-4)


def test_only_the_direction_counts_if_the_generator_ignores_the_length():
    generator, one = inverter(Sphere())
    z, images = some_images(generator)
    found = one.invert(images).latents
    norms = np.linalg.norm(found, axis=1)
    np.testing.assert_allclose(norms, norms[0], rtol=1e-5)
    cosines = np.sum(found * z, axis=1) / norms / np.linalg.norm(z, axis=1)
    assert cosines.min() > 0.999


def test_a_generator_that_cannot_be_differentiated_leaves_the_guess():
    generator, one = inverter(Plain())
    assert one.function is None
    found = one.invert(some_images(generator)[1])
    assert np.array_equal(found.latents, found.guesses)
    again = one.try_again(
        some_images(generator)[1],
        found,
        list(jax.random.split(jax.random.key(0), len(found.errors))),
    )
    assert again is found


def test_a_zero_or_failing_gradient_counts_as_none():
    class Flat(Linear):
        def images(self, z):
            return jax.lax.stop_gradient(super().images(z))

    class Broken(Pulled):
        def pull_back(self, z):
            raise RuntimeError("no gradient")

    for own in (Flat(), Broken()):
        generator = ConditionedGenerator(own, "all", {}, 16)
        assert traced(generator) is None
        assert own_pull(generator) is None


def test_a_torch_module_is_inverted_too():
    torch = pytest.importorskip("torch")
    import cgjax

    layer = torch.nn.Linear(DIM, SIZE * SIZE * 3, bias=False)
    # Images in 0 to 1 and channels first, so that both are converted on the way.
    layer.weight.data = torch.from_numpy(
        BASIS.reshape(DIM, SIZE, SIZE, 3).transpose(0, 3, 1, 2).reshape(DIM, -1).T.copy() / 2
    )
    own = cgjax.from_torch(
        torch.nn.Sequential(layer),
        latent_dim=DIM,
        layers={"all": "0"},
        call=lambda module, z: module(z).reshape(-1, 3, SIZE, SIZE) + 0.5,
        image_range=(0, 1),
    )
    generator = ConditionedGenerator(own, "all", {}, 16)
    assert traced(generator) is None
    x, back = own.pull_back(np.ones((2, DIM), np.float32))
    np.testing.assert_allclose(x, Linear().images(jnp.ones((2, DIM))), atol=1e-5)
    slope = np.random.default_rng(1).standard_normal(x.shape).astype(np.float32)
    np.testing.assert_allclose(back(slope), slope.reshape(2, -1) @ BASIS.T, atol=1e-4)
    assert own_pull(generator) is not None


def test_weights_are_arguments_of_the_program_and_not_constants():
    planted = ConditionedGenerator(make_planted(), "layer1", {}, 16)
    function = traced(planted)
    z = planted.sample_latents(jax.random.key(0), 2)
    np.testing.assert_array_equal(function.pull(z)[0], planted.images(np.asarray(z)))
    black = [jnp.zeros_like(weight) for weight in function.weights]
    assert not np.any(np.asarray(function.images(black, z)))


def test_splitting_passes_over_devices_changes_nothing():
    planted = ConditionedGenerator(make_planted(), "layer1", {}, 4)
    encoder = Encoder(6, 16, 3, 2)
    params = encoder.init(jax.random.key(0))
    prior = prior_of(planted.sample_latents(jax.random.key(1), 64), only_direction=False)
    images = planted.images(np.zeros((2, 6), np.float32))
    found = [
        Inverter(generator, Search(encoder, 3), params, prior).invert(images).latents
        for generator in (planted, planted.over(data_mesh()))
    ]
    np.testing.assert_allclose(*found, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "architecture", "keywords"),
    [
        (
            "dcgan",
            {"latent_dim": 6, "widths": [8, 6], "num_classes": 3},
            {"condition": "1"},
        ),
        (
            "biggan_pytorch",
            {
                "latent_dim": 8,
                "num_classes": 5,
                "widths": [8, 4],
                "embedding_dim": 4,
                "hierarchical": True,
            },
            {"condition": "2"},
        ),
        (
            "stylegan",
            {
                "form": "genforce",
                "latent_dim": 8,
                "style_dim": 8,
                "mapping_widths": [8, 8],
                "depths": [8, 4],
            },
            {"truncation": 0.7, "truncation_layers": 2, "noise": "zeros"},
        ),
    ],
)
def test_a_converted_family_is_differentiated_with_its_keywords(family, architecture, keywords):
    gen = PretrainedGenerator(build_network(family, architecture))
    function = traced(ConditionedGenerator(gen, gen.layers[0], keywords, 2))
    z = gen.sample_latents(jax.random.key(0), 2)
    images, back = function.pull(z)
    np.testing.assert_allclose(images, gen.images(z, **keywords), atol=1e-5)
    slope = back(images)
    assert np.isfinite(slope).all()
    assert np.any(np.asarray(slope) != 0)
    other = traced(ConditionedGenerator(gen, gen.layers[0], keywords, 2))
    assert hash(other.images) == hash(function.images)
    assert other.images == function.images


def test_further_starts_never_make_latents_worse():
    generator, one = inverter(Linear(), num_steps=2)
    _, images = some_images(generator)
    found = one.invert(images)
    again = one.try_again(
        images, found, list(jax.random.split(jax.random.key(0), len(found.errors)))
    )
    assert (again.errors <= found.errors + 1e-6).all()


def test_an_image_s_further_start_does_not_depend_on_the_other_images():
    generator, one = inverter(Linear(), num_steps=2)
    _, images = some_images(generator)
    found = one.invert(images)
    keys = list(jax.random.split(jax.random.key(0), len(images)))
    together = one.try_again(images, found, keys).latents
    for i, key in enumerate(keys[:3]):
        part = Inverted(*(values[i : i + 1] for values in found))
        alone = one.try_again(images[i : i + 1], part, [key]).latents
        np.testing.assert_allclose(alone[0], together[i], atol=1e-4)


def test_found_latents_stay_in_the_range_of_the_prior():
    generator, one = inverter(Linear())
    found = one.invert(np.full((3, SIZE, SIZE, 3), 1.0, np.float32)).latents
    sample = np.asarray(generator.sample_latents(jax.random.key(9), 512))
    assert (np.linalg.norm(found, axis=1) <= np.linalg.norm(sample, axis=1).max() + 1e-5).all()
    assert (found <= sample.max(axis=0) + 1e-5).all()


@pytest.mark.parametrize("size", [4, 8, 28, 64, 100])
@pytest.mark.parametrize("norm", [None, 3.0])
def test_an_encoder_takes_images_of_any_size(size, norm):
    encoder = Encoder(5, size, 1, 2, norm=norm)
    params = jax.eval_shape(encoder.init, jax.random.key(0))
    images = jax.ShapeDtypeStruct((3, size, size, 1), jnp.float32)
    assert jax.eval_shape(encoder.latents, params, images).shape == (3, 5)


def test_training_an_encoder_lowers_its_loss():
    training = EncoderTraining(Encoder(DIM, SIZE, 3, 4), 60, 5e-3)
    state, losses = training.init(jax.random.key(0)), []
    for step in range(training.num_steps):
        z = Linear().sample_latents(jax.random.key(step), 32)
        state, loss = learn(state, z, Linear().images(z), training=training)
        losses.append(float(loss))
    assert np.mean(losses[-10:]) < 0.5 * losses[0]


def test_held_out_images_give_the_limits_and_the_rank_of_an_error():
    errors = np.arange(100, dtype=np.float32)
    none = np.zeros((100, 2), np.float32)
    held = HeldOut(none, none, none, errors, 2 * errors)
    limits = held.limits(0.9)
    assert limits == pytest.approx((94.05, 188.1))
    kept = limits.keeps(np.float32([94, 94, 95]), np.float32([188, 189, 0]))
    assert kept.tolist() == [True, False, False]
    # Of its own images, at most the requested share is rejected.
    assert held.limits(0.9).keeps(errors, 2 * errors[::-1]).mean() >= 0.9
    assert held.share_below(np.float32([0, 50, 1000])).tolist() == [0, 0.5, 1]


def test_margins_are_judged_by_their_nearest():
    known = np.float32([0.1, 5, 0.2, 6])
    right = np.array([False, True, True, True])
    assert num_right(np.float32([0.0, 9]), known, right).tolist() == [3, 3]


def test_the_loss_is_twice_the_pixel_distance_plus_the_weighted_feature_distance():
    encoder = Encoder(DIM, SIZE, 3, 4)
    params, search = encoder.init(jax.random.key(1)), Search(encoder, feature_weight=0.5)
    images = jax.random.uniform(jax.random.key(2), (3, SIZE, SIZE, 3), jnp.float32, -0.5, 0.5)
    other = images.at[1].add(0.25).at[2, :4].set(0.0)
    prior = prior_of(jnp.ones((1, DIM), jnp.float32), only_direction=False)
    target = Target(images, features_of(params, images, search=search), params, prior)
    pixels = np.abs(other - images).mean(axis=(1, 2, 3))
    features = (encoder.features(params, x) for x in (other, images))
    difference = np.square(np.subtract(*features)).mean(axis=1)
    assert difference[2] > 0.01
    loss = losses(other, target, search=search)
    np.testing.assert_allclose(loss, pixels + 0.5 * difference, rtol=1e-4, atol=1e-6)
