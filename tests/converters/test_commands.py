"""`--list` and `inspect`; an official NVIDIA pickle is read, never run."""

import io
import logging
import os
import pickle
import types
from collections import OrderedDict

import numpy as np
import pytest
import torch

from cgjax.errors import UserError
from cgjax.generators.published import PUBLISHED
from converters.__main__ import FAMILIES, convert, inspect, layouts_of, listing
from converters.reading import read_checkpoint
from tests.converters.files import command
from tests.converters.pickles import EasyDict, as_nvidia_s, dumps, loads, module
from tests.golden_cases import GOLDEN, TOLERANCE, error, load_golden

pytestmark = pytest.mark.torch


def test_the_list_has_every_family_layout_and_published_name():
    lines = listing().splitlines()
    for family in FAMILIES:
        for layout in layouts_of(family):
            assert any(line.split()[:2] == [family, layout.name] for line in lines)
    for name in PUBLISHED:
        assert any(line.split()[0] == name for line in lines)


def test_the_accelerators_that_jax_looks_for_are_not_listed(capsys):
    logger = logging.getLogger("jax._src.xla_bridge")
    logger.setLevel(logging.NOTSET)
    assert command("--list") == 0
    logger.info("Unable to initialize backend 'tpu'")
    assert capsys.readouterr().err == ""
    assert logger.level == logging.WARNING


@pytest.mark.parametrize(
    ("name", "family", "lines"),
    [
        ("pgan_zoo_b", "pgan", ["form: zoo", "depths: [12, 12, 8]", "blend: 0.3", "tanh: True"]),
        ("pggan_genforce_b", "pgan", ["form: genforce", "images: 16x16x3", "tanh: False"]),
        ("stylegan_zoo_a", "stylegan", ["truncation: 0.5", "latents: 24"]),
        ("stylegan2_nvidia_a", "stylegan2", ["form: nvidia", "images: 32x32x3"]),
        ("biggan_deep_a", "biggan", ["num_classes: 10", "attention: 3"]),
        ("dcgan_examples_a", "dcgan", ["widths: [48, 24, 12, 6]"]),
    ],
)
def test_inspect_describes_a_file_and_writes_nothing(name, family, lines, tmp_path):
    before = sorted(os.listdir(GOLDEN / name))
    said = inspect(load_golden(name).checkpoint).splitlines()
    assert f"family: {family}" in said
    assert set(lines) <= set(said)
    assert sorted(os.listdir(GOLDEN / name)) == before


def test_inspect_refuses_a_file_that_holds_no_generator(tmp_path):
    torch.save({"netD": {"x": torch.zeros(2)}}, tmp_path / "f.pth")
    with pytest.raises(UserError, match="holds no generator"):
        inspect(tmp_path / "f.pth")


@pytest.fixture
def official(tmp_path, monkeypatch):
    """Write a .pkl whose code would create a file, under the names that NVIDIA's code has."""
    as_nvidia_s(monkeypatch)
    state = torch.load(
        load_golden("stylegan2_nvidia_a").checkpoint, map_location="cpu", weights_only=True
    )
    source = f"open({os.fspath(tmp_path / 'executed')!r}, 'w')"
    wrong = {n: v + 1 for n, v in state.items()}
    content = {
        "G": module("Generator", source, wrong),
        "D": module("Discriminator", source, {"b4.weight": torch.zeros(2, 2)}),
        "G_ema": module("Generator", source, state, synthesis_kwargs=EasyDict(conv_clamp=256)),
        "training_set_kwargs": EasyDict(path="x"),
        "augment_pipe": None,
    }
    path = tmp_path / "network.pkl"
    path.write_bytes(dumps(content))
    return path


def test_an_official_nvidia_pickle_converts_and_its_code_is_not_run(official, tmp_path):
    golden = load_golden("stylegan2_nvidia_a")
    gen = convert("stylegan2", official, tmp_path / "out")
    assert error(gen.images(golden.arrays["z"]), golden.arrays["run1_image"]) < TOLERANCE
    assert gen.network.clamp == 256
    assert not (tmp_path / "executed").exists()
    # Loaded as its authors load it, it does run its code: the check above can fail.
    with pytest.raises(AssertionError, match="code was run"):
        loads(official.read_bytes())
    assert (tmp_path / "executed").exists()


class _Foreign:
    def __reduce__(self):
        return types.SimpleNamespace, ()


def test_a_pickle_that_asks_for_anything_else_is_refused_with_its_name(tmp_path):
    path = tmp_path / "network.pkl"
    path.write_bytes(pickle.dumps({"G_ema": _Foreign()}))
    with pytest.raises(UserError, match=r"asks for 'types.SimpleNamespace'"):
        read_checkpoint(path)


def test_a_tensorflow_pickle_is_refused_with_what_to_do(tmp_path):
    path = tmp_path / "network.pkl"
    path.write_bytes(b"\x80\x03cdnnlib.tflib.network\nNetwork\nq\x00)\x81q\x01.")
    with pytest.raises(UserError, match="TensorFlow network: convert it to PyTorch"):
        read_checkpoint(path)


def test_a_tensor_that_reaches_beyond_its_storage_is_refused(tmp_path):
    class Long:
        def __reduce__(self):
            storage = torch.storage.TypedStorage(
                wrap_storage=torch.zeros(4).untyped_storage(), dtype=torch.float32, _internal=True
            )
            return torch._utils._rebuild_tensor_v2, (storage, 0, (400,), (1,), False, OrderedDict())

    path = tmp_path / "network.pkl"
    path.write_bytes(dumps({"G_ema": Long()}))
    with pytest.raises(UserError, match="damaged"):
        read_checkpoint(path)


def test_an_array_of_objects_is_refused(tmp_path):
    path = tmp_path / "network.pkl"
    path.write_bytes(pickle.dumps({"a": np.array([io.BytesIO], dtype=object)}))
    with pytest.raises(UserError, match=r"damaged|asks for"):
        read_checkpoint(path)
