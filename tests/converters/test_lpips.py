"""`converters lpips` joins the published trunk and heads, as torch.save wrote them."""

import os
import zipfile

import numpy as np
import pytest
import torch
from safetensors import safe_open

from cgjax.evaluation.lpips import TRUNKS, Lpips, load_params, params_of
from cgjax.runtime.signals import SIGNALS, on_interrupt
from tests.converters.files import command
from tests.evaluation.test_lpips import random_tensors

pytestmark = pytest.mark.torch


def published(name):
    """Return a trunk and heads in the published layout: state dicts, the trunk with classifier."""
    tensors = {k: torch.tensor(v) for k, v in random_tensors(name).items()}
    heads = {k: v for k, v in tensors.items() if k.startswith("lin")}
    trunk = {k: torch.nn.Parameter(v) for k, v in tensors.items() if k not in heads}
    trunk["classifier.1.weight"], trunk["classifier.1.bias"] = torch.zeros(3, 2), torch.zeros(3)
    return trunk, heads


def write(folder, name, change=lambda trunk, heads: None):
    trunk, heads = published(name)
    change(trunk, heads)
    torch.save(trunk, folder / "trunk.pth")
    torch.save(heads, folder / "heads.pth", _use_new_zipfile_serialization=False)
    return [f"--src={folder}/trunk.pth", f"--heads={folder}/heads.pth", f"--dst={folder}/out"]


@pytest.mark.parametrize("name", TRUNKS)
def test_the_file_holds_the_trunk_and_its_heads_and_can_be_used(name, tmp_path, capsys):
    flags = write(tmp_path, name)
    assert command("lpips", *flags) == 0
    assert f"{tmp_path}/out: LPIPS with {name}; trunk SHA-256 " in capsys.readouterr().out
    assert Lpips(tmp_path / "out").trunk == name
    want, got = params_of(random_tensors(name)), load_params(tmp_path / "out")
    for mine, its in zip(want, got, strict=True):
        for one, other in zip(mine, its, strict=True):
            np.testing.assert_array_equal(one, other)
    first = (tmp_path / "out").read_bytes()
    assert command("lpips", *flags) == 0  # replaces it by the same
    assert (tmp_path / "out").read_bytes() == first
    with safe_open(tmp_path / "out", "np") as file:
        assert set(file.keys()) == set(random_tensors(name))
        assert '"name": "trunk.pth", "sha256": "' in file.metadata()["source"]


def test_the_heads_may_lie_in_the_wheel_of_their_package(tmp_path):
    src, _, dst = write(tmp_path, "alex")
    with zipfile.ZipFile(tmp_path / "lpips.whl", "w") as wheel:
        for member in ("v0.0/alex.pth", "v0.1/alex.pth"):
            wheel.write(tmp_path / "heads.pth", f"lpips/weights/{member}")
    heads = f"--heads={tmp_path}/lpips.whl"
    assert command("lpips", src, heads, dst) == 2
    assert command("lpips", src, heads, dst, "--member=lpips/weights/v0.1/alex.pth") == 0


def _shorter(trunk, heads):
    trunk["features.3.weight"] = trunk["features.3.weight"][:, 1:].clone()


def _infinite(trunk, heads):
    trunk["features.8.bias"].data[0] = float("inf")


def _negative(trunk, heads):
    heads["lin1.model.1.weight"] *= -1


def _of_vgg(trunk, heads):
    heads.update(published("vgg")[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda trunk, heads: trunk.pop("features.0.bias"), "trunk.pth: missing features.0.bias"),
        (lambda trunk, heads: trunk.pop("features.10.weight"), "the tensors of neither trunk"),
        (lambda trunk, heads: trunk.update(x=torch.zeros(1)), "trunk.pth: extra x"),
        (lambda trunk, heads: heads.pop("lin4.model.1.weight"), "missing lin4.model.1.weight"),
        (_shorter, "features.3.weight has shape (192, 63, 5, 5), expected (192, 64, 5, 5)"),
        (_infinite, "features.8.bias has NaN or infinite values"),
        (_negative, "lin1.model.1.weight holds a weight below 0"),
        (_of_vgg, "expected (1, 192, 1, 1); lin2"),
    ],
)
def test_wrong_tensors_are_one_line_and_nothing_is_written(change, message, tmp_path, capsys):
    assert command("lpips", *write(tmp_path, "alex", change)) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_heads_and_trunk_the_wrong_way_round_are_refused(tmp_path, capsys):
    src, heads, dst = write(tmp_path, "alex")
    swapped = heads.replace("--heads", "--src"), src.replace("--src", "--heads")
    assert command("lpips", *swapped, dst) == 2
    assert "alexnet-owt-7be5be79.pth or vgg16-397923af.pth" in capsys.readouterr().err


def test_a_file_of_something_else_is_not_replaced_and_flags_are_checked(tmp_path, capsys):
    src, heads, dst = write(tmp_path, "alex")
    before = (tmp_path / "trunk.pth").read_bytes()
    for arguments, message in (
        ((src, heads, src.replace("--src", "--dst")), "exists and is not a file of LPIPS's"),
        ((src, heads, f"--dst={tmp_path}"), "is a folder; name a file"),
        ((src, heads, f"--dst={tmp_path}/none/out"), "has no folder"),
        ((src, heads, f"--dst={'x' * 300}"), f"cannot write --dst={'x' * 300}: File name too long"),
        ((src, dst), "--heads is missing"),
        ((src, heads, dst, "--dtype=float16"), "--dtype: lpips does not read it"),
    ):
        assert command("lpips", *arguments) == 2
        assert message in capsys.readouterr().err
    assert command("pgan", src, heads, dst) == 2
    assert "--heads: pgan does not read it" in capsys.readouterr().err
    assert (tmp_path / "trunk.pth").read_bytes() == before


def test_nothing_in_a_file_is_executed(tmp_path, capsys):
    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "made"), "w")

    src, heads, dst = write(tmp_path, "alex")
    torch.save({"features.0.weight": Evil()}, tmp_path / "trunk.pth")
    assert command("lpips", src, heads, dst) == 2
    assert "nothing in it was executed" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_writing_leaves_nothing(number, tmp_path, monkeypatch, capsys):
    flags, files, ended = write(tmp_path, "alex"), set(os.listdir(tmp_path)), []
    monkeypatch.setattr(os, "fsync", lambda _: os.kill(os.getpid(), number))
    with on_interrupt(lambda *_: ended.append("at once"), SIGNALS):  # as the command does elsewhere
        assert command("lpips", *flags) == 130
    assert not ended
    assert capsys.readouterr().err.endswith(f"{tmp_path}/out is unchanged\n")
    assert set(os.listdir(tmp_path)) == files
