"""BigGAN-deep: conditions, truncation's statistics, and what the tensors do not determine."""

import json
import shutil

import jax
import numpy as np
import pytest
import torch

from cgjax.errors import UserError
from cgjax.generators.biggan import statistics_rows
from cgjax.runtime.files import sha256_of
from converters.__main__ import convert
from tests.golden_cases import TOLERANCE, error, load_golden, run_everything

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def golden():
    return load_golden("biggan_deep_a")


@pytest.fixture(scope="module")
def gen(golden, tmp_path_factory):
    return convert("biggan", golden.checkpoint, tmp_path_factory.mktemp("biggan") / "out")


def test_resuming_equals_the_whole_pass_from_every_layer(golden, gen):
    z, classes = golden.arrays["z"], golden.arrays["class_vector"]
    activations, resumed = run_everything(gen, z, condition=classes, truncation=0.4)
    assert set(resumed) == set(gen.layers)
    image = np.asarray(activations["image"]).transpose(0, 3, 1, 2)
    for layer in gen.layers:
        assert error(resumed[layer], image) < TOLERANCE


def test_the_public_calls_equal_the_reference(golden, gen):
    z, classes = golden.arrays["z"], golden.arrays["class_vector"]
    keywords = {"condition": classes, "truncation": 0.4}
    assert gen.layers[:2] == ("gen_z", "layers_00")
    assert error(gen.features(z, "gen_z", **keywords), golden.arrays["t0_gen_z"]) < TOLERANCE
    h = gen.features(z, "layers_03", **keywords)
    assert error(h, golden.arrays["t0_act_layers_03"]) < TOLERANCE
    image = gen.resume(h, "layers_03", latents=z, **keywords)
    assert error(image, golden.arrays["t0_image"]) < TOLERANCE


def test_a_class_id_is_its_one_hot_vector(golden, gen):
    z = golden.arrays["z"][:1]
    one_hot = np.eye(10, dtype=np.float32)[[3]]
    np.testing.assert_array_equal(
        gen.images(z, condition=3, truncation=0.4), gen.images(z, condition=one_hot, truncation=0.4)
    )


def test_without_a_class_or_with_a_wrong_truncation_it_refuses(golden, gen):
    z = golden.arrays["z"]
    with pytest.raises(UserError, match="needs a class"):
        gen.images(z)
    for t in (0, 1.5, -0.1, "half"):
        with pytest.raises(UserError, match=r"\(0, 1\]"):
            gen.images(z, condition=1, truncation=t)
    with pytest.raises(UserError, match="takes no 'noise'"):
        gen.images(z, condition=1, noise="zeros")
    with pytest.raises(UserError, match="needs latents=z"):
        gen.resume(gen.features(z, "layers_00", condition=1), "layers_00", condition=1)


def test_truncation_scales_drawn_latents_but_not_given_ones(golden, gen):
    key = jax.random.key(0)
    whole, scaled = gen.sample_latents(key, 500), gen.sample_latents(key, 500, truncation=0.4)
    np.testing.assert_allclose(scaled, 0.4 * np.asarray(whole), rtol=1e-6)
    assert np.abs(np.asarray(whole)).max() <= 2
    assert np.abs(np.asarray(whole)).max() > 1.5
    z = golden.arrays["z"]
    first = gen.features(z, "gen_z", condition=1, truncation=0.2)
    np.testing.assert_array_equal(first, gen.features(z, "gen_z", condition=1, truncation=0.9))


@pytest.mark.parametrize(
    ("t", "row"), [(0.02, 1), (0.4, 20), (1.0, 50), (0.14, 7), (0.28, 14), (0.56, 28)]
)
def test_statistics_are_looked_up_in_doubles_as_the_reference_does(t, row):
    rows, weights = statistics_rows(t, 51)
    # Where the quotient misses its integer from above, the reference takes the next row.
    assert rows[0] == row
    mixed = weights[0] * rows[0] + weights[1] * rows[1]
    expected = row + 1 if t in (0.14, 0.28, 0.56) else row
    assert mixed == pytest.approx(expected, abs=1e-6)


def test_interpolated_statistics_have_the_weights_exchanged():
    rows, weights = statistics_rows(0.435, 51)
    assert rows == (21, 22)
    np.testing.assert_allclose(weights, (0.75, 0.25), atol=1e-9)


def _copy(golden, folder, change=None):
    folder.mkdir(exist_ok=True)
    path = folder / "pytorch_model.bin"
    state = torch.load(golden.checkpoint, map_location="cpu", weights_only=True)
    if change:
        change(state)
    torch.save(state, path)
    return path


def test_without_a_config_an_unpublished_layout_asks_for_it(golden, tmp_path):
    path = _copy(golden, tmp_path)
    with pytest.raises(UserError, match="--set config=PATH"):
        convert("biggan", path, tmp_path / "out")
    config = golden.checkpoint.with_name("config.json")
    gen = convert("biggan", path, tmp_path / "out", {"config": str(config)})
    assert gen.image_size == 32


def test_every_file_that_was_read_is_on_record_with_its_hash(golden, gen):
    config = golden.checkpoint.with_name("config.json")
    assert gen.manifest["source"]["companions"] == [
        {"name": "config.json", "sha256": sha256_of(config)}
    ]


def test_another_model_s_config_is_refused(golden, tmp_path):
    path = _copy(golden, tmp_path)
    config = json.loads(golden.checkpoint.with_name("config.json").read_text())
    config["layers"] = config["layers"][:-1]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="another model's config"):
        convert("biggan", path, tmp_path / "out")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"not a config\.json"):
        convert("biggan", path, tmp_path / "out")


def test_files_of_torch_1_0_without_the_second_vector_convert(golden, tmp_path):
    # One power step from a u that is already the dominant one changes nothing: set it so.
    def dominant(state):
        for name in [n for n in state if n.endswith(".weight_orig")]:
            weight = state[name].reshape(len(state[name]), -1).double()
            left, _, right = torch.linalg.svd(weight, full_matrices=False)
            base = name.removesuffix("weight_orig")
            state[f"{base}weight_u"], state[f"{base}weight_v"] = (
                left[:, 0].float(),
                right[0].float(),
            )

    def without_v(state):
        dominant(state)
        for name in [n for n in state if n.endswith(".weight_v")]:
            del state[name]

    config = {"config": str(golden.checkpoint.with_name("config.json"))}
    z = golden.arrays["z"]
    images = [
        convert("biggan", _copy(golden, tmp_path / n, change), tmp_path / n / "o", config).images(
            z, condition=2
        )
        for n, change in (("with", dominant), ("without", without_v))
    ]
    np.testing.assert_allclose(*images, atol=1e-5)


def test_a_hugging_face_folder_converts(golden, tmp_path):
    source = tmp_path / "model"
    source.mkdir()
    for path in (golden.checkpoint, golden.checkpoint.with_name("config.json")):
        shutil.copy(path, source)
    gen = convert("biggan", source, tmp_path / "out")
    image = gen.images(golden.arrays["z"], condition=golden.arrays["class_vector"], truncation=0.4)
    assert error(image, golden.arrays["t0_image"]) < TOLERANCE
