"""A folder of converted weights is loaded whole or refused by name; it never half loads."""

import json
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy

import cgjax
from cgjax.errors import UserError
from cgjax.generators import weights
from cgjax.generators.base import PretrainedGenerator
from cgjax.generators.families import abstract_network, build_network
from cgjax.generators.weights import (
    MANIFEST_FILE,
    WEIGHTS_FILE,
    load_folder,
    named_arrays,
    save_generator,
    sha256_of,
)

ARCHITECTURE = {"form": "zoo", "latent_dim": 6, "depths": [8, 6, 4]}
SOURCE = {"name": "made here", "sha256": "0" * 64}


def _arrays():
    network = build_network("pgan", ARCHITECTURE)
    return {name: np.asarray(value) for name, value in named_arrays(network).items()}


@pytest.fixture
def folder(tmp_path):
    return save_generator(
        tmp_path / "pgan", "pgan", ARCHITECTURE, _arrays(), source=SOURCE, licence="none"
    )


def _rewrite(folder, change):
    """Change the arrays and make the hash right again, so that the next check must catch it."""
    path = folder / WEIGHTS_FILE
    arrays = dict(safetensors.numpy.load_file(path))
    change(arrays)
    safetensors.numpy.save_file(arrays, path)
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    manifest["weights_sha256"] = sha256_of(path)
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest))


def test_what_is_saved_is_what_is_loaded(folder):
    network = build_network("pgan", ARCHITECTURE)
    loaded = load_folder(folder)
    z = loaded.sample_latents(jax.random.key(0), 2)
    np.testing.assert_array_equal(loaded.images(z), PretrainedGenerator(network).images(z))
    assert loaded.manifest["source"] == SOURCE
    assert sorted(p.name for p in folder.iterdir()) == [MANIFEST_FILE, WEIGHTS_FILE]


def test_an_abstract_network_allocates_nothing():
    network = abstract_network("pgan", {**ARCHITECTURE, "depths": [512] * 8})
    assert all(isinstance(v, jax.ShapeDtypeStruct) for v in named_arrays(network).values())


@pytest.mark.parametrize("place", [20, -1])
def test_a_flipped_byte_is_refused_with_the_file_named(folder, place):
    path = folder / WEIGHTS_FILE
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=f"{WEIGHTS_FILE} is damaged"):
        load_folder(folder)


def test_a_truncated_file_is_refused(folder):
    path = folder / WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="is damaged"):
        load_folder(folder)


def test_a_file_that_is_no_safetensors_is_refused_even_with_its_hash(folder):
    path = folder / WEIGHTS_FILE
    path.write_bytes(b"not tensors")
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    manifest["weights_sha256"] = sha256_of(path)
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="not a safetensors file"):
        load_folder(folder)


def _set_nan(arrays):
    arrays["dense"][0, 0, 0, 0] = np.nan


def _transpose(arrays):
    arrays["to_rgb.0"] = np.ascontiguousarray(arrays["to_rgb.0"].T)


def _to_int(arrays):
    arrays["dense"] = arrays["dense"].astype(np.int32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("kernels.1"), "missing kernels.1"),
        (lambda a: a.update(stray=np.zeros(1, np.float32)), "extra stray"),
        (_set_nan, "dense has NaN"),
        (_transpose, "to_rgb.0 has shape"),
        (_to_int, "dense has dtype int32"),
    ],
    ids=["missing", "extra", "nan", "transposed", "integer"],
)
def test_arrays_that_do_not_fit_are_refused_by_name(folder, change, message):
    _rewrite(folder, change)
    with pytest.raises(UserError, match=message):
        load_folder(folder)


def test_all_problems_are_listed_in_one_error(folder):
    _rewrite(folder, lambda a: (a.pop("kernels.1"), _transpose(a), _set_nan(a)))
    with pytest.raises(UserError) as caught:
        load_folder(folder)
    assert all(word in str(caught.value) for word in ("kernels.1", "to_rgb.0", "dense has NaN"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a generator's manifest"),
        ("[]", "not a generator's manifest"),
        ('{"format": 99}', "reads format 1"),
        ('{"format": 1}', "damaged"),
    ],
)
def test_a_broken_manifest_is_refused(folder, text, message):
    (folder / MANIFEST_FILE).write_text(text)
    with pytest.raises(UserError, match=message):
        load_folder(folder)


def test_a_manifest_with_an_unknown_architecture_is_refused(folder):
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    for change in ({"family": "biggam"}, {"architecture": {"depth": 3}}):
        (folder / MANIFEST_FILE).write_text(json.dumps(manifest | change))
        with pytest.raises(UserError):
            load_folder(folder)


def test_a_folder_without_a_manifest_or_without_weights_is_refused(folder, tmp_path):
    with pytest.raises(UserError, match=f"no {MANIFEST_FILE}"):
        load_folder(tmp_path)
    (folder / WEIGHTS_FILE).unlink()
    with pytest.raises(UserError, match=f"no {WEIGHTS_FILE}"):
        load_folder(folder)


def test_saving_wrong_arrays_writes_nothing(tmp_path):
    arrays = _arrays()
    arrays.pop("dense")
    with pytest.raises(UserError, match="missing dense"):
        save_generator(tmp_path / "x", "pgan", ARCHITECTURE, arrays, source=SOURCE, licence="none")
    assert not (tmp_path / "x").exists()


def test_weights_too_large_for_float16_are_refused(tmp_path):
    arrays = _arrays()
    arrays["dense"] = arrays["dense"] * np.float32(1e6)
    with pytest.raises(UserError, match="--dtype=float32"):
        save_generator(
            tmp_path / "x",
            "pgan",
            ARCHITECTURE,
            arrays,
            source=SOURCE,
            licence="none",
            dtype=np.float16,
        )


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="other devices have memory of their own")
def test_weights_are_in_memory_once(monkeypatch, folder):
    read = weights._read_arrays
    arrays = {}
    monkeypatch.setattr(weights, "_read_arrays", lambda path: arrays.setdefault("a", read(path)))
    taken = named_arrays(load_folder(folder).network)
    for name, array in arrays["a"].items():
        assert taken[name][...].unsafe_buffer_pointer() == array.ctypes.data, name


def test_a_folder_can_be_moved(folder, tmp_path):
    shutil.move(folder, tmp_path / "elsewhere")
    assert cgjax.load_generator(tmp_path / "elsewhere").latent_dim == 6
