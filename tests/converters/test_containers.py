"""One small network in every kind of file: the same weights as in a plain file, or one line."""

import argparse
import collections
import datetime
import io
import itertools
import os
import pathlib
import pickle
import tarfile
import types
import warnings
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch

from cgjax.errors import UserError
from converters.__main__ import convert, inspect
from tests.converters.files import CASES, changed, command, generator, load, write

pytestmark = pytest.mark.torch

WIDTHS = (5, 8, 6, 3)


@pytest.fixture(scope="module")
def state():
    """A DCGAN's state dict: 4 + 1 numbers in, 16x16 out."""
    draw = torch.Generator().manual_seed(0)
    made = collections.OrderedDict()
    for i, (a, b) in enumerate(itertools.pairwise(WIDTHS)):
        made[f"main.{3 * i}.weight"] = torch.randn(a, b, 4, 4, generator=draw)
        if i < len(WIDTHS) - 2:
            for part in ("weight", "bias", "running_mean", "running_var"):
                made[f"main.{3 * i + 1}.{part}"] = torch.rand(b, generator=draw) + 0.5
            made[f"main.{3 * i + 1}.num_batches_tracked"] = torch.tensor(7)
    return made


def _hash(path, folder, settings=None, member="", family="dcgan"):
    gen = convert(family, path, folder, settings, member=member)
    return gen.manifest["weights_sha256"], gen.manifest["source"]["network"]


@pytest.fixture(scope="module")
def right(state, tmp_path_factory):
    folder = tmp_path_factory.mktemp("right")
    return _hash(write(folder / "f.pth", state), folder / "out")[0]


def _prefixed(prefix, state):
    return {f"{prefix}{name}": value for name, value in state.items()}


def _torch(make, **keywords):
    def put(path, state):
        torch.save(make(state), path, **keywords)

    return put


def _bytes(content, **keywords):
    buffer = io.BytesIO()
    torch.save(content, buffer, **keywords)
    return buffer.getvalue()


def _archive(members):
    def put(path, state):
        with zipfile.ZipFile(path, "w") as archive:
            for name, make in members.items():
                archive.writestr(name, make(state))

    return put


def _tar(mode):
    def put(path, state):
        with tarfile.open(path, mode) as archive:
            data = _bytes(state)
            info = tarfile.TarInfo("pkg/netG.pth")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))

    return put


def _safetensors(make):
    def put(path, state):
        safetensors.torch.save_file({n: v.clone() for n, v in make(state).items()}, path)

    return put


def _pickle(make, protocol=4):
    def put(path, state):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says its own storages are deprecated
            path.write_bytes(pickle.dumps(make(state), protocol=protocol))

    return put


def _arrays(state):
    return {name: value.numpy() for name, value in state.items()}


def _strided_arrays(state):
    """Return arrays in Fortran's order, and, for the kernels, in one that is neither."""
    return {
        n: np.ascontiguousarray(v.transpose(1, 0, 3, 2)).transpose(1, 0, 3, 2)
        if v.ndim == 4
        else np.asfortranarray(v)
        for n, v in _arrays(state).items()
    }


def _first_format(path, state):
    with tarfile.open(path, "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            archive.addfile(tarfile.TarInfo(name))


def _nested(state, path):
    for name in reversed(path.split("/")):
        state = {name: state}
    return state


def _adam(state):
    moments = {
        i: {"step": torch.tensor(3.0), "exp_avg": v, "exp_avg_sq": v.to_sparse()}
        for i, v in enumerate(state.values())
    }
    return {"state": moments, "param_groups": [{"lr": 1e-3, "params": list(moments)}]}


def _in_order_of_names(state):
    return dict(sorted(state.items()))


def _named_in_two_lists(state):
    """Convolutions registered before the norms, as conv1, conv2, ..., bn1, ...."""
    kinds = {"0": "conv1", "3": "conv2", "6": "conv3", "1": "bn1", "4": "bn2"}
    renamed = {f"{kinds[n.split('.')[1]]}.{n.split('.')[2]}": value for n, value in state.items()}
    return dict(sorted(renamed.items(), key=lambda item: item[0].startswith("bn")))


RAW = changed
WHOLE, G = ".", "netG"
# How the file is made, and where in it the network is.
SAME = {
    # torch's serializations, whatever else is in them
    "zip": (_torch(dict), WHOLE),
    "legacy": (_torch(dict, _use_new_zipfile_serialization=False), WHOLE),
    "legacy_3": (_torch(dict, _use_new_zipfile_serialization=False, pickle_protocol=3), WHOLE),
    "ordered_dict": (_torch(lambda s: s), WHOLE),
    "plain_dict": (_torch(lambda s: {"netG": dict(s)}), G),
    "parameters": (
        _torch(lambda s: {
            n: torch.nn.Parameter(v) if v.is_floating_point() else v for n, v in s.items()
        }),
        WHOLE,
    ),
    "sorted": (_torch(_in_order_of_names), WHOLE),
    "no_counters": (_torch(lambda s: {n: v for n, v in s.items() if "tracked" not in n}), WHOLE),
    "list": (_torch(lambda s: [s]), "0"),
    "tuple": (_torch(lambda s: (s, {"lr": 0.1})), "0"),
    "integer_key": (_torch(lambda s: {0: s}), "0"),
    # other containers
    "safetensors": (_safetensors(dict), WHOLE),
    "safetensors_prefixed": (_safetensors(lambda s: _prefixed("netG.", s)), WHOLE),
    "safetensors_both": (
        _safetensors(lambda s: _prefixed("G.", RAW(s)) | _prefixed("G_ema.", s)), "G_ema",
    ),
    "pickle": (_pickle(dict), WHOLE),
    "pickle_2": (_pickle(dict, 2), WHOLE),
    "pickle_of_arrays": (_pickle(_arrays), WHOLE),
    "pickle_5_of_arrays": (_pickle(_arrays, 5), WHOLE),
    "pickle_5_of_strided_arrays": (_pickle(_strided_arrays, 5), WHOLE),
    "npz": (lambda path, s: path.write_bytes(_npz(s)), WHOLE),
    "wheel": (_archive({"a/__init__.py": lambda s: "x", "a/netG.pth": _bytes}), WHOLE),
    "zip_of_legacy": (
        _archive({"netG.pth": lambda s: _bytes(s, _use_new_zipfile_serialization=False)}), WHOLE,
    ),
    "zip_of_zip": (_archive({"b.zip": lambda s: _zipped({"netG.pt": _bytes(s)})}), WHOLE),
    "zip_of_safetensors": (
        _archive({"model.safetensors": lambda s: safetensors.torch.save(dict(s))}), WHOLE,
    ),
    "tar": (_tar("w"), WHOLE),
    "tar_gz": (_tar("w:gz"), WHOLE),
    # prefixes
    **{
        f"prefix_{prefix}": (_torch(lambda s, p=prefix: _prefixed(p, s)), WHOLE)
        for prefix in (
            "module.", "module.module.", "_orig_mod.", "module._orig_mod.", "netG.", "generator.",
            "model.G.", "netG.module.", "a.b.c.",
        )
    },
    "lightning": (
        _torch(lambda s: {
            "epoch": 3, "pytorch-lightning_version": "2.0",
            "state_dict": _prefixed("generator.", s)
            | {"discriminator.0.weight": torch.ones(6, 3, 4, 4)},
            "hyper_parameters": {"lr": 1e-3}, "optimizer_states": [_adam(s)],
        }),
        "state_dict.generator",
    ),
    "decoder_of_a_whole": (
        _torch(lambda s: _prefixed("encoder.", {"0.weight": torch.ones(8, 3, 4, 4)})
               | _prefixed("decoder.", s)),
        "decoder",
    ),
    # nesting
    **{
        f"nested_{path}": (_torch(lambda s, p=path: _nested(s, p)), path.replace("/", "."))
        for path in ("state_dict", "models/generator", "a/b/c/d", "model/G/state_dict")
    },
    # the averaged copy beside the raw one
    "flat_averaged_inside": (
        _torch(lambda s: _prefixed("online_model.", RAW(s)) | _prefixed("ema_model.", s)
               | {"initted": torch.tensor(1), "step": torch.tensor(5)}),
        "ema_model",
    ),
    "averaged_wrapper_with_both": (
        _torch(lambda s: _prefixed("G.", RAW(s)) | _prefixed("ema_G.ema_model.", s)
               | _prefixed("ema_G.online_model.", RAW(s)) | {"ema_G.step": torch.tensor(5)}),
        "ema_G.ema_model",
    ),
    "flat_averaged_beside_bare": (_torch(lambda s: {**RAW(s), **_prefixed("ema.", s)}), "ema"),
    "lightning_averaged": (
        _torch(lambda s: {"state_dict": _prefixed("G.", RAW(s)) | _prefixed("G_ema.", s)}),
        "state_dict.G_ema",
    ),
    # what lies beside the weights
    "optimizer": (_torch(lambda s: {"netG": s, "optimizerG": _adam(s)}), G),
    "optimizer_quantised": (_torch(lambda s: {"netG": s, "optim": _quantised(s)}), G),
    "discriminator": (
        _torch(lambda s: {"netG": s, "netD": {"main.0.weight": torch.ones(6, 3, 4, 4),
                                              "main.2.weight": torch.ones(1, 6, 4, 4)}}),
        G,
    ),
    "namespace": (_torch(lambda s: {"netG": s, "args": argparse.Namespace(ngf=8)}), G),
    "numpy_numbers": (
        _torch(lambda s: {"netG": s, "fid": np.float64(9.5), "rng": np.arange(3)}),
        G,
    ),
    "paths": (_torch(lambda s: {"netG": s, "root": pathlib.PurePosixPath("/data")}), G),
    "default_dict": (
        _torch(lambda s: {"netG": s, "log": collections.defaultdict(list, {"loss": [1.0]})}), G,
    ),
    "meta_beside": (_torch(lambda s: {"netG": s, "x": {"w": torch.empty(2, device="meta")}}), G),
    # layers under other names
    "blocks": (
        _torch(lambda s: {n.replace("main.", "blocks.").replace(".weight", ".conv.weight")
                          if "main.1" not in n and "main.4" not in n
                          else n.replace("main.", "norms."): v for n, v in s.items()}),
        WHOLE,
    ),
    "two_lists": (_torch(_named_in_two_lists), WHOLE),
    "two_lists_sorted": (_safetensors(_named_in_two_lists), WHOLE),
    "dropout_between": (
        _torch(lambda s: {n.replace("main.3", "main.4").replace("main.4.r", "main.5.r")
                          if n.startswith(("main.3", "main.4")) is False else
                          n.replace("main.4", "main.5").replace("main.3", "main.4"): v
                          for n, v in s.items()}),
        WHOLE,
    ),
}  # fmt: skip


def _npz(state, **more):
    buffer = io.BytesIO()
    np.savez(buffer, **_arrays(state), **more)
    return buffer.getvalue()


def _zipped(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _quantised(state):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            n: torch.quantize_per_tensor(v, 0.01, 0, torch.qint8)
            for n, v in state.items()
            if v.is_floating_point()
        }


@pytest.mark.parametrize("kind", SAME)
def test_a_container_gives_the_same_numbers_as_the_plain_file(kind, state, right, tmp_path):
    put, network = SAME[kind]
    path = tmp_path / "f.bin"
    put(path, state)
    assert _hash(path, tmp_path / "out") == (right, network.strip())
    assert sorted(os.listdir(tmp_path)) == ["f.bin", "out"]


@pytest.mark.parametrize(
    "dtype", ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float64"]
)
def test_floats_of_other_widths_in_safetensors_convert_to_their_values(dtype, state, tmp_path):
    kind = getattr(torch, dtype)
    narrow = {n: v.to(kind) if v.is_floating_point() else v for n, v in state.items()}
    exact = {n: v.to(kind).float() if v.is_floating_point() else v for n, v in state.items()}
    _safetensors(dict)(tmp_path / "narrow", narrow)
    right = _hash(write(tmp_path / "exact", exact), tmp_path / "right")
    assert _hash(tmp_path / "narrow", tmp_path / "out") == right


class _Call:
    """Pickles to a call."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def _traced(path, state):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), path)


REFUSED = {
    "two_files_in_a_wheel": (
        _archive({"G.pth": _bytes, "D.pth": _bytes}), r"--member=: G.pth, D.pth",
    ),
    "no_checkpoint_in_a_wheel": (_archive({"a.py": lambda s: "x"}), "no file in it is named"),
    "flat_generators": (
        _torch(lambda s: _prefixed("A.", s) | _prefixed("B.", RAW(s))), r"--key=A",
    ),
    "meta": (_torch(lambda s: {n: v.to("meta") for n, v in s.items()}), "meta|not a dcgan file"),
    "whole_module": (
        _torch(lambda s: torch.nn.Sequential(torch.nn.ConvTranspose2d(4, 4, 4))),
        "asks for 'torch.nn.modules.container.Sequential'.*save the state dict alone",
    ),
    "torchscript": (_traced, "TorchScript program"),
    "protocol_4": (_torch(dict, pickle_protocol=4), "another pickle protocol.*save it again"),
    "legacy_protocol_4": (
        _torch(dict, pickle_protocol=4, _use_new_zipfile_serialization=False),
        "another pickle protocol.*save it again",
    ),
    "protocol_3_with_arrays": (
        _torch(_arrays, pickle_protocol=3), "another pickle protocol.*save it again",
    ),
    "first_format": (_first_format, "torch's first file format.*save it again"),
    "lfs_pointer": (
        lambda path, s: path.write_text("version https://git-lfs.github.com/spec/v1\noid x\n"),
        "Git LFS pointer",
    ),
    "web_page": (lambda path, s: path.write_text("\n<!doctype html><html>"), "a web page"),
    "hdf5": (lambda path, s: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64)), "HDF5"),
    "cut_safetensors": (
        lambda path, s: path.write_bytes(safetensors.torch.save(dict(s))[:-9]), "damaged",
    ),
    "cut_zip": (lambda path, s: path.write_bytes(_bytes(s)[:-99]), "damaged"),
    "cut_wheel": (
        lambda path, s: path.write_bytes(_zipped({"netG.pth": _bytes(s)[:-99]})), "damaged",
    ),
    "npz_of_objects": (
        lambda path, s: path.write_bytes(_npz(s, a=np.array([{}], object))), "damaged",
    ),
    "datetime": (
        _torch(lambda s: {"netG": s, "when": datetime.timedelta(1)}), "asks for 'datetime",
    ),
    "malicious_in_a_wheel": (
        _archive({"netG.pth": lambda s: _bytes({"x": _Call(os.system, "touch executed")})}),
        r"asks for 'posix.system'.*nothing in it was executed",
    ),
    "eval": (_torch(lambda s: {"netG": s, "x": _Call(eval, "1")}), "asks for 'eval'"),
    "getattr": (_torch(lambda s: {"x": _Call(getattr, "a", "upper")}), "asks for 'getattr'"),
    "foreign_class": (_torch(lambda s: {"x": types.SimpleNamespace()}), "SimpleNamespace"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_an_unconvertible_file_is_refused_in_one_line_and_leaves_nothing(
    kind, state, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    put, message = REFUSED[kind]
    path = tmp_path / "f.bin"
    put(path, state)
    with pytest.raises(UserError, match=message) as caught:
        convert("dcgan", path, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700
    with pytest.raises(UserError):
        inspect(path)
    assert os.listdir(tmp_path) == ["f.bin"]


def _with_config(content, state):
    config = {"config": content["config"]} if "config" in content else {}
    return {**config, "netG": state}


FORMS = {
    "wheel": lambda c, s: (_archive({"a/f.pth": lambda _: _bytes(_with_config(c, s))}), "netG"),
    "flat": lambda c, s: (_torch(lambda _: {"G": {**_prefixed("module.netG.", s), "netD.x":
        torch.ones(1), "netD.y": torch.ones(1)}, **_with_config(c, {})}), "G.netG"),
    "both": lambda c, s: (_torch(lambda _: {**_with_config(c, RAW(s)), "ema": {"G": s}}), "ema.G"),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CASES)
def test_every_family_converts_from_every_container(name, form, tmp_path):
    family, settings = CASES[name]
    content = load(name)
    own = {n: v for n, v in generator(content).items() if isinstance(v, torch.Tensor)}
    plain = write(tmp_path / "plain.pth", _with_config(content, own))
    right = _hash(plain, tmp_path / "right", settings, family=family)[0]
    put, network = FORMS[form](content, own)
    put(tmp_path / "f.bin", None)
    assert _hash(tmp_path / "f.bin", tmp_path / "out", settings, family=family) == (right, network)


@pytest.mark.parametrize("name", CASES)
def test_a_single_layer_stored_in_parts_is_folded(name, tmp_path):
    family, settings = CASES[name]
    content = load(name)
    right = _hash(write(tmp_path / "f.pth", content), tmp_path / "o", settings, family=family)
    state = generator(content)
    layer = [n for n in state if n.endswith(".weight") and state[n].ndim > 1][-1]
    weight = state.pop(layer)
    state |= {f"{layer}_orig": weight, f"{layer}_mask": torch.ones_like(weight)}
    path = write(tmp_path / "g.pth", content)
    assert _hash(path, tmp_path / "p", settings, family=family) == right
    assert f"{layer.replace('.module.', '.')} (pruned)" in inspect(path, settings)


def test_the_member_and_the_key_that_a_refusal_asks_for_convert(state, right, tmp_path, capsys):
    path = tmp_path / "f.whl"
    _archive({"a/G.pth": lambda s: _bytes({"A": RAW(s), "B": s}), "D.pth": _bytes})(path, state)
    arguments = ("dcgan", f"--src={path}", f"--dst={tmp_path / 'out'}")
    assert command(*arguments) == 2
    assert "--member=" in capsys.readouterr().err
    assert command(*arguments, "--member=a/G.pth") == 2
    assert "--key=A" in capsys.readouterr().err
    assert command(*arguments, "--member=G.pth", "--key=B") == 0
    said = capsys.readouterr()
    assert "network: B (also in the file: A)" in said.out
    assert "warning: assumed" in said.err
    assert "--set output=sigmoid" in said.err
    assert _hash(path, tmp_path / "again", {"network": "B"}, "G.pth")[0] == right
    with pytest.raises(UserError, match="is not a wheel, zip or tar; leave --member out"):
        convert("dcgan", write(tmp_path / "g.pth", state), tmp_path / "o", member="x")


def test_inspect_names_what_is_at_every_level_and_the_command_converts(
    state, right, tmp_path, capsys
):
    path = tmp_path / "f.whl"
    content = {
        "state_dict": _prefixed("G.", RAW(state)) | _prefixed("G_ema.", state),
        "netD": {"main.0.weight": torch.ones(6, 3, 4, 4)},
        "optimizer": _adam(state),
    }
    _archive({"a/G.pth": lambda s: _bytes(content)})(path, state)
    said = inspect(path).splitlines()
    for line in (
        "container: wheel > torch (zip)",
        "member: a/G.pth",
        "holds: netD: 1 tensors, no known generator",
        "holds: state_dict.G: 13 tensors, dcgan generator (examples)",
        "holds: state_dict.G_ema: 13 tensors, dcgan generator (examples), averaged",
        "holds: optimizer: not examined",
        "network: state_dict.G_ema (averaged; also in the file: state_dict.G)",
        "prefix: G_ema. dropped",
        "assumed: ReLU (--set leak=0.2 for LeakyReLU)",
    ):
        assert line in said, line
    words = said[-1].removeprefix("command: python -m converters ").split()
    out = tmp_path / "out"
    assert command(*words[:-1], f"--dst={out}") == 0
    assert f"network: {'state_dict.G_ema'}" in capsys.readouterr().out
    assert _hash(path, out)[0] == right
