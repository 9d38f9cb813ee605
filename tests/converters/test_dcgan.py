"""DCGAN files convert to networks that equal the reference, layer by layer."""

import numpy as np
import pytest

from cgjax.generators.weights import named_arrays
from converters.__main__ import convert
from tests.golden_cases import TOLERANCE, error, load_golden, run_everything

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
    activations, resumed = run_everything(gen, z)
    assert error(activations["image"], golden.arrays["image"]) < TOLERANCE
    for layer, array in zip(gen.layers, CASES[name], strict=True):
        assert error(activations[layer], golden.arrays[array]) < TOLERANCE
        assert error(resumed[layer], golden.arrays["image"]) < TOLERANCE


def test_the_public_calls_equal_the_reference(tmp_path):
    golden = load_golden("dcgan_zoo_a")
    gen = convert("dcgan", golden.checkpoint, tmp_path / "out")
    h = gen.features(golden.arrays["z"], "layer2")
    assert error(h, golden.arrays["act_relu1"]) < TOLERANCE
    assert error(gen.resume(h, "layer2"), golden.arrays["image"]) < TOLERANCE
    assert error(gen.images(golden.arrays["z"]), golden.arrays["image"]) < TOLERANCE


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
