"""The averaged generator of a file is converted, never silently the raw one."""

import json

import pytest
import torch

from cgjax.errors import UserError
from converters.__main__ import convert, inspect
from tests.converters.files import CASES, changed, generator, load, write

pytestmark = pytest.mark.torch

PAIRS = [
    ("netG", "netG_ema"),
    ("netG", "ema"),
    ("netG", "avgG"),
    ("netG", "netGema"),
    ("generator", "generator_ema"),
    ("generator", "generator_smooth"),
    ("generator", "generator_test"),
    ("generator", "ema_generator"),
    ("generator", "averaged_generator"),
    ("generator", "g_running"),
    ("state_dict", "state_dict_ema"),
    ("model", "model_ema"),
    ("g", "g_ema"),
    ("G", "G_ema"),
    ("G", "Gs"),
    ("G", "EMA"),
    ("netG_state_dict", "netG_avg_state_dict"),
    ("generator_no_ema", "generator_ema"),
    ("params", "params_ema"),
    ("G", "ema_G"),
    ("netG", "netG_ema_state"),
]


@pytest.fixture(scope="module")
def dcgan():
    return load("dcgan_examples_a")


def _weights(gen):
    return gen.manifest["weights_sha256"]


def _convert(content, tmp_path, settings=None, family="dcgan", out="out"):
    return convert(family, write(tmp_path / "f.pth", content), tmp_path / out, settings)


@pytest.fixture(scope="module")
def right(dcgan, tmp_path_factory):
    """The weights' hash of the fixture's own generator."""
    return _weights(_convert(dcgan, tmp_path_factory.mktemp("right")))


@pytest.mark.parametrize("first", [0, 1], ids=["raw_first", "averaged_first"])
@pytest.mark.parametrize(("raw", "averaged"), PAIRS)
def test_the_averaged_copy_wins_whatever_it_is_called(raw, averaged, first, dcgan, right, tmp_path):
    pair = [(raw, changed(dcgan)), (averaged, dcgan)]
    gen = _convert({**dict(pair[first:] + pair[:first]), "netD": {"x": torch.zeros(2)}}, tmp_path)
    assert _weights(gen) == right
    assert json.loads((tmp_path / "out" / "generator.json").read_text())["source"]["network"] == (
        averaged
    )


@pytest.mark.parametrize("name", CASES)
def test_every_layout_takes_the_averaged_copy_and_the_raw_one_when_asked(name, tmp_path):
    family, settings = CASES[name]
    content = load(name)
    state = generator(content)
    alone = {"config": content["config"]} if "config" in content else {}
    expected = _weights(_convert({**alone, "x": state}, tmp_path, settings, family))
    both = {**alone, "x_ema": state, "x": changed(state)}
    gen = _convert(both, tmp_path, settings, family)
    assert (_weights(gen), gen.manifest["source"]["network"]) == (expected, "x_ema")
    gen = _convert(both, tmp_path, {**settings, "network": "x"}, family)
    assert gen.manifest["source"]["network"] == "x"
    assert _weights(gen) != expected


@pytest.mark.parametrize(
    ("content", "network"),
    [
        (lambda raw, avg: {"models": {"generator": raw, "generator_ema": avg}}, "generator_ema"),
        (lambda raw, avg: {"ema": {"G": avg, "D": {"x": avg}}, "model": {"G": raw}}, "ema.G"),
        (lambda raw, avg: {"netG": raw, "ema": {"decay": 0.9, "shadow": avg}}, "ema.shadow"),
        (lambda raw, avg: {**raw, "ema": avg}, "ema"),
        (lambda raw, avg: {"G": raw, "B": _averaged_model(avg)}, "B"),
        (lambda raw, avg: {"G": raw, "G_ema": {f"module.{n}": v for n, v in avg.items()}}, "G_ema"),
        (lambda raw, avg: {"G": raw, "G_ema": {f"_orig_mod.{n}": v for n, v in avg.items()}},
         "G_ema"),
        (lambda raw, avg: {"G": avg, "optimizer": {"exp_avg": raw}}, "G"),
        (lambda raw, avg: {"G": avg, "exp_avg": raw}, "G"),
        (lambda raw, avg: {"G": raw, "ema": [avg]}, "ema.0"),
    ],
    ids=["models", "group", "shadow", "beside_bare", "torch_averaged_model", "parallel", "compiled",
         "optimizer", "moments", "list"],
)  # fmt: skip
def test_the_averaged_copy_is_found_anywhere(content, network, dcgan, right, tmp_path):
    gen = _convert(content(changed(dcgan), dcgan), tmp_path)
    assert _weights(gen) == right
    assert gen.manifest["source"]["network"].endswith(network)


def _averaged_model(state):
    """As torch.optim.swa_utils.AveragedModel saves itself."""
    return {"n_averaged": torch.tensor(9), **{f"module.{n}": v for n, v in state.items()}}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("G_ema", "G_ema_fast", "G"), r"2 averaged generators that differ \(G_ema, G_ema_fast\)"),
        (("ema", "G_smooth"), r"2 averaged generators that differ \(ema, G_smooth\)"),
        (("netG_A", "netG_B"), r"2 generators that differ \(netG_A, netG_B\)"),
        (("netG", "netG_slow"), r"2 generators that differ \(netG, netG_slow\)"),
        (("netG", "netG_no_ema"), r"2 generators that differ \(netG, netG_no_ema\)"),
    ],
)
def test_networks_that_no_name_distinguishes_are_refused_with_the_flag_to_type(
    names, message, dcgan, tmp_path
):
    content = {n: changed(dcgan, by) for by, n in enumerate(names)}
    with pytest.raises(UserError, match=message + f".*--set network={names[0]}") as caught:
        _convert(content, tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    for by, name in enumerate(names):
        gen = _convert(content, tmp_path, {"network": name})
        assert gen.manifest["source"]["network"] == name
        bare = _convert(changed(dcgan, by), tmp_path, out="bare")
        assert _weights(gen) == _weights(bare)


def test_copies_that_do_not_differ_are_not_ambiguous(dcgan, right, tmp_path):
    for names in (("ema", "G_smooth", "G"), ("netG_A", "netG_B")):
        content = {n: {k: v.clone() for k, v in dcgan.items()} for n in names}
        assert _weights(_convert(content, tmp_path)) == right


def test_a_network_is_chosen_by_its_path_or_its_last_name(dcgan, tmp_path):
    content = {"models": {"generator": changed(dcgan), "generator_ema": dcgan}}
    for name in ("models.generator", "generator"):
        gen = _convert(content, tmp_path, {"network": name})
        assert gen.manifest["source"]["network"] == "models.generator"
    with pytest.raises(UserError, match=r"--set network=raw: .*models.generator, models.gener"):
        _convert(content, tmp_path, {"network": "raw"})


def test_a_bare_state_dict_is_chosen_with_a_dot(dcgan, tmp_path):
    content = {**changed(dcgan), "ema": dcgan}
    assert _convert(content, tmp_path).manifest["source"]["network"] == "ema"
    assert _convert(dcgan, tmp_path).manifest["source"]["network"] == "."
    with pytest.raises(UserError, match="extra ema"):
        _convert(content, tmp_path, {"network": "."})


@pytest.mark.parametrize(
    "copy",
    [
        lambda state: {"decay": 0.9, "shadow_params": [v for v in state.values() if v.ndim]},
        lambda state: {n.replace(".", ""): v for n, v in state.items()},
    ],
    ids=["list", "renamed"],
)
def test_an_averaged_copy_in_an_unknown_form_is_never_ignored(copy, dcgan, tmp_path):
    content = {"netG": changed(dcgan), "ema": copy(dcgan), "netD_ema": {"x": torch.zeros(3, 3)}}
    with pytest.raises(UserError, match=r"'ema'.*take the raw one with --key=netG \(the same as"):
        _convert(content, tmp_path)
    assert not (tmp_path / "out").exists()
    gen = _convert(content, tmp_path, {"network": "netG"})
    assert gen.manifest["source"]["network"] == "netG"


def test_an_averaged_copy_without_its_buffers_is_refused_by_name(dcgan, tmp_path):
    averaged = {n: v for n, v in dcgan.items() if "running" not in n and v.ndim}
    content = {"netG": changed(dcgan), "netG_ema": averaged}
    with pytest.raises(UserError, match=r"f\.pth, netG_ema: missing main\.1\.running_mean"):
        _convert(content, tmp_path)


def test_other_entries_named_averaged_do_not_matter(dcgan, right, tmp_path):
    content = {
        "G": dcgan,
        # The PyTorch examples' discriminator has names of the generator's.
        "netD_ema": {"main.0.weight": torch.zeros(6, 3, 4, 4), "main.2.weight": torch.zeros(2)},
        "latent_avg": torch.zeros(7),
        "ema_decay": 0.9,
        "running_loss": [torch.zeros(1)],
    }
    assert _weights(_convert(content, tmp_path)) == right


def test_inspect_says_which_network_and_which_others(dcgan, tmp_path):
    path = write(tmp_path / "f.pth", {"netG": changed(dcgan), "netG_ema": dcgan})
    said = inspect(path).splitlines()
    assert "network: netG_ema (averaged; also in the file: netG)" in said
    said = inspect(path, {"network": "netG"}).splitlines()
    assert "network: netG (also in the file: netG_ema)" in said
    assert "network: . (the whole file)" in inspect(write(path, dcgan)).splitlines()


def test_an_official_pickle_s_settings_are_those_of_the_network_taken(monkeypatch, tmp_path):
    from converters.networks import find_networks
    from converters.reading import Checkpoint
    from converters.stylegan2 import convert_nvidia

    state = {n: v.numpy() for n, v in load("stylegan2_nvidia_a").items()}
    settings = {
        "G": {"synthesis_kwargs": {"conv_clamp": 8}},
        "G_ema": {"synthesis_kwargs": {"conv_clamp": 256}},
    }
    content = {"G": state, "G_ema": state, "settings": settings}
    for network in find_networks(Checkpoint(content, tmp_path / "f.pkl", "")):
        clamp = convert_nvidia(network, {}).architecture["clamp"]
        assert clamp == {"G": 8, "G_ema": 256}[network.name]
