"""DCGAN files convert to networks that equal the reference, layer by layer."""

import numpy as np
import pytest
from converters.__main__ import convert

from cgjax.generators.weights import named_arrays
from tests.golden_cases import TOLERANCE, error, load_golden

pytestmark = pytest.mark.torch

CASES = {
    "dcgan_examples_a": [f"act_main_{i:02d}" for i in (2, 5, 8, 11)],
    "dcgan_zoo_a": [f"act_relu{i}" for i in range(4)],
}


@pytest.mark.parametrize("name", CASES)
def test_every_layer_and_the_image_equal_the_reference(name, tmp_path):
    golden = load_golden(name)
    gen = convert("dcgan", golden.checkpoint, tmp_path / "out")
    z = golden.arrays["z"].reshape(-1, gen.latent_dim)
    for layer, array in zip(gen.layers, CASES[name], strict=True):
        assert error(gen.features(z, layer), golden.arrays[array]) < TOLERANCE
        h = gen.features(z, layer)
        assert error(gen.resume(h, layer), golden.arrays["image"]) < TOLERANCE
    assert error(gen.images(z), golden.arrays["image"]) < TOLERANCE


def test_float16_storage_rounds_every_weight_and_nothing_more(tmp_path):
    golden = load_golden("dcgan_examples_a")
    full = named_arrays(convert("dcgan", golden.checkpoint, tmp_path / "full").network)
    half = named_arrays(
        convert("dcgan", golden.checkpoint, tmp_path / "half", dtype="float16").network
    )
    for name, exact in full.items():
        rounded = np.asarray(exact).astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(np.asarray(half[name]), rounded)


def test_tanh_can_be_turned_off(tmp_path):
    golden = load_golden("dcgan_examples_a")
    gen = convert("dcgan", golden.checkpoint, tmp_path / "out", {"tanh": "false"})
    z = golden.arrays["z"].reshape(-1, gen.latent_dim)
    assert error(gen.images(z), golden.arrays["conv_main_12"]) < TOLERANCE
    assert np.abs(np.asarray(gen.images(z))).max() > 1
