"""A bad file is refused in one line that says what is wrong, and nothing in it is executed."""

import ast
import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from cgjax.errors import UserError
from converters.__main__ import FAMILIES, convert
from converters.reading import read_checkpoint
from tests.converters.files import CASES, command, generator, load, write
from tests.golden_cases import GOLDEN, load_golden

pytestmark = pytest.mark.torch

cases = pytest.mark.parametrize("name", CASES)


def _refusal(name, path, tmp_path):
    family, settings = CASES[name]
    with pytest.raises(UserError) as caught:
        convert(family, path, tmp_path / "out", settings)
    assert not (tmp_path / "out").exists()
    message = str(caught.value)
    assert "\n" not in message
    assert os.fspath(path) in message
    return message


def _largest(state):
    return max(state, key=lambda n: (state[n].ndim > 1, state[n].numel()))


@cases
def test_a_missing_key_is_named(name, tmp_path):
    content = load(name)
    state = generator(content)
    removed = [n for n in state if n.endswith((".bias", ".wscale.b"))][-1]
    del state[removed]
    message = _refusal(name, write(tmp_path / "f.pth", content), tmp_path)
    assert removed.replace(".module.", ".") in message


@cases
def test_an_extra_key_is_named(name, tmp_path):
    content = load(name)
    generator(content)["stray.weight"] = torch.zeros(2)
    assert "extra stray.weight" in _refusal(name, write(tmp_path / "f.pth", content), tmp_path)


@cases
def test_a_transposed_weight_is_named(name, tmp_path):
    content = load(name)
    state = generator(content)
    # A weight whose first two axes differ, so that the mistake is visible at all.
    wrong = next(n for n in state if state[n].ndim > 1 and state[n].shape[0] != state[n].shape[1])
    state[wrong] = state[wrong].transpose(0, 1).contiguous()
    message = _refusal(name, write(tmp_path / "f.pth", content), tmp_path)
    assert "shape" in message or "channels" in message or "rows" in message


@cases
def test_nan_weights_are_named(name, tmp_path):
    content = load(name)
    state = generator(content)
    wrong = _largest(state)
    state[wrong] = torch.full_like(state[wrong], float("nan"))
    message = _refusal(name, write(tmp_path / "f.pth", content), tmp_path)
    assert f"{wrong.replace('.module.', '.')} has NaN" in message


@pytest.mark.parametrize("name", ["dcgan_examples_a", "biggan_deep_a", "biggan_pytorch_a"])
def test_a_negative_variance_is_named(name, tmp_path):
    content = load(name)
    state = generator(content)
    wrong = next(n for n in state if n.endswith(("_var", "_vars")))
    state[wrong] = -state[wrong]
    message = _refusal(name, write(tmp_path / "f.pth", content), tmp_path)
    assert f"{wrong} has negative values" in message


def test_every_problem_of_a_file_is_in_the_one_error(tmp_path):
    content = load("pgan_zoo_a")
    state = generator(content)
    del state["scaleLayers.1.0.module.bias"]
    state["stray"] = torch.zeros(1)
    state["toRGBLayers.2.module.bias"] = torch.full((3,), float("inf"))
    message = _refusal("pgan_zoo_a", write(tmp_path / "f.pth", content), tmp_path)
    for word in ("missing scaleLayers.1.0.bias", "extra stray", "toRGBLayers.2.bias has NaN"):
        assert word in message


@cases
def test_a_file_of_another_family_is_recognised_and_the_right_command_named(name, tmp_path):
    family = CASES[name][0]
    for other in FAMILIES:
        if other != family:
            with pytest.raises(UserError, match=f"is not a {other} file.*converters {family}"):
                convert(other, load_golden(name).checkpoint, tmp_path / "out")


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.999])
@pytest.mark.parametrize("name", ["pgan_zoo_a", "pgan_zoo_b"], ids=["zip", "legacy"])
def test_a_truncated_file_is_refused(name, keep, tmp_path):
    data = load_golden(name).checkpoint.read_bytes()
    path = tmp_path / "f.pth"
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(UserError, match="damaged"):
        convert("pgan", path, tmp_path / "out")


class _Malicious:
    """Pickles to a call of os.system."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_a_malicious_pickle_is_refused_and_runs_nothing(form, tmp_path):
    witness = tmp_path / "executed"
    content = {"netG": {"x": torch.zeros(1)}, "config": _Malicious(f"touch {witness}")}
    path = tmp_path / "f.pth"
    if form == "pickle":
        path.write_bytes(pickle.dumps(content["config"]))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(UserError, match=r"asks for 'posix.system'.*nothing in it was executed"):
        convert("pgan", path, tmp_path / "out")
    assert not witness.exists()
    # The same file does run its command where it is simply unpickled: the test can fail.
    if form == "pickle":
        pickle.loads(path.read_bytes())
        assert witness.exists()


def test_a_config_whose_class_is_another_global_is_refused(tmp_path):
    # GLOBAL models.utils.config SomethingElse, called without arguments.
    path = tmp_path / "f.pth"
    path.write_bytes(b"\x80\x02cmodels.utils.config\nOther\n)\x81.")
    with pytest.raises(UserError, match=r"asks for 'models.utils.config.Other'"):
        read_checkpoint(path)


@pytest.mark.parametrize("name", ["dcgan_zoo_a", "pgan_zoo_a", "pgan_zoo_b", "stylegan_zoo_a"])
def test_a_pickled_zoo_config_loads_as_plain_values(name):
    golden = load_golden(name)
    assert b"models.utils.config" in golden.checkpoint.read_bytes()
    config = read_checkpoint(golden.checkpoint).content["config"]
    assert type(config) is dict
    for key, value in golden.meta["config"].items():
        assert config[key] == value


def test_every_torch_load_in_the_converters_is_weights_only():
    calls = 0
    for path in (Path(__file__).parents[2] / "converters").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            call = ast.unparse(node.func)
            assert call not in ("pickle.load", "pickle.loads"), path
            if call == "torch.load":
                calls += 1
                given = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert given.get("weights_only") == "True", path
                assert given.get("map_location") == "'cpu'", path
    assert calls


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected one family"),
        (("pgam", "--src=a", "--dst=b"), "expected one family"),
        (("pgan", "--src=a"), "--dst is missing"),
        (("pgan", "--src=does_not_exist.pth", "--dst=out"), "no such file"),
        (("pgan", "--src=a", "--dst=b", "--set", "lod"), "expected name=value"),
        (("pgan", "--src=a", "--dst=b", "--set=x=1", "--set=x=2"), "--set x=1 and x=2: give one"),
        (("pgan", "--src=a", "--dst=b", "--key=A", "--set=network=B"), "--key is the same as"),
        (("pgan", "--src=a", "--dst=b", "--key="), "--key= is empty"),
        (("inspect", "a", "--dst=b"), "--dst: inspect does not read it"),
        (("inspect", "a", "--verify=torch"), "--verify: inspect does not read it"),
        (("inspect", "a", "--dtype=float16"), "--dtype: inspect does not read it"),
        (("--list", "--src=a"), "--src: --list does not read it"),
        (("--list", "pgan"), "--list takes no 'pgan'"),
        (("pgan", "--sorce=a"), "Unknown command line flag 'sorce'"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line_and_exit_2(arguments, message, capsys):
    assert command(*arguments) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert said.out == ""


def _plain_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "no tensors here")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b""), "is empty; download it again"),
        (lambda path: path.mkdir(), "is a folder; give the checkpoint file inside it"),
        (lambda path: None, "no such file"),
        (_plain_zip, "not a torch checkpoint"),
        (lambda path: path.write_bytes(pickle.dumps({"weights": [1, 2, 3]})), "is not a pgan file"),
        (lambda path: torch.save({"netD": {"x": torch.zeros(1)}}, path), "is not a pgan file"),
    ],
    ids=["empty", "folder", "missing", "zip", "pickle", "zoo_netD"],
)
def test_a_file_without_a_generator_is_one_line_and_exit_2(make, message, tmp_path, capsys):
    path = tmp_path / "f.pth"
    make(path)
    assert command("pgan", f"--src={path}", f"--dst={tmp_path / 'out'}") == 2
    said = capsys.readouterr()
    assert message in said.err
    assert str(path) in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert said.out == ""
    assert not (tmp_path / "out").exists()


def test_the_command_converts_and_prints_the_result(tmp_path, capsys):
    golden = GOLDEN / "pgan_zoo_b"
    assert command("pgan", f"--src={golden / 'checkpoint.pth'}", f"--dst={tmp_path / 'out'}") == 0
    said = capsys.readouterr().out
    assert "latents of 16, images 16x16x3, layers format, s0_c0" in said
    assert "network avgG, source SHA-256" in said
    assert sorted(os.listdir(tmp_path / "out")) == ["generator.json", "weights.safetensors"]


def test_an_unknown_setting_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(UserError, match="did you mean alpha"):
        convert("pgan", load_golden("pgan_zoo_b").checkpoint, tmp_path / "o", {"alfa": "0"})
    with pytest.raises(UserError, match="expected a finite number from 0 to 1"):
        convert("pgan", load_golden("pgan_zoo_b").checkpoint, tmp_path / "o", {"alpha": "full"})


def test_reading_closes_the_file_and_keeps_no_hold_of_it(tmp_path):
    path = tmp_path / "f.pth"
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(3)}, buffer)
    path.write_bytes(buffer.getvalue())
    checkpoint = read_checkpoint(path)
    path.unlink()
    np.testing.assert_array_equal(checkpoint.content["a"], np.ones(3, np.float32))
