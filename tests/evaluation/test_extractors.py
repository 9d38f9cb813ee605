"""Extractors are fixed, named, and independent of the batch."""

import jax.numpy as jnp
import numpy as np
import pytest

from cgjax.errors import UserError
from cgjax.evaluation import extractors, image_batches


def small_images(n: int, channels: int = 3) -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.uniform(-1, 1, size=(n, 16, 16, channels)).astype(np.float32)


def test_pca_pixels_is_the_named_pca_of_the_flattened_images():
    images = small_images(60)
    extractor = extractors.pca_pixels(images, 7)
    assert (extractor.name, extractor.input) == ("pca7_pixels", "images")
    want = extractors.fit_pca(images.reshape(60, -1), 7).project(images.reshape(60, -1))
    np.testing.assert_array_equal(extractor(images), want)


def test_random_cnn_rows_do_not_depend_on_their_batch():
    images = small_images(11)
    whole = extractors.RandomCnn(batch_size=16)(images)
    parts = extractors.RandomCnn(batch_size=4)(images)
    # Another batch size is another compiled program: equal up to the order of sums.
    np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-6)
    assert whole.shape == (11, 2 * (16 + 32 + 64 + 96))


def test_random_cnn_sees_fewer_images_at_a_time_if_they_are_large(monkeypatch):
    monkeypatch.setattr(image_batches, "SIDE", 8)  # of images that are not large
    seen: list[int] = []
    random_cnn = extractors.RandomCnn(batch_size=16)
    forward = random_cnn._forward
    random_cnn._forward = lambda kernels, x: (seen.append(len(x)), forward(kernels, x))[1]
    assert random_cnn(small_images(6)).shape[0] == 6
    assert seen == [4, 4]


def test_random_cnn_is_fixed_by_its_seed():
    images = small_images(3)
    first = extractors.RandomCnn()
    np.testing.assert_array_equal(first(images), extractors.RandomCnn()(images))
    other = extractors.RandomCnn(seed=1)
    assert other.name != first.name
    assert np.abs(other(images) - first(images)).max() > 0.01
    # These weights must never change, or old tables are no longer comparable.
    np.testing.assert_allclose(
        first.kernels[0][0, 0, 0, :2], np.array([1.764052, 0.400157]) * np.sqrt(2 / 27), rtol=1e-5
    )


def test_random_cnn_takes_grey_images_and_refuses_others():
    assert extractors.RandomCnn()(small_images(2, channels=1)).shape[0] == 2
    with pytest.raises(UserError, match=r"\(n, h, w, channels\)"):
        extractors.RandomCnn()(np.zeros((2, 16, 16, 5), np.float32))


class DoublingGenerator:
    def features(self, latents, layer, *, truncation=1.0):
        assert layer == "layer1"
        return jnp.tile(latents[:, None, None, :] * (2.0 * truncation), (1, 2, 2, 1))


def test_generator_layer_flattens_batches_and_passes_options():
    latents = np.arange(15, dtype=np.float32).reshape(5, 3)
    doubling = DoublingGenerator()
    extractor = extractors.GeneratorLayer(doubling, "layer1", batch_size=2, truncation=0.5)
    assert (extractor.name, extractor.input) == ("generator_layer1", "latents")
    np.testing.assert_array_equal(extractor(latents), np.tile(latents, (1, 4)))
    assert extractors.Projected.fit(extractor, latents, 2).name == "pca2_generator_layer1"


@pytest.mark.parametrize(
    "extractor",
    [
        extractors.Pixels(),
        extractors.RandomCnn(),
        extractors.GeneratorLayer(DoublingGenerator(), "layer1"),
    ],
)
def test_every_extractor_follows_the_protocol(extractor):
    assert isinstance(extractor, extractors.FeatureExtractor)
