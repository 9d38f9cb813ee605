"""A bad file is refused in one line that says what is wrong, and nothing in it is executed."""

import ast
import io
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from cgjax.errors import UserError
from converters.__main__ import FAMILIES, convert
from converters.reading import read_checkpoint
from tests.converters.files import CASES, command, generator, load, write
from tests.golden_cases import GOLDEN, TOLERANCE, error, load_golden

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


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("keep", [0.02, 0.5, 0.999])
@pytest.mark.parametrize("name", ["pgan_zoo_a", "pgan_zoo_b"], ids=["zip", "legacy"])
def test_a_truncated_file_is_refused(family, name, keep, tmp_path):
    data = load_golden(name).checkpoint.read_bytes()
    path = tmp_path / "f.pth"
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(UserError, match="damaged"):
        convert(family, path, tmp_path / "out")


def _plain_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "no tensors here")


def _foreign_pickle(path):
    path.write_bytes(pickle.dumps({"weights": [1, 2, 3]}))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: None, "no such file"),
        (lambda path: path.write_text("<html>404</html>"), "not a torch checkpoint"),
        (_plain_zip, "not a torch checkpoint"),
        (_foreign_pickle, "is not a .* file|not a torch checkpoint"),
        (lambda path: torch.save([1, 2], path), "is not a"),
        (lambda path: torch.save({"netD": {"x": torch.zeros(1)}}, path), "is not a"),
        (lambda path: torch.save({"discriminator": {"l.w": torch.zeros(1)}}, path), "is not a"),
    ],
    ids=[
        "empty", "folder", "missing", "html", "zip", "pickle", "list", "zoo_netD", "discriminator",
    ],
)  # fmt: skip
def test_a_file_without_a_generator_is_refused(family, make, message, tmp_path):
    path = tmp_path / "f.pth"
    make(path)
    with pytest.raises(UserError, match=message) as caught:
        convert(family, path, tmp_path / "out")
    assert "\n" not in str(caught.value)


class _Malicious:
    """Pickles to a call of os.system."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_a_malicious_pickle_is_refused_and_runs_nothing(family, form, tmp_path):
    witness = tmp_path / "executed"
    content = {"netG": {"x": torch.zeros(1)}, "config": _Malicious(f"touch {witness}")}
    path = tmp_path / "f.pth"
    if form == "pickle":
        path.write_bytes(pickle.dumps(content["config"]))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(UserError, match=r"asks for 'posix.system'.*nothing in it was executed"):
        convert(family, path, tmp_path / "out")
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


def _image_error(gen, golden):
    z = golden.arrays["z"].reshape(-1, gen.latent_dim)
    return error(gen.images(z), golden.arrays["image"])


def test_a_data_parallel_prefix_is_stripped(tmp_path):
    content = {f"module.{name}": value for name, value in load("dcgan_examples_a").items()}
    gen = convert("dcgan", write(tmp_path / "f.pth", content), tmp_path / "out")
    assert _image_error(gen, load_golden("dcgan_examples_a")) < TOLERANCE


def test_a_training_run_s_models_are_found_one_level_down(tmp_path):
    content = {"models": load("pggan_genforce_a"), "optimizers": {"lr": 0.1}, "iter": 7}
    gen = convert("pgan", write(tmp_path / "f.pth", content), tmp_path / "out")
    assert _image_error(gen, load_golden("pggan_genforce_a")) < TOLERANCE


def test_without_the_averaged_copy_the_other_is_taken(tmp_path):
    content = load("pgan_zoo_a")
    del content["avgG"]
    golden = load_golden("pgan_zoo_a")
    gen = convert("pgan", write(tmp_path / "f.pth", content), tmp_path / "out")
    assert error(gen.images(golden.arrays["z"]), golden.arrays["image_netG"]) < TOLERANCE


def test_parameters_and_int64_counters_in_old_files_are_accepted(tmp_path):
    state = load("dcgan_examples_a")
    assert any(value.dtype == torch.int64 for value in state.values())
    wrapped = OrderedDict(
        (n, torch.nn.Parameter(v) if v.is_floating_point() else v) for n, v in state.items()
    )
    gen = convert("dcgan", write(tmp_path / "f.pth", wrapped), tmp_path / "out")
    assert _image_error(gen, load_golden("dcgan_examples_a")) < TOLERANCE


def test_half_precision_and_strided_tensors_are_accepted(tmp_path):
    state = load("dcgan_examples_a")
    exact = {n: v.half().float() if v.is_floating_point() else v for n, v in state.items()}
    odd = {n: v.half() if v.is_floating_point() else v for n, v in state.items()}
    odd = {n: v.to(memory_format=torch.channels_last) if v.ndim == 4 else v for n, v in odd.items()}
    z = np.ones((1, 16), np.float32)
    images = [
        convert("dcgan", write(tmp_path / f"{i}.pth", s), tmp_path / f"out{i}").images(z)
        for i, s in enumerate((exact, odd))
    ]
    np.testing.assert_array_equal(*images)


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


def _change(how):
    """Write the genforce PGAN fixture with one thing wrong."""

    def write(path):
        content = load("pggan_genforce_a")
        state = content["generator_smooth"]
        if how == "missing":
            del state["layer3.bias"]
        elif how == "transposed":
            state["layer0.weight"] = state["layer0.weight"].transpose(0, 1).contiguous()
        elif how == "nan":
            state["layer2.weight"][0, 0, 0, 0] = float("nan")
        elif how == "discriminator":
            content = {"discriminator": content["discriminator"]}
        torch.save(content, path)

    return write


def _cut_short(path):
    data = load_golden("pggan_genforce_a").checkpoint.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _another_family(path):
    path.write_bytes(load_golden("stylegan2_genforce_a").checkpoint.read_bytes())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_another_family, "it looks like stylegan2: python -m converters stylegan2"),
        (_cut_short, "is damaged or not a torch checkpoint"),
        (_change("discriminator"), "is not a pgan file"),
        (_change("missing"), "missing layer3.bias"),
        (_change("transposed"), "layer0 has 24 output channels, output0 reads 16"),
        (_change("nan"), "layer2.weight has NaN"),
        (_plain_zip, "not a torch checkpoint"),
        (lambda path: path.write_bytes(b""), "is empty; download it again"),
        (lambda path: path.mkdir(), "is a folder; give the checkpoint file inside it"),
    ],
    ids=[
        "family", "truncated", "discriminator", "missing", "transposed", "nan", "zip", "empty",
        "folder",
    ],
)  # fmt: skip
def test_a_bad_file_on_the_command_line_is_one_line_and_exit_2(make, message, tmp_path, capsys):
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


def test_an_existing_folder_of_something_else_is_not_written_to(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="not a folder of converted weights; choose another"):
        convert("pgan", load_golden("pgan_zoo_b").checkpoint, tmp_path)
    assert os.listdir(tmp_path) == ["precious.txt"]


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
