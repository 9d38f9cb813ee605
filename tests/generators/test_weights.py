"""A folder of converted weights is loaded completely, or refused with the name of what is wrong."""

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
from cgjax.generators.families import FAMILIES, abstract_network, build_network, check_pass
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
    """Change the arrays and correct the hash, so that a later check must catch the change."""
    path = folder / WEIGHTS_FILE
    arrays = dict(safetensors.numpy.load_file(path))
    change(arrays)
    safetensors.numpy.save_file(arrays, path)
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    manifest["weights_sha256"] = sha256_of(path)
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest))


def test_a_saved_generator_is_loaded_unchanged(folder):
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


def test_a_file_that_is_not_safetensors_is_refused_even_with_its_hash(folder):
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
        ("{", "not a generator manifest"),
        ("[]", "not a generator manifest"),
        ('{"format": 99}', "reads format 1"),
        ('{"format": 1}', "not a generator manifest: family is missing"),
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


def _save(folder, **changes):
    arguments = {
        "family": "pgan", "architecture": ARCHITECTURE, "arrays": _arrays(), "source": SOURCE,
        "licence": "none",
    }  # fmt: skip
    return save_generator(folder, **{**arguments, **changes})


@pytest.mark.parametrize("factor", [1e-6, 1e-9, 1e6])
def test_weights_that_do_not_fit_float16_are_refused_by_name(folder, factor):
    arrays = _arrays()
    arrays["dense"] = arrays["dense"] / np.abs(arrays["dense"]).max() * np.float32(factor)
    with pytest.raises(UserError, match=r"dense does not fit float16.*--dtype=float32"):
        _save(folder, arrays=arrays, dtype=np.float16)
    arrays["dense"] *= np.float32(1e-3 / factor)  # numbers small beside the largest may be lost
    assert _save(folder, arrays=arrays, dtype=np.float16) == folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": {"name": "x", "p": object()}}, "source cannot be written to generator.json"),
        ({"source": {"sha256": "0"}}, "source: name is missing"),
        ({"source": {"name": 3}}, "source: name=3, expected a text"),
        ({"architecture": ARCHITECTURE | {"latent_dim": np.int64(6)}}, "architecture cannot be"),
        ({"architecture": {"form": "zoo", "latent_dim": 6, "depth": [8]}}, "depth is not known"),
        ({"architecture": ARCHITECTURE | {"leak": float("nan")}}, "leak=None, expected"),
        ({"licence": None}, "licence=None, expected a text"),
        ({"dtype": np.int8}, "expected float32 or float16"),
        ({"dtype": "half past"}, "expected float32 or float16"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.usefixtures("untyped")
def test_a_refused_save_leaves_the_existing_generator(folder, changes, message):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UserError, match=message) as caught:
        _save(folder, **changes)
    assert "\n" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    "names",
    [[MANIFEST_FILE], [WEIGHTS_FILE], [MANIFEST_FILE, WEIGHTS_FILE], ["notes.txt"]],
    ids=str,
)
def test_a_folder_with_other_files_is_never_written_to(tmp_path, names):
    for name in names:
        (tmp_path / name).write_text('{"name": "mine", "format": 1}')
    with pytest.raises(UserError, match="is not a folder of converted weights"):
        _save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    assert all("mine" in (tmp_path / name).read_text() for name in names)


def test_an_unwritable_destination_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="cannot write"):
        _save(tmp_path / "file" / "below")


SMALL = {
    "dcgan": {"latent_dim": 4, "widths": [4, 2]},
    "pgan": ARCHITECTURE,
    "stylegan": {
        "form": "zoo", "latent_dim": 4, "style_dim": 4, "mapping_widths": [4], "depths": [4, 2],
    },
    "stylegan2": {
        "form": "nvidia", "latent_dim": 4, "style_dim": 4, "mapping_widths": [4], "depths": [4, 2],
    },
    "stylegan3": {
        "latent_dim": 4, "style_dim": 4, "mapping_widths": [4], "widths": [4, 4, 4],
        "schedule": {"image_size": 16, "num_layers": 2, "num_critical": 1},
    },
    "biggan": {
        "latent_dim": 4, "num_classes": 2, "width": 4, "attention": None,
        "blocks": [[1, 64, 32], [0, 32, 16], [0, 16, 8], [0, 8, 4]],
    },
    "biggan_pytorch": {
        "latent_dim": 4, "num_classes": 2, "widths": [8, 4], "embedding_dim": 2,
        "hierarchical": True,
    },
    "residual": {"latent_dim": 4, "blocks": [[0, 4, 4], [1, 4, 2]]},
}  # fmt: skip

WRONG = {
    "dcgan": [
        {"widths": []}, {"widths": 3}, {"stages": [[4, 2, 1, 0]]}, {"latent_dim": 0}, {"tanh": []},
        {"tanh": "a"}, {"leak": "a"}, {"leak": 7}, {"leak": None}, {"stages": [[4, 0, 1, 0]] * 2},
        {"stages": [[4, 2, 9, 0]] * 2}, {"stages": [[4, 2, 1]] * 2}, {"class_names": ["a"]},
        {"per_class": True}, {"categories": [5]}, {"latent_dim": True}, {"latent_dim": 1e9},
    ],
    "pgan": [
        {"form": []}, {"form": "other"}, {"depths": []}, {"blend": 2}, {"extra_doublings": 99},
        {"form": "netdissect", "blend": 0.5}, {"depth": 3},
    ],
    "stylegan": [{"mapping_widths": []}, {"mapping_widths": [12]}, {"truncation": "a"}],
    "stylegan2": [{"clamp": "a"}, {"filter_taps": "a"}, {"filter_taps": []}, {"skip": 1}],
    "stylegan3": [
        {"output_scale": "a"}, {"schedule": {}}, {"schedule": {"image_size": 16, "radial": 2}},
        {"schedule": {"image_size": 16, "num_layers": 2, "num_critical": 2}}, {"schedule": []},
        {"schedule": {"image_size": 16, "num_layers": 2, "first_cutoff": 0}}, {"widths": [4]},
    ],
    "biggan": [{"eps": None}, {"eps": -1}, {"blocks": [[1]]}, {"blocks": [[2, 64, 4]]},
               {"blocks": [[1, 32, 4]]}, {"num_stats": 1}, {"num_classes": 0}],
    "biggan_pytorch": [{"attention": [3]}, {"latent_dim": 5}, {"hierarchical": "a"}],
    "residual": [{"blocks": []}, {"blocks": [[0, 4, 4], [1, 3, 2]]}, {"output_kernel": 2}],
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_an_architecture_of_every_family_passes_all_checks(family):
    check_pass(abstract_network(family, SMALL[family]))


@pytest.mark.parametrize(
    ("family", "change"), [(f, c) for f, changes in WRONG.items() for c in changes], ids=str
)
@pytest.mark.usefixtures("untyped")
def test_an_edited_architecture_is_refused_when_it_is_loaded(family, change, tmp_path):
    network = build_network(family, SMALL[family])
    arrays = {name: np.asarray(value) for name, value in named_arrays(network).items()}
    _save(tmp_path, family=family, architecture=SMALL[family], arrays=arrays)
    manifest = json.loads((tmp_path / MANIFEST_FILE).read_text())
    manifest["architecture"] |= change
    (tmp_path / MANIFEST_FILE).write_text(json.dumps(manifest))
    with pytest.raises(
        UserError, match=r"generator\.json does not describe a network of"
    ) as caught:
        load_folder(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_unedited_manifest_is_not_traced_again(folder, monkeypatch):
    passes = []
    monkeypatch.setattr(weights, "check_pass", passes.append)
    assert "seal" not in load_folder(folder).manifest
    assert passes == []
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    for changed in (manifest | {"licence": "other"}, {**manifest, "seal": None}):
        (folder / MANIFEST_FILE).write_text(json.dumps(changed))
        load_folder(folder)
    assert len(passes) == 2


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="other devices have memory of their own")
def test_loading_holds_the_weights_in_memory_once(monkeypatch, folder):
    read = weights._read_arrays
    arrays = {}
    monkeypatch.setattr(weights, "_read_arrays", lambda path: arrays.setdefault("a", read(path)))
    taken = named_arrays(load_folder(folder).network)
    for name, array in arrays["a"].items():
        assert taken[name][...].unsafe_buffer_pointer() == array.ctypes.data, name


def test_a_folder_can_be_moved(folder, tmp_path):
    shutil.move(folder, tmp_path / "elsewhere")
    assert cgjax.load_generator(tmp_path / "elsewhere").latent_dim == 6
