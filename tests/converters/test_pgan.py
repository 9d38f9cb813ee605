"""PGAN files of all three origins convert to networks that equal the reference."""

import numpy as np
import pytest
from converters.__main__ import convert

from cgjax.errors import UserError
from tests.golden_cases import TOLERANCE, error, load_golden

pytestmark = pytest.mark.torch

# What the tensors of a fixture do not tell.
SETTINGS = {"pggan_genforce_b": {"fused_scale": "true", "final_tanh": "true"}}
NAMES = ("pgan_zoo_a", "pgan_zoo_b", "pggan_genforce_a", "pggan_genforce_b", "pggan_netdissect_a")


@pytest.fixture(params=NAMES)
def case(request, tmp_path):
    golden = load_golden(request.param)
    settings = SETTINGS.get(request.param, {})
    return golden, convert("pgan", golden.checkpoint, tmp_path / "out", settings)


def test_every_layer_and_the_image_equal_the_reference(case):
    golden, gen = case
    z = golden.arrays["z"]
    layers = [name[4:] for name in golden.arrays if name.startswith("act_")]
    assert set(layers) <= set(gen.layers)
    for layer in layers:
        assert error(gen.features(z, layer), golden.arrays[f"act_{layer}"]) < TOLERANCE
    assert error(gen.images(z), golden.arrays["image"]) < TOLERANCE


def test_resuming_equals_the_whole_pass_from_every_layer_it_can(case):
    golden, gen = case
    z = golden.arrays["z"]
    resumed = 0
    for layer in gen.layers:
        h = gen.features(z, layer)
        try:
            image = gen.resume(h, layer)
        except UserError as refusal:
            assert golden.meta.get("alpha") or golden.meta.get("lod")
            assert "blends in" in str(refusal)
            continue
        resumed += 1
        assert error(image, golden.arrays["image"]) < TOLERANCE
    assert resumed >= 4


def test_only_the_direction_of_a_latent_matters(case):
    golden, gen = case
    z = golden.arrays["z"]
    layer = gen.layers[-1]
    assert gen.normalizes_latent
    np.testing.assert_allclose(gen.features(3 * z, layer), gen.features(z, layer), atol=1e-4)


def test_level_of_detail_can_be_overridden(tmp_path):
    golden = load_golden("pggan_genforce_b")
    settings = {**SETTINGS["pggan_genforce_b"], "lod": "0"}
    gen = convert("pgan", golden.checkpoint, tmp_path / "out", settings)
    assert error(gen.images(golden.arrays["z"]), golden.arrays["image_lod0"]) < TOLERANCE


def test_a_whole_level_of_detail_leaves_a_resolution_out_and_doubles_the_image(tmp_path):
    golden = load_golden("pggan_genforce_b")
    settings = {**SETTINGS["pggan_genforce_b"], "lod": "1"}
    gen = convert("pgan", golden.checkpoint, tmp_path / "out", settings)
    x = np.asarray(gen.images(golden.arrays["z"]))
    assert gen.image_size == 16
    assert gen.layers[-1] == "layer3_pn"
    expected = np.tanh(golden.arrays["rgb_output1"]).repeat(2, 2).repeat(2, 3)
    assert error(x, expected) < TOLERANCE


def test_the_other_copy_of_the_generator_is_not_taken(tmp_path):
    for name, other in (("pgan_zoo_a", "image_netG"), ("pggan_genforce_a", "image_generator")):
        golden = load_golden(name)
        gen = convert("pgan", golden.checkpoint, tmp_path / name)
        assert error(gen.images(golden.arrays["z"]), golden.arrays[other]) > 0.01
