"""Distances to the true members: their feature, their name and their uncertainty."""

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from cgjax.config import plain as configuration
from cgjax.errors import UserError
from cgjax.evaluation import fidelity, image_batches
from cgjax.evaluation.distances import frechet_floor
from cgjax.evaluation.extractors import Pixels
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.generators.registry import load_generator
from cgjax.numerics.intervals import wilson_interval
from configs import common, tiny
from tests.evaluation.test_inception import random_tensors

OWN = "tests.endtoend.coloured:brightness"


@pytest.fixture(scope="module")
def generator() -> ConditionedGenerator:
    return ConditionedGenerator(load_generator(tiny.get_config().generator.name), "layer1", {}, 32)


def settings(features: str) -> dict:
    return {**configuration.to_plain(common.get_config())["evaluate"], "features": features}


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ("fid", "expected pca_pixels, random_cnn, layer:NAME, inception:FILE or package"),
        ("random_cnn:3", "expected pca_pixels"),
        ("layer:layer9", "try --config.evaluate.features=layer:layer"),
        ("inception:nowhere.safetensors", "no file nowhere.safetensors"),
    ],
)
def test_an_unavailable_feature_is_refused_before_any_work(features, message, generator):
    with pytest.raises(UserError, match=message):
        fidelity.check_features(settings(features), 5000, generator)


@pytest.mark.parametrize("features", ["pca_pixels", "layer:layer1"])
def test_more_components_than_features_are_refused_before_any_work(features, generator):
    asked = settings(features)
    if features == "pca_pixels":
        width = int(np.prod(generator.image_shape))
    else:
        latent = np.zeros((1, generator.gen.latent_dim), np.float32)
        width = generator.at_layer("layer1").all_features(latent).shape[1]
    fidelity.check_components(asked | {"components": width}, generator)
    for wrong in (
        {"components": width + 1},
        {"components": width, "prior_images": width},
    ):
        with pytest.raises(UserError, match=rf"components={wrong['components']}: expected at most"):
            fidelity.check_components(asked | wrong, generator)


def test_an_fid_of_fewer_images_than_features_is_refused(tmp_path, generator):
    path = tmp_path / "inception.safetensors"
    path.touch()
    with pytest.raises(UserError, match=r"evaluate\.features=inception:.* not a safetensors file"):
        fidelity.check_features(settings(f"inception:{path}"), 2048, generator)
    save_file(random_tensors(), path)
    with pytest.raises(UserError, match=r"evaluate\.num .* at least 2048"):
        fidelity.check_features(settings(f"inception:{path}"), 1000, generator)
    fidelity.check_features(settings(f"inception:{path}"), 2048, generator)


@pytest.mark.parametrize(
    ("features", "name", "dim"),
    [
        ("pca_pixels", "Frechet distance in pca3_pixels", 3),
        ("layer:layer1", "Frechet distance in pca3_generator_layer1", 3),
        ("random_cnn", "Frechet distance in random_cnn", 416),
        (OWN, f"Frechet distance in {OWN}", 3),
    ],
)
def test_a_distance_names_its_feature_and_is_not_called_fid(features, name, dim, generator):
    fidelity.check_features(settings(features), 64, generator)
    prior = np.asarray(generator.sample_latents(jax.random.key(0), 40))
    extractor = fidelity.make_extractor(features, generator, prior, 3)
    assert fidelity.distance_name(extractor) == name
    batch = prior if extractor.input == "latents" else generator.images(prior)
    assert extractor(batch).shape == (40, dim)


@pytest.mark.parametrize("features", ["pca_pixels", "layer:layer1"])
def test_draws_too_large_to_hold_give_nearly_the_same_distance(features, generator, monkeypatch):
    key_prior, *keys = jax.random.split(jax.random.key(0), 3)
    prior, *sets = (
        np.asarray(generator.sample_latents(key, num))
        for key, num in zip((key_prior, *keys), (320, 200, 200), strict=True)
    )

    def distance():
        extractor = fidelity.make_extractor(features, generator, prior, 3)
        shifted = [np.abs(sets[0]), sets[1]]
        return fidelity.distance_to(*(fidelity.extract(generator, extractor, z) for z in shifted))

    held, sizes, fit = distance(), [], fidelity.fit_pca_in_blocks

    def in_blocks(blocks, num):
        return fit((sizes.append(len(block)) or block for block in blocks), num)

    monkeypatch.setattr(fidelity, "fit_pca_in_blocks", in_blocks)
    monkeypatch.setattr(fidelity, "MOST_HELD", 0)
    monkeypatch.setattr(fidelity, "images_at_a_time", lambda *_: 32)
    # Found: 3e-5, from what six components leave of a block of 32 images.
    assert distance() == pytest.approx(held, rel=1e-3)
    assert sum(sizes) == len(prior)
    if features == "pca_pixels":
        assert max(sizes) == max(32, generator.batch)


def test_the_interval_covers_the_distance_and_narrows_with_more_samples():
    rng = np.random.default_rng(0)
    widths = []
    for num in (100, 1600):
        a, b, c = (rng.normal(size=(num, 3)).astype(np.float32) for _ in range(3))
        distance = fidelity.distance_to(a + 1.0, b, c)
        interval = fidelity.distance_interval(a + 1.0, b, c)
        assert interval.low < distance < interval.high
        assert interval.low < 3.0 < interval.high  # three coordinates, each shifted by 1
        widths.append(interval.high - interval.low)
    assert widths[1] < 0.5 * widths[0]


class Itself:
    """The latents themselves as a feature."""

    name, input = "itself", "latents"

    def __call__(self, batch):
        return np.asarray(batch, np.float32)


CROSS = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], np.float32)


def shifted(by: float) -> np.ndarray:
    return CROSS + np.array([by, 0], np.float32)


def test_draws_are_measured_against_both_halves_of_the_members(generator):
    line = np.array([[2, 0], [-2, 0], [2, 0], [-2, 0]], np.float32)
    # Features and latents of the members differ, so that each number has one source.
    features, latents = np.concatenate([shifted(0), shifted(4)]), np.concatenate([line, 4 * CROSS])
    reference = fidelity.Reference(
        Itself(), {0: features * 9, 1: features}, {0: latents * 9, 1: latents}, {0: 7.0, 1: 0.5}
    )
    drawn = fidelity.SamplerDraws(
        verified=shifted(2), plain=shifted(1), raw=CROSS, acceptance=0.25, inside=3
    )
    row = fidelity.measure(drawn, reference, 1, generator)
    assert tuple(row) == fidelity.MEASURED
    assert row["frechet"] == pytest.approx((1**2 + 3**2) / 2)
    assert row["frechet_verified"] == pytest.approx((2**2 + 2**2) / 2)
    interval = fidelity.distance_interval(shifted(1), shifted(0), shifted(4))
    assert row["frechet_interval"] == list(interval)
    assert row["frechet_floor"] == 0.5
    assert row["acceptance"] == 0.25
    assert row["membership"] == 0.75
    assert row["membership_interval"] == list(wilson_interval(3, 4))
    assert row["norm_ratio"] == pytest.approx(1 / 3)  # over all members: half have norm 2, half 4
    assert row["effective_rank"] == pytest.approx(2.0)  # over as many: they are on a line


def test_every_cluster_has_its_own_members_and_a_floor_from_many_splits(generator):
    drawn = np.asarray(generator.sample_latents(jax.random.key(1), 32))
    members = {0: drawn[:16], 2: drawn[16:]}  # cluster 1 is left out
    settings = fidelity.ReferenceSettings("layer:layer1", 2, 16)
    reference = fidelity.make_reference(generator, members, jax.random.key(0), settings)
    assert reference.features.keys() == reference.floors.keys() == members.keys()
    for c, latents in members.items():
        features, floor = reference.features[c], reference.floors[c]
        np.testing.assert_array_equal(
            features, fidelity.extract(generator, reference.extractor, latents)
        )
        few, many = (frechet_floor(features, num_splits=num) for num in (1, 8))
        assert floor == many != few


class Counting(Pixels):
    def __init__(self):
        self.seen = []

    def __call__(self, images):
        self.seen.append(len(images))
        return super().__call__(images)


@pytest.mark.parametrize(("side", "at_once"), [(256, [80]), (1, [32, 32, 16])])
def test_features_of_large_images_are_extracted_a_batch_at_a_time(
    side, at_once, generator, monkeypatch
):
    monkeypatch.setattr(image_batches, "SIDE", side)  # of images that are not large
    latents = np.asarray(generator.sample_latents(jax.random.key(1), 80))
    pixels = Counting()
    np.testing.assert_array_equal(
        fidelity.extract(generator, pixels, latents), Pixels()(generator.images(latents))
    )
    assert pixels.seen == at_once
