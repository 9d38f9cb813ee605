"""Edited or damaged files of a run end in a one-line error, or in the right samples."""

import json
import shutil

import jax
import numpy as np
import pytest

from cgjax.errors import UserError
from cgjax.run.folder import Provenance, RunFolder, save_config
from cgjax.run.opening import load_run, open_run
from cgjax.stages import cluster
from tests.run.changes import small
from tests.stages.tiny_runs import run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("finished") / "run"
    config = small()
    for name, settings in config["samplers"].items():
        settings["fit"] = name == "flow"
    run(root, config)
    return root


def swapped(one):
    return one._replace(
        centroids=one.centroids[::-1].copy(), labels=1 - one.labels, shares=one.shares[::-1].copy()
    )


def sample(root):
    return load_run(root).sample(jax.random.key(0), 0, 3).latents


def edit_json(path, change):
    content = json.loads(path.read_text())
    path.write_text(json.dumps(change(content)))


def with_arrays(**changes):
    def edit(root):
        path = root / "clusters.npz"
        with np.load(path) as arrays:
            content = {name: arrays[name] for name in arrays}
        np.savez(path, **{n: changes[n](a) if n in changes else a for n, a in content.items()})

    return edit


def with_leaf(path, value):
    def edit(root):
        def change(saved):
            place = saved["config"]
            *sections, name = path.split(".")
            for section in sections:
                place = place[section]
            if value is None:
                place.pop(name)
            else:
                place[name] = value
            return saved

        edit_json(root / "config.json", change)

    return edit


def with_step(text):
    def edit(root):
        for path in (root / "checkpoints" / "flow").glob("*.json"):
            path.write_text(text)

    return edit


EDITS = {
    "labels of no cluster": with_arrays(labels=lambda a: np.where(a == 1, 9, a)),
    "labels as floats": with_arrays(labels=lambda a: a.astype(np.float64)),
    "too few latents": with_arrays(latents=lambda a: a[:-1]),
    "another width": with_arrays(centroids=lambda a: a[:, :-1]),
    "another number of centroids": with_arrays(centroids=lambda a: a[:1]),
    "one NaN": with_arrays(centroids=lambda a: np.where(a == a[0, 0], np.nan, a)),
    "centroids swapped": with_arrays(centroids=lambda a: a[::-1]),
    "no layer": with_leaf("layer", None),
    "a layer that is not there": with_leaf("layer", "layer9"),
    "a word for a number": with_leaf("latents.num", "many"),
    "a negative batch": with_leaf("generator.batch", -1),
    "a section that is a number": with_leaf("cluster", 3),
    "config.json is a list": lambda root: (root / "config.json").write_text("[]"),
    "config.json is nested deeply": lambda root: (root / "config.json").write_text("[" * 100_000),
    "config.json without a config": lambda root: (root / "config.json").write_text("{}"),
    "a trace of words": lambda root: edit_json(
        root / "config.json", lambda saved: saved | {"trace": ["x"]}
    ),
    "a trace that is a number": lambda root: edit_json(
        root / "config.json", lambda saved: saved | {"trace": 3}
    ),
    "a step's file is a list": with_step("[]"),
    "a step's file is a word": with_step('"step"'),
    "a step's file without hashes": with_step('{"metadata": {}}'),
    "a step's metadata is a number": with_step('{"metadata": 3, "sha256": {}}'),
    "a manifest is a list": lambda root: (root / "stages" / "cluster.json").write_text("[]"),
    "a manifest without files": lambda root: edit_json(
        root / "stages" / "cluster.json", lambda m: {k: m[k] for k in m if k != "files"}
    ),
    "a manifest whose reads are a number": lambda root: edit_json(
        root / "stages" / "cluster.json", lambda m: m | {"reads": 3, "key": "x"}
    ),
    "a cluster that is not there": lambda root: (root / "clusters.json").write_text('[{"id": 7}]'),
}


@pytest.mark.parametrize("allow_change", [False, True])
def test_a_damaged_config_is_not_to_be_given_again(finished, tmp_path, allow_change):
    """The same command would be refused again: the file stays as it is."""
    root = tmp_path / "run"
    shutil.copytree(finished, root)
    config = json.loads((root / "config.json").read_text())["config"]
    (root / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"is damaged .*; put it back as it was, or name another"):
        open_run(root, config, allow_change=allow_change)


@pytest.mark.parametrize("name", EDITS)
def test_an_invalid_edit_is_reported_in_one_line(name, finished, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(finished, root)
    EDITS[name](root)
    with pytest.raises(UserError) as error:
        sample(root)
    assert "\n" not in str(error.value)
    assert str(root) in str(error.value)


def test_a_damaged_last_step_is_retrained_by_the_command_in_the_message(finished, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(finished, root)
    expected = sample(root)
    (step,) = sorted((root / "checkpoints" / "flow").glob("*.json"))[-1:]
    files = [path for path in (step.with_suffix("") / "state").rglob("*") if path.is_file()]
    state = max(files, key=lambda path: path.stat().st_size)
    state.write_bytes(state.read_bytes()[::-1])
    with pytest.raises(UserError, match=r"is damaged .* run again to train"):
        sample(root)
    run(root, load_run(root).config)
    np.testing.assert_allclose(sample(root), expected, atol=1e-5)


def test_other_files_beside_a_step_do_no_harm(finished, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(finished, root)
    for step in (root / "checkpoints" / "flow").glob("[0-9]*/"):
        (step / ".DS_Store").write_text("looked at")
    np.testing.assert_array_equal(sample(root), sample(finished))


def test_samplers_are_retrained_if_the_same_settings_give_other_clusters(finished, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(finished, root)
    before = {path: path.read_bytes() for path in (root / "checkpoints/flow").glob("*.json")}
    (root / "clusters.npz").unlink()
    with pytest.MonkeyPatch.context() as patched:
        # The clusters in another order, as another machine or version may find them.
        own = cluster.clustering_of
        patched.setattr(cluster, "clustering_of", lambda *given: swapped(own(*given)))
        run(root, load_run(root).config)
    assert {path: path.read_bytes() for path in before} != before


def test_a_moved_run_without_figures_and_names_gives_the_same_samples(finished, tmp_path):
    root = tmp_path / "elsewhere"
    shutil.copytree(finished, root)
    shutil.rmtree(root / "figures")
    (root / "clusters.json").unlink()
    np.testing.assert_array_equal(sample(root), sample(finished))


def test_a_run_opened_from_another_folder_says_where_its_weights_were_looked_for(
    tmp_path, monkeypatch
):
    config = small()
    config["generator"]["weights"] = "weights/gone"
    (tmp_path / "run").mkdir()
    save_config(RunFolder(tmp_path / "run"), config, Provenance(""))
    monkeypatch.chdir(tmp_path)
    expected = rf"no folder weights/gone in {tmp_path}, where relative paths start"
    for open_it in (lambda: load_run("run"), lambda: open_run("run", None)):
        with pytest.raises(UserError, match=expected):
            open_it()
