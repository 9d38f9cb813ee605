"""The variants of DCGAN's first layer; tests/converters compares the other layers with torch."""

import jax
import numpy as np

from cgjax.generators.base import PretrainedGenerator
from cgjax.generators.families import abstract_network, build_network
from cgjax.generators.weights import named_arrays

TINY = {"latent_dim": 6, "widths": [8, 6, 4]}


def names(**changes):
    return set(named_arrays(abstract_network("dcgan", {**TINY, **changes})))


def test_a_plain_first_layer_is_dense_with_a_bias_per_pixel_and_channel():
    network = build_network("dcgan", {**TINY, "plain_first": True})
    rng = np.random.default_rng(0)
    first, bias = (rng.normal(size=n).astype(np.float32) for n in ((6, 4, 4, 8), (4, 4, 8)))
    network.first[...], network.first_bias[...] = first, bias
    gen = PretrainedGenerator(network)
    z = np.asarray(gen.sample_latents(jax.random.key(0), 5))
    expected = np.tensordot(z, first, 1) + bias
    assert (expected < 0).any()
    np.testing.assert_allclose(gen.features(z, "layer1"), expected, atol=1e-5)
    assert (np.asarray(gen.features(z, "layer2")) >= 0).all()


def test_a_class_vector_selects_or_mixes_first_layers():
    changes = {"plain_first": True, "num_classes": 3, "per_class": True}
    network = build_network("dcgan", {**TINY, **changes})
    first = np.random.default_rng(0).normal(size=(3, 7, 4, 4, 8)).astype(np.float32)
    network.first[...] = first.reshape(network.first.shape)
    network.first_bias[...] = np.zeros(network.first_bias.shape, np.float32)
    gen = PretrainedGenerator(network)
    z = np.asarray(gen.sample_latents(jax.random.key(0), 5))
    of_class = [np.tensordot(z, own[:-1], 1) + own[-1] for own in first]
    np.testing.assert_allclose(gen.features(z, "layer1", condition=2), of_class[2], atol=1e-5)
    mixed = gen.features(z, "layer1", condition=np.array([0.25, 0.75, 0], np.float32))
    np.testing.assert_allclose(mixed, 0.25 * of_class[0] + 0.75 * of_class[1], atol=1e-5)
    # SeFa's weights: the rows that read the latent, concatenated over classes.
    expected = np.concatenate([own[:-1].reshape(6, -1) for own in first], axis=1)
    np.testing.assert_array_equal(network.latent_weights(), expected)


def test_a_plain_first_layer_has_a_bias_in_place_of_the_first_batch_norm():
    assert names() == {
        *("first", "kernels.0", "kernels.1", "output"),
        *(f"{kind}.{i}" for kind in ("scales", "shifts") for i in range(3)),
    }
    assert names() - names(plain_first=True) == {"scales.2", "shifts.2"}
    assert names(plain_first=True) - names() == {"first_bias"}
