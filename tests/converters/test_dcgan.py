"""DCGAN files of both origins: what `tests.test_parity` does not compare."""

import numpy as np
import pytest

from cgjax.generators.weights import named_arrays
from converters.__main__ import convert
from tests.golden_cases import TOLERANCE, error, load_golden, run_everything

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("name", ["dcgan_examples_a", "dcgan_zoo_a"])
def test_resuming_equals_the_whole_pass_from_every_layer(name, tmp_path):
    golden = load_golden(name)
    gen = convert("dcgan", golden.checkpoint, tmp_path / "out")
    _, resumed = run_everything(gen, golden.arrays["z"].reshape(-1, gen.latent_dim))
    assert set(resumed) == set(gen.layers)
    for image in resumed.values():
        assert error(image, golden.arrays["image"]) < TOLERANCE


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
