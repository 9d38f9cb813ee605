"""NVIDIA's pickles: missing values are the defaults of the code that wrote them."""

import pickle

import numpy as np
import pytest
import torch

from cgjax.errors import UserError
from converters.__main__ import convert, inspect
from converters.networks import find_networks
from converters.nvidia import build_record
from converters.reading import read_checkpoint
from converters.stylegan2 import convert_nvidia
from tests.converters.pickles import EasyDict, as_nvidia_s, dumps, module
from tests.golden_cases import TOLERANCE, error, load_golden

pytestmark = pytest.mark.torch

ADA, NEW = "training.networks", "training.networks_stylegan2"
SIZES = {"mapping.fc0.in_features": 16}  # only the stylegan3 repository's dense layers have it


@pytest.fixture(scope="module")
def state():
    checkpoint = load_golden("stylegan2_nvidia_a").checkpoint
    return torch.load(checkpoint, map_location="cpu", weights_only=True)


def _network(path, content, name="G_ema"):
    path.write_bytes(dumps(content))
    return next(n for n in find_networks(read_checkpoint(path)) if n.name == name)


@pytest.mark.parametrize(
    ("class_name", "arguments", "values", "clamp", "words"),
    [
        (f"{NEW}.Generator", {}, {}, 256, "256, the default of training.networks_stylegan2"),
        (f"{ADA}.Generator", {}, {}, None, "none, the default of training.networks "),
        (f"{NEW}.Generator", {"conv_clamp": None}, {}, None, ""),
        (f"{NEW}.Generator", {"conv_clamp": 8}, {}, 8, ""),
        (f"{ADA}.Generator", {"synthesis_kwargs": EasyDict(conv_clamp=8)}, {}, 8, ""),
        (f"{ADA}.Generator", {"synthesis_kwargs": EasyDict(channel_max=8)}, {}, None, "none"),
        # The values that the layers keep win over the arguments.
        (f"{ADA}.Generator", {}, {"synthesis.b8.conv0.conv_clamp": 4}, 4, ""),
        (f"{NEW}.Generator", {}, {"synthesis.b8.conv0.conv_clamp": None}, None, ""),
        # A class without its module, as in the published files: inferred from the attributes.
        ("Generator", {"channel_base": 256}, SIZES, 256, "256, the default"),
        ("Generator", {}, SIZES, 256, "256, the default"),
        ("Generator", {"synthesis_kwargs": EasyDict(channel_max=8)}, {}, None, "none"),
    ],
)
def test_the_clamp_is_the_file_s_own_or_the_default_of_the_code_that_wrote_it(
    class_name, arguments, values, clamp, words, state, tmp_path, monkeypatch
):
    as_nvidia_s(monkeypatch)
    content = {"G_ema": module(class_name, "", state, values, **arguments)}
    network = _network(tmp_path / "f.pkl", content)
    conversion = convert_nvidia(network, {})
    assert conversion.architecture["clamp"] == clamp
    assert "".join(conversion.assumed).startswith(words and f"conv_clamp: {words}")
    assert len(conversion.assumed) == bool(words)
    given = convert_nvidia(network, {"conv_clamp": "3"})
    assert (given.architecture["clamp"], given.assumed) == (3, ())


def test_the_assumed_clamp_of_a_bare_state_dict_is_reported(state, tmp_path):
    torch.save({"G_ema": state}, tmp_path / "f.pt")
    gen = convert("stylegan2", tmp_path / "f.pt", tmp_path / "out")
    (assumed,) = gen.manifest["source"]["assumed"]
    assert "--set conv_clamp=256" in assumed
    assert gen.network.clamp is None


def test_the_mapping_network_s_rate_is_read_from_its_layers(state, tmp_path, monkeypatch):
    as_nvidia_s(monkeypatch)
    for values, arguments, rate in (
        ({}, {}, 0.01),
        ({}, {"mapping_kwargs": EasyDict(lr_multiplier=0.1)}, 0.1),
        ({"mapping.fc0.bias_gain": np.float64(0.5)}, {}, 0.5),
    ):
        content = {"G_ema": module("Generator", "", state, values, **arguments)}
        arrays = convert_nvidia(_network(tmp_path / "f.pkl", content), {}).arrays
        bias = state["mapping.fc0.bias"].numpy() * np.float32(rate)
        np.testing.assert_allclose(arrays["mapping_biases.0"], bias, rtol=1e-6)


@pytest.mark.parametrize(
    ("class_name", "values", "message"),
    [
        ("Generator", {"synthesis.b8.conv0.activation": "relu"}, "activation relu; only lrelu"),
        (
            "Generator",
            {"synthesis.b8.conv0.conv_clamp": 4, "synthesis.b8.conv1.conv_clamp": 2},
            "layers with different conv_clamp",
        ),
        ("training.networks_stylegan3_resetting.SuperresGenerator", {}, "is a StyleGAN-XL"),
    ],
)
def test_an_unsupported_architecture_is_refused_by_name(
    class_name, values, message, state, tmp_path, monkeypatch
):
    as_nvidia_s(monkeypatch)
    network = _network(tmp_path / "f.pkl", {"G_ema": module(class_name, "", state, values)})
    with pytest.raises(UserError, match=message):
        convert_nvidia(network, {})


def test_a_snapshot_s_other_entries_may_be_anything_and_are_not_run(state, tmp_path, monkeypatch):
    as_nvidia_s(monkeypatch)
    source = f"open({str(tmp_path / 'executed')!r}, 'w')"
    content = {
        "G": None,
        "D": module("Discriminator", source, {"b4.weight": torch.zeros(2, 2)}),
        "augment_pipe": module("AugmentPipe", source, {}, {"p": 0.2}),
        "training_set_kwargs": EasyDict(path="x", resolution=np.int64(32)),
        "progress": None,
        "inside": {"G_ema": module(f"{NEW}.Generator", source, state, conv_clamp=7)},
    }
    path = tmp_path / "f.pkl"
    assert build_record(_network(path, content, "inside.G_ema")).arguments["conv_clamp"] == 7
    gen = convert("stylegan2", path, tmp_path / "out")
    assert (gen.network.clamp, gen.manifest["source"]["network"]) == (7, "inside.G_ema")
    assert "clamp: 7.0" in inspect(path).splitlines()
    assert not (tmp_path / "executed").exists()


def test_a_pickled_module_without_a_dict_around_it_is_read(state, tmp_path, monkeypatch):
    as_nvidia_s(monkeypatch)
    path = tmp_path / "f.pkl"
    path.write_bytes(dumps(module(f"{NEW}.Generator", "", state)))
    gen = convert("stylegan2", path, tmp_path / "out")
    assert gen.network.clamp == 256
    golden = load_golden("stylegan2_nvidia_a")
    assert error(gen.images(golden.arrays["z"]), golden.arrays["run1_image"]) < TOLERANCE


class _Named:
    """Pickles as a class of NVIDIA's, without source code."""

    def __init__(self, inner):
        self.__dict__ = dict(inner.state)

    def __reduce__(self):
        return _Named, (), vars(self)


def test_a_class_that_a_pickle_names_stands_for_its_attributes(state, tmp_path, monkeypatch):
    as_nvidia_s(monkeypatch)
    content = {"G_ema": _Named(module("", "", state))}
    # Protocol 2 has no frames, which know their length.
    data = dumps(content, protocol=2).replace(
        _global(_Named.__module__, "_Named"), _global(NEW, "Generator")
    )
    path = tmp_path / "f.pkl"
    path.write_bytes(data)
    network = next(n for n in find_networks(read_checkpoint(path)) if n.name == "G_ema")
    assert convert_nvidia(network, {}).architecture["clamp"] == 256


def _global(module_name, name):
    return f"c{module_name}\n{name}\n".encode()


def test_a_projected_gan_is_refused_by_its_networks(tmp_path):
    path = tmp_path / "f.pkl"
    path.write_bytes(b"\x80\x02cpg_modules.discriminator\nProjectedDiscriminator\n)Rq\x01.")
    with pytest.raises(UserError, match="StyleGAN-XL or another projected GAN"):
        read_checkpoint(path)


@pytest.mark.parametrize("name", ["dnnlib.tflib.network", "tfutil"])
def test_a_tensorflow_pickle_is_refused_with_the_command_that_converts_it(name, tmp_path):
    path = tmp_path / "f.pkl"
    path.write_bytes(b"\x80\x03c" + name.encode() + b"\nNetwork\nq\x00)\x81q\x01.")
    with pytest.raises(UserError, match=r"python legacy\.py --source=f\.pkl --dest=") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_old_protocols_write_bytes_as_text(tmp_path):
    path = tmp_path / "f.pkl"
    path.write_bytes(pickle.dumps({"a": np.arange(3.0), "b": np.float32(2)}, protocol=2))
    content = read_checkpoint(path).content
    np.testing.assert_array_equal(content["a"], np.arange(3.0))
    assert content["b"] == 2
