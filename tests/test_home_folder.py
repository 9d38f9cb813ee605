"""A path that begins with ~ is one in the home folder, wherever a user gives a path."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import cgjax
from cgjax.directions import Directions
from cgjax.endtoend.data import make_data
from cgjax.errors import UserError
from cgjax.evaluation import inception, lpips
from cgjax.generators.registry import ASSETS
from cgjax.generators.weights import load_folder, read_manifest
from cgjax.run.conditional import conditional_of
from cgjax.run.directions import load_directions, save_directions
from cgjax.runtime.cache import cache_folder
from cgjax.runtime.command import at_home
from cgjax.runtime.files import user_path
from converters.__main__ import convert, inspect
from converters.distance import convert_lpips
from tests.golden_cases import GOLDEN

ROOT = Path(cgjax.__file__).parents[1]
MODULES = [path for part in ("cgjax", "converters") for path in (ROOT / part).rglob("*.py")]
CHECKPOINT = GOLDEN / "dcgan_examples_a" / "netG.pth"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder that is not the current one, with a folder of weights and other files."""
    home, current = tmp_path / "home", tmp_path / "current"
    (home / "run").mkdir(parents=True)
    current.mkdir()
    (home / "run" / "config.json").write_text("not JSON")
    (home / "file").write_text("no tensors")
    (home / "weights").symlink_to(ASSETS / "dcgan_faces")
    shutil.copy(CHECKPOINT, home / "netG.pth")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(current)
    yield home
    assert not list(current.iterdir())


def test_only_a_leading_tilde_of_a_known_user_is_replaced(home):
    assert user_path("~/a") == home / "a"
    assert [str(user_path(text)) for text in ("a/~", "~nobody-of-this-name/a")] == [
        *("a/~", "~nobody-of-this-name/a")
    ]


def test_no_module_replaces_a_tilde_itself():
    texts = {path: path.read_text() for path in MODULES if path.name != "files.py"}
    assert not [path for path, text in texts.items() if "expanduser" in text]


def test_a_config_file_is_found_in_the_home_folder(home):
    words = ["cgjax", "--config=~/a.py:quick", "--config.layer=~", "~", "--config=configs/~.py"]
    assert at_home(words) == [words[0], f"--config={home}/a.py:quick", *words[2:]]


def test_without_a_home_folder_no_cache_is_made(home, monkeypatch):
    monkeypatch.delenv("CGJAX_CACHE", raising=False)

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(RuntimeError, match="home"):
        cache_folder()


def test_the_cache_may_be_in_the_home_folder(home, monkeypatch):
    monkeypatch.setenv("CGJAX_CACHE", "~/cache")
    assert cache_folder() == home / "cache"
    monkeypatch.delenv("CGJAX_CACHE")
    assert cache_folder() == home / ".cache" / "cgjax"


def test_folders_of_weights_are_found_in_the_home_folder(home):
    assert cgjax.load_generator("~/weights").layers == load_folder("~/weights").layers
    assert read_manifest("~/weights")["family"] == "dcgan"
    [one] = conditional_of({"conditional": ["~/weights"]})
    assert one.folder == home / "weights"


@pytest.mark.parametrize(
    ("read", "problem"),
    [
        (lambda: cgjax.load_generator("~/file"), "is a file; convert it first"),
        (lambda: cgjax.load_run("~/run"), "is damaged"),
        (lambda: inception.load_weights("~/file"), "not a safetensors file"),
        (lambda: lpips.load_params("~/file"), "not a safetensors file"),
        (lambda: load_directions("~/file"), "does not hold saved directions"),
        (lambda: make_data({"name": "stacked_digits", "path": "~/run"}).identity(), "no file"),
    ],
)
def test_files_are_found_in_the_home_folder(read, problem, home):
    with pytest.raises(UserError, match=problem):
        read()


def test_directions_are_saved_in_the_home_folder(home):
    numbers = {name: np.ones(2, np.float32) for name in ("strengths", "scales", "mean")}
    vectors = np.eye(2, dtype=np.float32)
    save_directions(Directions("sefa", "z", ("layer1",), vectors=vectors, **numbers), "~/d.npz")
    assert (home / "d.npz").is_file()
    np.testing.assert_array_equal(load_directions("~/d.npz").vectors, vectors)


@pytest.mark.torch
def test_a_checkpoint_is_converted_from_and_to_the_home_folder(home):
    assert str(home / "netG.pth") in inspect("~/netG.pth")
    convert("dcgan", "~/netG.pth", "~/new/weights")
    assert sorted(path.name for path in (home / "new" / "weights").iterdir()) == [
        *("generator.json", "weights.safetensors")
    ]
    with pytest.raises(UserError, match="tensors of neither trunk"):
        convert_lpips("~/netG.pth", "~/netG.pth", "~/lpips.safetensors")
