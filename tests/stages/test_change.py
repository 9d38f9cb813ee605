"""A finished run with one leaf changed: what depends on it is recomputed, and nothing else.

The result equals a fresh run's byte for byte. By default a leaf of each kind; every leaf with
CGJAX_EVERY_LEAF=1 (ten minutes on two cores).
"""

import json
import os
import shutil

import jax
import numpy as np
import pytest

from cgjax.errors import UserError
from cgjax.run.opening import load_run, open_run
from cgjax.runtime.mesh import data_mesh
from cgjax.testing.planted import PlantedDiscs
from tests.run.changes import changed, leaves, of_colour, small
from tests.stages.tiny_runs import content_of, pipeline_of, run

KINDS = [
    "seed",
    "layer",
    "generator.batch",
    "cluster.max_iter",
    "cluster.memory_mb",
    "samplers.flow.num_steps",
    "samplers.imle.num_epochs",
    "samplers.imle.fit",
    "sample.num",
    "sample.sampler",
    "evaluate.num",
]
CHANGED = leaves() if os.environ.get("CGJAX_EVERY_LEAF") else KINDS
REFUSED = ("transfer.conditions",)  # the planted generator has no classes
NAMED = [{"id": 0, "name": "left", "note": "seen"}, {"id": 1, "name": "right"}]


def finished_at(root):
    manifests = [json.loads(p.read_text()) for p in (root / "stages").glob("*.json")]
    return {m["name"]: m["finished"] for m in manifests}


@pytest.fixture(scope="module")
def finished(finished_run, tmp_path_factory):
    root = tmp_path_factory.mktemp("named") / "run"
    shutil.copytree(finished_run(small()), root)
    (root / "clusters.json").write_text(json.dumps(NAMED))
    return root


def names_of(root):
    return [entry["name"] for entry in load_run(root).entries]


def test_without_a_change_nothing_is_recomputed(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    before, content = finished_at(finished), content_of(finished)
    run(tmp_path / "run", None)
    after = finished_at(tmp_path / "run")
    assert {name for name in after if after[name] != before[name]} == {"report"}
    assert content_of(tmp_path / "run") == content
    assert names_of(tmp_path / "run") == ["left", "right"]


@pytest.mark.parametrize("path", CHANGED)
def test_a_changed_leaf_gives_a_fresh_runs_bytes_and_recomputes_only_what_depends_on_it(
    path, finished, tmp_path
):
    config, stale = changed(path)
    before, digest = finished_at(finished), load_run(finished).clustering.digest
    shutil.copytree(finished, tmp_path / "run")
    if path in REFUSED:
        with pytest.raises(UserError, match=path.partition(".")[2]):
            run(tmp_path / "run", config)
        assert content_of(tmp_path / "run") == content_of(finished)
        return
    run(tmp_path / "fresh", config)
    run(tmp_path / "run", config)
    after = finished_at(tmp_path / "run")
    made = {name for name in after if after[name] != before.get(name)}
    new = {name for name in after if name not in before}
    assert made - new - {"report"} == stale & after.keys() - {"report"}
    assert content_of(tmp_path / "run") == content_of(tmp_path / "fresh")
    is_same = load_run(tmp_path / "run").clustering.digest == digest
    assert names_of(tmp_path / "run")[:2] == (["left", "right"] if is_same else [None, None])


def test_names_come_back_with_their_clustering(finished, tmp_path):
    root = shutil.copytree(finished, tmp_path / "run")

    def cluster(config):
        with pipeline_of(open_run(root, config, allow_change=True)) as pipeline:
            pipeline.cluster()

    cluster(changed("seed")[0])
    assert names_of(root) == [None, None]
    cluster(small())
    assert json.loads((root / "clusters.json").read_text()) == NAMED


@pytest.mark.parametrize("mode", ["evaluate", "report"])
def test_old_clusters_are_never_measured_or_shown_under_a_new_config(mode, finished, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(finished, root)
    config, _ = changed("cluster.num_clusters")
    with pytest.raises(UserError, match=r"another config \(cluster.num_clusters: 2 -> 3"):
        open_run(root, config, mode=mode, allow_change=True)
    assert (root / "config.json").read_bytes() == (finished / "config.json").read_bytes()
    assert content_of(root) == content_of(finished)


def test_a_report_that_fails_does_not_disarm_the_guard_on_another_generator(finished, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(finished, root)
    config, _ = changed("generator.name")
    with pytest.raises(UserError):
        open_run(root, config, mode="report", allow_change=True)
    saved = json.loads((root / "config.json").read_text())
    assert saved["config"]["generator"]["name"] == small()["generator"]["name"]


def test_a_generator_that_was_trained_further_is_not_taken_for_the_old_one(
    finished, tmp_path, monkeypatch
):
    root = tmp_path / "run"
    shutil.copytree(finished, root)
    colour = PlantedDiscs().colour.get_value()
    monkeypatch.setattr("cgjax.testing.planted.make_planted", lambda: of_colour(colour * 1.02))
    for opening in (lambda: load_run(root), lambda: open_run(root, None)):
        with pytest.raises(UserError, match="other features or images of the same latents"):
            opening()
    run(root, small())  # allowed: everything is recomputed
    monkeypatch.setattr("cgjax.testing.planted.make_planted", lambda: of_colour(colour * 1.020001))
    load_run(root)  # within rounding


@pytest.mark.parametrize("path", ["seed", "cluster.num_clusters", "samplers.imle.num_epochs"])
def test_a_replaced_saved_config_never_draws_from_stale_artifacts(path, finished, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(finished, root)
    config, _ = changed(path)
    saved = json.loads((root / "config.json").read_text())
    (root / "config.json").write_text(json.dumps(saved | {"config": config}))
    with pytest.raises(UserError, match=r"python -m cgjax\.main --workdir="):
        load_run(root).sample(jax.random.key(0), 0, 2, "imle")


def test_draws_do_not_depend_on_devices(finished):
    one, several = load_run(finished), load_run(finished)
    several.generator = several.generator.over(data_mesh(4))
    for name in ("rejection", "flow"):
        a, b = (r.sample(jax.random.key(0), 0, 300, name) for r in (one, several))
        np.testing.assert_array_equal(a.latents, b.latents)
        assert a.acceptance == b.acceptance
