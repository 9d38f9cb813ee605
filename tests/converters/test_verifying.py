"""`--verify=torch`: compares every layer of the file's network with the converted one."""

import numpy as np
import pytest
import torch

from cgjax.errors import UserError
from converters import verifying
from converters.__main__ import FAMILIES, layouts_of
from converters.verifying import REFERENCES, report
from tests.converters.files import CASES, command, load, write
from tests.golden_cases import load_golden

pytestmark = pytest.mark.torch


SEEN_ELSEWHERE = {"pgan_zoo_b", "stylegan3_t_a"}  # the latter: a smaller one in test_stylegan3


@pytest.mark.parametrize("name", [name for name in CASES if name not in SEEN_ELSEWHERE])
def test_every_layout_s_layers_and_image_equal_torch(name, tmp_path, capsys):
    family, settings = CASES[name]
    path = load_golden(name).checkpoint
    given = [f"--set={key}={value}" for key, value in settings.items()]
    out = tmp_path / "out"
    assert command(family, f"--src={path}", f"--dst={out}", "--verify=torch", *given) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "verified: " in line]
    assert lines[-2].startswith("verified: image ")
    assert float(lines[-1].split()[2]) < 3e-5
    assert len(lines) > 4


def test_every_layout_has_its_torch_network():
    layouts = {f"{f}/{c.name}" for f in FAMILIES for c in layouts_of(f)}
    assert layouts == set(REFERENCES)


def test_a_conversion_that_differs_is_refused_and_nothing_is_written(tmp_path, capsys, monkeypatch):
    state = load("dcgan_examples_a")
    path = write(tmp_path / "f.pth", state)
    right = verifying.REFERENCES["dcgan/examples"]

    def wrong(case):
        case.w["main.3.weight"] = case.w["main.3.weight"].flip(2, 3)
        return right(case)

    monkeypatch.setitem(verifying.REFERENCES, "dcgan/examples", wrong)
    out = tmp_path / "out"
    assert command("dcgan", f"--src={path}", f"--dst={out}", "--verify=torch") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "differs from torch" in said
    assert not out.exists()


def test_not_a_number_counts_as_different():
    with pytest.raises(UserError, match="image differs"):
        report({"layer1": 0.0, "image": float("nan")})
    assert report({"layer1": np.float64(0), "image": 1e-6}).endswith("(image), torch, 8 latents")


def test_verifying_uses_the_given_options(tmp_path, capsys):
    draw = torch.Generator().manual_seed(0)
    state = {
        "a.0.weight": torch.randn(7, 6, 4, 4, generator=draw),
        "a.1.running_mean": torch.randn(6, generator=draw),
        "a.1.running_var": torch.rand(6, generator=draw) + 0.5,
        "a.3.weight": torch.randn(6, 5, 3, 3, generator=draw),
        "a.3.bias": torch.randn(5, generator=draw),
        "a.6.weight": torch.randn(1, 5, 3, 3, generator=draw),
        "a.6.bias": torch.randn(1, generator=draw),
    }
    settings = ("leak=0.3", "eps=0.01", "output=sigmoid", "image_size=7", "num_classes=2",
                "classes_first=true")  # fmt: skip
    flags = [f"--set={setting}" for setting in settings]
    path, out = write(tmp_path / "f.pth", state), tmp_path / "out"
    assert command("dcgan", f"--src={path}", f"--dst={out}", "--verify=torch", *flags) == 0
    assert "images 7x7x1" in capsys.readouterr().out
