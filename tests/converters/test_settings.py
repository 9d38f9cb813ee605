"""Values of a file's config and of --set are checked by type, and refused in one line."""

import contextlib
import json

import numpy as np
import pytest
import torch

from cgjax.errors import UserError
from converters.__main__ import convert, layouts_of
from converters.biggan import convert as convert_biggan
from converters.networks import find_networks
from converters.reading import Checkpoint, read_checkpoint
from converters.settings import Settings
from tests.converters.files import CASES, load, write
from tests.golden_cases import load_golden

pytestmark = pytest.mark.torch

NOTHING = object()


@pytest.mark.parametrize(
    ("value", "default", "expected"),
    [
        ("False", True, False),
        ("false", True, False),
        ("0", True, False),
        (0, True, False),
        (0.0, True, False),
        (np.False_, True, False),
        (np.zeros(()), True, False),
        ("True", False, True),
        (1, False, True),
        (None, True, True),
        (2, True, NOTHING),
        (0.5, True, NOTHING),
        ("", True, NOTHING),
        ("off the wall", True, NOTHING),
        ([], True, NOTHING),
        ([False], True, NOTHING),
        (float("nan"), True, NOTHING),
        (3, 0, 3),
        (3.0, 0, 3),
        ("3", 0, 3),
        (True, 0, NOTHING),
        (3.5, 0, NOTHING),
        ("3.5", 0, NOTHING),
        (float("inf"), 0, NOTHING),
        (10**400, 0.0, NOTHING),
        (1, 0.5, 1.0),
        ("0.25", 0.5, 0.25),
        (np.float32(0.25), 0.5, 0.25),
        (False, 0.5, NOTHING),
        ("nan", 0.5, NOTHING),
        (float("-inf"), 0.5, NOTHING),
        (np.zeros(2), 0.5, NOTHING),
        ({"a": 1}, 0.5, NOTHING),
        ("MSE", "DCGAN", "MSE"),
        (5, "DCGAN", NOTHING),
        (True, "DCGAN", NOTHING),
        (b"MSE", "DCGAN", NOTHING),
    ],
)
def test_a_value_of_the_file_s_config_is_taken_by_its_type(value, default, expected):
    settings = Settings({}, {"name": value})
    if expected is NOTHING:
        with pytest.raises(UserError, match=r"config has name=.*expected.*--set name=") as caught:
            settings.get("name", default)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 250
    else:
        found = settings.get("name", default)
        assert found == expected
        assert type(found) is type(default)


@pytest.mark.parametrize(
    ("text", "default", "keywords"),
    [
        ("nan", 0.5, {}),
        ("inf", 0.5, {}),
        ("1e999", 0.5, {}),
        ("half", 0.5, {}),
        ("-1", 0.5, {"low": 0}),
        ("2", 0.5, {"low": 0, "high": 1}),
        ("maybe", True, {}),
        ("1.5", 1, {}),
        ("sideways", "auto", {"words": ("auto", "true")}),
    ],
)
def test_a_given_value_of_another_type_or_range_is_refused(text, default, keywords):
    with pytest.raises(UserError, match=f"--set name={text}: expected"):
        Settings({"name": text}).get("name", default, **keywords)


def test_words_are_taken_in_any_case():
    assert Settings({"loss": "dcgan"}).get("loss", "MSE", words=("MSE", "DCGAN")) == "DCGAN"


ZOO = {"dcgan_zoo_a": "dcgan", "pgan_zoo_a": "pgan", "stylegan_zoo_a": "stylegan"}
WRONG = [
    {"lossCriterion": "Hinge"},
    {"lossCriterion": 5},
    {"categoryVectorDim": "three"},
    {"categoryVectorDim": -1},
    {"categoryVectorDim": 10**6},
    {"categoryVectorDim": [3]},
    {"attribKeysOrder": ["a"]},
    {"attribKeysOrder": 7},
    {"attribKeysOrder": {"a": 3}},
    {"attribKeysOrder": {"a": {"order": "first", "values": [1]}}},
    {"attribKeysOrder": {"a": {"order": 0, "values": 5}}},
    {"attribKeysOrder": {"a": {"order": 0, "values": [1, 2]}}, "categoryVectorDim": 3},
]


@pytest.mark.parametrize("change", WRONG, ids=str)
@pytest.mark.parametrize("name", ZOO)
def test_a_zoo_config_of_wrong_types_is_refused_in_one_line(name, change, tmp_path):
    content = load(name)
    content["config"] = {**content["config"], **change}
    with pytest.raises(UserError) as caught:
        convert(ZOO[name], write(tmp_path / "f.pth", content), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert next(iter(change)) in str(caught.value)


@pytest.mark.parametrize("config", [5, "text", [1], torch.zeros(3), True], ids=type)
@pytest.mark.parametrize("name", ZOO)
def test_a_zoo_config_that_is_not_a_mapping_is_refused_in_one_line(name, config, tmp_path):
    path = write(tmp_path / "f.pth", {**load(name), "config": config})
    with pytest.raises(UserError, match=r"the file's config is .*, expected names with values"):
        convert(ZOO[name], path, tmp_path / "out")


def test_a_zoo_file_without_a_config_has_the_defaults(tmp_path):
    content = {**load("pgan_zoo_a"), "config": None}
    convert("pgan", write(tmp_path / "f.pth", content), tmp_path / "out")


def test_a_boolean_written_as_text_is_parsed(tmp_path):
    content = load("pgan_zoo_a")
    content["config"] = {**content["config"], "perChannelNormalization": "False"}
    with pytest.raises(UserError, match="perChannelNormalization=False"):
        convert("pgan", write(tmp_path / "f.pth", content), tmp_path / "out")


ODD = ["text", -1, 0, 1e400, [1], {"a": 1}, "", True, None]


@pytest.mark.parametrize("name", [n for n in CASES if n != "biggan_deep_a"])
def test_no_value_of_a_config_entry_leads_to_a_traceback(name):
    checkpoint = read_checkpoint(load_golden(name).checkpoint)
    family, settings = CASES[name]
    content = checkpoint.content
    if name == "stylegan2_nvidia_a":
        built = {"synthesis_kwargs": {"conv_clamp": 1}, "mapping_kwargs": {"lr_multiplier": 1}}
        content = {"G_ema": content, "settings": {"G_ema": built}}
    config = content.get("config") or {"lod": 0}
    tried = 0
    for changed in _variants(content, config, name):
        network = find_networks(Checkpoint(changed, checkpoint.path, ""))
        for layout in layouts_of(family):
            for candidate in (n for n in network if layout.fits(n.state)):
                tried += 1
                with contextlib.suppress(UserError):
                    layout.convert(candidate, settings)
    assert tried


def _variants(content, config, name):
    if name == "stylegan2_nvidia_a":
        for value in ODD:
            for path in (("settings",), ("settings", "G_ema"),
                         ("settings", "G_ema", "mapping_kwargs"),
                         ("settings", "G_ema", "synthesis_kwargs", "conv_clamp")):  # fmt: skip
                yield _replaced(content, path, value)
        return
    for key in config:
        for value in ODD:
            yield {**content, "config": {**config, key: value}}


def _replaced(content, path, value):
    if not path:
        return value
    return {**content, path[0]: _replaced(content[path[0]], path[1:], value)}


# BigGAN's config.json


@pytest.fixture(scope="module")
def biggan():
    golden = load_golden("biggan_deep_a")
    return golden, json.loads(golden.checkpoint.with_name("config.json").read_text())


def _biggan(biggan, tmp_path, text):
    (tmp_path / "given.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    given = {"config": str(tmp_path / "given.json")}
    return convert("biggan", biggan[0].checkpoint, tmp_path / "out", given)


@pytest.mark.parametrize(
    "text",
    ["[]", "5", "null", '"text"', "", "{", "[" * 100_000, b"\xff\xfe", '{"eps": 1e-4'],
    ids=["list", "number", "null", "string", "empty", "cut", "deep", "bytes", "unclosed"],
)
def test_a_config_json_that_is_not_an_object_is_refused_in_one_line(text, biggan, tmp_path):
    with pytest.raises(UserError, match=r"is not a config\.json of BigGAN") as caught:
        _biggan(biggan, tmp_path, text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "change",
    [
        {"layers": 5},
        {"layers": "text"},
        {"layers": {}},
        {"layers": []},
        {"layers": [[0, 16]]},
        {"layers": [0, 16, 16]},
        {"layers": [["up", 16, 16]]},
        {"layers": [[0, "16", 16]]},
        {"layers": [[0, 16.5, 16]]},
        {"layers": [[0, -1, 16]]},
        {"layers": [[2, 16, 16]]},
        {"layers": [None]},
        {"eps": "small"},
        {"eps": None, "layers": [[]]},
        {"eps": -1},
        {"eps": 0},
        {"eps": float("nan")},
        {"eps": True},
        {"z_dim": 7},
        {"z_dim": "128"},
        {"num_classes": 3},
        {"num_classes": [10]},
        {"channel_width": 1},
        {"n_stats": 2.5},
    ],
    ids=str,
)
def test_a_config_json_of_wrong_types_or_another_model_is_refused_in_one_line(
    change, biggan, tmp_path
):
    with pytest.raises(UserError) as caught:
        _biggan(biggan, tmp_path, json.dumps({**biggan[1], **change}))
    assert "\n" not in str(caught.value)
    assert list(change)[-1] in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_config_json_saved_by_notepad_is_read(biggan, tmp_path):
    _biggan(biggan, tmp_path, b"\xef\xbb\xbf" + json.dumps(biggan[1]).encode())


def test_a_config_json_without_an_entry_has_the_default_or_asks(biggan, tmp_path):
    network = find_networks(read_checkpoint(biggan[0].checkpoint))[0]
    path = tmp_path / "given.json"
    for missing in biggan[1]:
        path.write_text(json.dumps({k: v for k, v in biggan[1].items() if k != missing}))
        asks = pytest.raises(UserError, match=r"config\.json must say which")
        with asks if missing == "layers" else contextlib.nullcontext():
            convert_biggan(network, {"config": str(path)})
