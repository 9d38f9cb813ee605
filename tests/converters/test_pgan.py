"""PGAN files of all three origins: what `tests.test_parity` does not compare."""

import numpy as np
import pytest

from converters.__main__ import convert
from tests.golden_cases import TOLERANCE, error, load_golden, run_everything

pytestmark = pytest.mark.torch

# What the tensors of a fixture do not determine.
SETTINGS = {"pggan_genforce_b": {"fused_scale": "true", "final_tanh": "true"}}
NAMES = ("pgan_zoo_a", "pgan_zoo_b", "pggan_genforce_a", "pggan_genforce_b", "pggan_netdissect_a")


@pytest.fixture(params=NAMES, scope="module")
def case(request, tmp_path_factory):
    golden = load_golden(request.param)
    settings = SETTINGS.get(request.param, {})
    gen = convert("pgan", golden.checkpoint, tmp_path_factory.mktemp("pgan") / "out", settings)
    return golden, gen, run_everything(gen, golden.arrays["z"])


def test_resuming_equals_the_whole_pass_from_every_layer_it_can(case):
    golden, gen, (_, resumed) = case
    if not gen.network.blend:
        assert set(resumed) == set(gen.layers)
    assert len(resumed) >= 4
    for image in resumed.values():
        assert error(image, golden.arrays["image"]) < TOLERANCE


def test_only_the_direction_of_a_latent_matters(case):
    golden, gen, (activations, _) = case
    assert gen.normalizes_latent
    for layer in (gen.layers[0], gen.layers[3]):
        h = gen.features(3 * golden.arrays["z"], layer)
        np.testing.assert_allclose(h, activations[layer], atol=1e-4)


def test_a_whole_level_of_detail_leaves_a_resolution_out_and_doubles_the_image(tmp_path):
    golden = load_golden("pggan_genforce_b")
    settings = {**SETTINGS["pggan_genforce_b"], "lod": "1"}
    gen = convert("pgan", golden.checkpoint, tmp_path / "out", settings)
    x = np.asarray(gen.images(golden.arrays["z"]))
    assert gen.image_size == 16
    assert gen.layers[-1] == "layer3_pn"
    expected = np.tanh(golden.arrays["rgb_output1"]).repeat(2, 2).repeat(2, 3)
    assert error(x, expected) < TOLERANCE
