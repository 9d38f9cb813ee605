"""The destination always holds a whole conversion or its old content, whatever happens."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from cgjax.errors import Interrupted, UserError
from cgjax.generators import folders
from cgjax.generators.weights import load_folder
from cgjax.runtime.signals import SIGNALS, on_interrupt
from converters.__main__ import convert
from tests.converters.files import changed, command, load, write
from tests.golden_cases import load_golden
from tests.killing import Killed

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two checkpoints of one layout."""
    folder, state = tmp_path_factory.mktemp("files"), load("dcgan_examples_a")
    return write(folder / "old.pth", state), write(folder / "new.pth", changed(state))


@pytest.fixture(scope="module")
def hashes(files, tmp_path_factory):
    """Hashes of their weights."""
    folder = tmp_path_factory.mktemp("hashes")
    return [_weights(convert("dcgan", path, folder / path.stem)) for path in files]


def _weights(gen):
    return gen.manifest["weights_sha256"]


def _names(folder):
    return sorted(os.listdir(folder))


WHOLE = ["generator.json", "weights.safetensors"]


def test_an_impossible_destination_is_refused_before_the_file_is_read(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious.txt").write_text("mine")
    for dst, message in (
        ("file", "is a file"),
        ("file/below", r"is inside .*file, which is a file"),
        ("file/far/below", r"is inside .*file, which is a file"),
        ("other", "is not a folder of converted weights"),
        ("x" * 300, "File name too long"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            convert("dcgan", tmp_path / "no_such_file.pth", tmp_path / dst)
        assert "\n" not in str(caught.value)
    assert _names(tmp_path) == ["file", "other"]
    assert (tmp_path / "file").read_text() == "mine"


def _files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_input_files_are_never_overwritten(files, tmp_path):
    own = tmp_path / "own"
    convert("dcgan", files[0], own)
    (own / ".unfinished-x").mkdir()
    state = {name: value.contiguous() for name, value in load("dcgan_examples_a").items()}
    for name in ("weights.safetensors", ".unfinished-x/weights.safetensors"):
        safetensors.torch.save_file(state, own / name)
    (tmp_path / "link").symlink_to(own)
    before = _files(own)
    for src in (own / "weights.safetensors", tmp_path / "link" / "weights.safetensors",
                own / ".unfinished-x" / "weights.safetensors"):  # fmt: skip
        with pytest.raises(UserError, match=r"would overwrite .*weights\.safetensors"):
            convert("dcgan", src, own)
    assert _files(own) == before
    assert (own / ".unfinished-x" / "weights.safetensors").is_file()


def test_an_input_config_is_never_overwritten(tmp_path):
    golden = load_golden("biggan_deep_a").checkpoint
    convert("biggan", golden, tmp_path / "o")
    manifest = tmp_path / "o" / "generator.json"
    config = golden.with_name("config.json").read_text()
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **json.loads(config)}))
    before = _files(tmp_path / "o")
    with pytest.raises(UserError, match=r"would overwrite .*generator\.json"):
        convert("biggan", golden, tmp_path / "o", {"config": str(manifest)})
    assert _files(tmp_path / "o") == before


@pytest.mark.parametrize("text", ["{}", '{"name": "mine"}', '{"format": 1}', "mine"])
def test_a_foreign_generator_json_does_not_make_a_folder_ours(text, files, tmp_path):
    (tmp_path / "generator.json").write_text(text)
    with pytest.raises(UserError, match="is not a folder of converted weights"):
        convert("dcgan", files[0], tmp_path)
    assert _files(tmp_path) == {"generator.json": text.encode()}


def test_another_dtype_or_family_is_refused_before_the_file_is_read(tmp_path):
    with pytest.raises(UserError, match="dtype=int8: expected float32 or float16"):
        convert("dcgan", tmp_path / "no_such_file", tmp_path / "o", dtype="int8")
    with pytest.raises(UserError, match=r"'dcgam' is not known.*did you mean dcgan"):
        convert("dcgam", tmp_path / "no_such_file", tmp_path / "o")


@pytest.mark.parametrize("place", ["folder", "folder/new", "folder/far/below"])
def test_a_read_only_destination_is_refused_before_the_file_is_read(place, tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    # Root may write anywhere, so simulate a read-only file system.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path / "folder")
    with pytest.raises(UserError, match=r"cannot write .*folder is read-only"):
        convert("dcgan", tmp_path / "no_such_file.pth", tmp_path / place)


@pytest.mark.parametrize("call", ["mkdir", "mkdtemp", "replace", "unlink", "fsync"])
def test_a_full_disk_is_one_line_and_leaves_the_old_folder(
    call, files, hashes, tmp_path, monkeypatch
):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    def fails(dst):
        with monkeypatch.context() as patch:
            owner = {"mkdir": Path, "unlink": Path, "mkdtemp": folders.tempfile}.get(call, os)
            patch.setattr(owner, call, full)
            with pytest.raises(UserError, match=r"cannot write .*No space left on device"):
                convert("dcgan", files[1], dst)

    if call != "unlink":  # nothing to unlink in a new folder
        fails(tmp_path / "new" / "below")
        assert not (tmp_path / "new").exists()
    convert("dcgan", files[0], tmp_path / "old")
    if call != "mkdir":
        fails(tmp_path / "old")
    assert _names(tmp_path / "old") == WHOLE
    assert _weights(load_folder(tmp_path / "old")) == hashes[0]


def _steps(monkeypatch, stop_at):
    """Kill the process at its n-th change to the file system; return the counter."""
    count = [0]

    def counted(owner, name):
        real = getattr(owner, name)

        def step(*args, **keywords):
            count[0] += 1
            if 0 < stop_at <= count[0]:  # from here on nothing is executed, not even clean-up
                raise Killed
            return real(*args, **keywords)

        monkeypatch.setattr(owner, name, step)

    for owner, names in ((os, ("replace", "fsync", "chmod", "rmdir", "unlink", "mkdir")),
                         (Path, ("unlink", "mkdir", "rmdir")),
                         (folders.shutil, ("rmtree",))):  # fmt: skip
        for name in names:
            counted(owner, name)
    return count


@pytest.mark.parametrize("is_replacing", [False, True], ids=["new", "replacing"])
def test_killed_at_any_step_a_folder_is_old_new_or_absent_and_rerunning_repairs_it(
    is_replacing, files, hashes, tmp_path
):
    with pytest.MonkeyPatch.context() as patch:
        count = _steps(patch, 0)
        if is_replacing:
            convert("dcgan", files[0], tmp_path / "count")
        before = count[0]
        convert("dcgan", files[1], tmp_path / "count")
        steps = count[0] - before
    assert steps > 6
    seen = set()
    for stop_at in range(1, steps + 1):
        dst = tmp_path / str(stop_at)
        if is_replacing:
            convert("dcgan", files[0], dst)
        with pytest.MonkeyPatch.context() as patch:
            _steps(patch, stop_at)
            with pytest.raises(Killed):
                convert("dcgan", files[1], dst)
        if (dst / "generator.json").exists():
            # Loading compares the hashes: never a mixture, never a damaged one.
            seen.add(hashes.index(_weights(load_folder(dst))))
        else:
            seen.add(None)
        assert _weights(convert("dcgan", files[1], dst)) == hashes[1]
        assert _names(dst) == WHOLE
    assert seen == ({0, None, 1} if is_replacing else {None, 1})


def test_leftovers_of_an_older_version_are_replaced(files, tmp_path):
    (tmp_path / ".weights.safetensors.abc").write_bytes(b"half")
    (tmp_path / "weights.safetensors").write_bytes(b"half")
    (tmp_path / ".unfinished-x").mkdir()
    convert("dcgan", files[0], tmp_path)
    assert _names(tmp_path) == WHOLE


def test_folders_that_another_process_is_writing_are_left_alone(files, tmp_path):
    (tmp_path / ".unfinished-x").mkdir()
    with folders._locked(tmp_path / ".unfinished-x"):
        convert("dcgan", files[0], tmp_path)
        assert _names(tmp_path) == [".unfinished-x", *WHOLE]
    convert("dcgan", files[0], tmp_path)
    assert _names(tmp_path) == WHOLE


def test_two_conversions_at_once_to_one_folder_both_succeed(files, hashes, tmp_path):
    def convert_another(*_):
        assert _weights(convert("dcgan", files[0], tmp_path / "o")) == hashes[0]
        assert _weights(load_folder(tmp_path / "o")) == hashes[0]

    convert("dcgan", files[1], tmp_path / "o", check=convert_another)
    assert _weights(load_folder(tmp_path / "o")) == hashes[1]
    assert _names(tmp_path / "o") == WHOLE


def test_without_locks_converting_works_too(files, tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "fcntl", None)
    (tmp_path / ".unfinished-x").mkdir()
    convert("dcgan", files[0], tmp_path)
    assert _names(tmp_path) == [".unfinished-x", *WHOLE]


def test_other_files_beside_the_weights_stay(files, tmp_path):
    convert("dcgan", files[0], tmp_path)
    (tmp_path / "README").write_text("mine")
    convert("dcgan", files[1], tmp_path)
    assert _names(tmp_path) == ["README", *WHOLE]


def test_a_network_whose_images_are_not_finite_is_never_put_in_place(tmp_path, capsys):
    state = load("dcgan_examples_a")
    state["main.12.weight"] = torch.full_like(state["main.12.weight"], 3e38)
    path = write(tmp_path / "f.pth", state)
    assert command("dcgan", f"--src={path}", f"--dst={tmp_path / 'o'}", "--set=tanh=false") == 2
    assert "images have NaN or infinite values" in capsys.readouterr().err
    assert _names(tmp_path) == ["f.pth"]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_writing_leaves_the_old_folder(number, files, hashes, tmp_path):
    convert("dcgan", files[0], tmp_path / "o")
    before = signal.getsignal(number)

    def interrupt(*_):
        os.kill(os.getpid(), number)

    with pytest.raises(Interrupted, match="is unchanged"):
        convert("dcgan", files[1], tmp_path / "o", check=interrupt)
    with pytest.raises(Interrupted):
        convert("dcgan", files[1], tmp_path / "n" / "m", check=interrupt)
    assert _names(tmp_path) == ["o"]
    assert _names(tmp_path / "o") == WHOLE
    assert _weights(load_folder(tmp_path / "o")) == hashes[0]
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", SIGNALS)
def test_signals_while_files_are_renamed_leave_them_whole(number, tmp_path, monkeypatch):
    replace = os.replace

    def interrupted(*args):
        os.kill(os.getpid(), number)
        replace(*args)

    def stop(*_):
        raise Interrupted("half of the files are renamed")

    monkeypatch.setattr(folders.os, "replace", interrupted)
    with (
        on_interrupt(stop, SIGNALS),
        folders.replacing(tmp_path / "o", WHOLE) as folder,
    ):
        for name in WHOLE:
            (folder / name).write_text("new")
    assert _names(tmp_path / "o") == WHOLE


def test_a_handler_is_put_back_after_its_block():
    before = signal.getsignal(signal.SIGINT)
    with contextlib.suppress(KeyError), on_interrupt(signal.SIG_IGN):
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        raise KeyError
    assert signal.getsignal(signal.SIGINT) is before


# The process itself


def _start(tmp_path, *arguments, interrupt_at="", number=signal.SIGINT, **keywords):
    """Run the command, with a signal when it imports a given module."""
    (tmp_path / "site").mkdir(exist_ok=True)
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import os, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {interrupt_at!r}:\n"
        f"            os.kill(os.getpid(), {int(number)})\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join([str(tmp_path / "site"), root])
    return subprocess.run(
        [sys.executable, "-m", "converters", *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": paths},
        check=False,
        **keywords,
    )


@pytest.mark.parametrize(
    ("module", "number"),
    [
        *((module, signal.SIGINT) for module in ("absl", "jax", "flax", "converters.reading")),
        ("torch", signal.SIGTERM),
    ],
)
def test_a_signal_at_any_import_is_one_line_and_exit_130(module, number, files, tmp_path):
    arguments = "dcgan", f"--src={files[0]}", f"--dst={tmp_path / 'out'}"
    interrupt = {"interrupt_at": module, "number": number}
    done = _start(tmp_path, *arguments, **interrupt, stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.strip() == "interrupted: stopped before anything was done"
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["--list"], ["--help"]], ids=str)
def test_a_full_standard_output_is_one_line_and_exit_2(arguments, tmp_path):
    with open("/dev/full", "w") as full:
        done = _start(tmp_path, *arguments, stdout=full)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.endswith("No space left on device\n")


def test_the_folder_records_its_source(files, tmp_path):
    convert("dcgan", files[0], tmp_path / "o")
    source = json.loads((tmp_path / "o" / "generator.json").read_text())["source"]
    assert source.keys() == {"name", "sha256", "container", "network", "assumed"}
    assert source["container"] == "dcgan/examples"
