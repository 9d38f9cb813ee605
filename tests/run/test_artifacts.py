"""One leaf changes: exactly what depends on it is stale. Loading never believes what it finds."""

import json

import pytest

from cgjax.errors import UserError
from cgjax.run.artifacts import declare
from cgjax.run.folder import RunFolder
from cgjax.run.manifests import Manifests, differing
from cgjax.runtime.files import read_sealed, write_sealed
from tests.run.changes import CHANGES, changed, leaves, small

OLD_KEYS = {
    "latents": "c0f8c5c601c744f37d22afe2954244ef259a2868c3bb42b11c60644112004617",
    "cluster": "896aa7087788871fab99e845ec2e287631ff7b3c502fd52db0aea7261350fec6",
    "fit flow": "6200ebb70b637f992b92b3239c1e21fe1fd3efc50dec212dd5e6ec877bb11253",
}

# The layers of a sweep, and its judges.
SWEPT = (("layer1", "layer2"), ("image_statistics",))


def identities(config):
    name = str(config["generator"]["name"])
    return f"prior of {name}", name


@pytest.mark.parametrize("path", leaves())
def test_exactly_what_depends_on_a_leaf_has_another_key(path):
    old = declare(small(), *identities(small()), *SWEPT)
    config, stale = changed(path)
    new = declare(config, *identities(config), *SWEPT)
    keys = {name: artifact.key for name, artifact in new.items()}
    found = {name for name, artifact in old.items() if keys.get(name, artifact.key) != artifact.key}
    gone = old.keys() - new.keys()
    assert found | {name for name in gone if not name.startswith("fit ")} == stale


def test_a_key_of_an_older_version_is_still_that_of_its_settings():
    # Of c606ce0, which knew none of the leaves that are silent.
    graph = declare(small(), "prior", "name", *SWEPT)
    assert {name: graph[name].key for name in OLD_KEYS} == OLD_KEYS


def test_the_table_speaks_of_leaves_that_there_are():
    assert CHANGES.keys() <= set(leaves())


def test_every_artifact_comes_after_its_inputs_and_owns_its_places():
    graph = declare(small(), "prior", "name", *SWEPT)
    seen, places = set(), []
    for name, artifact in graph.items():
        assert seen >= set(artifact.inputs)
        seen.add(name)
        places += artifact.places
    assert len(places) == len(set(places))


@pytest.fixture
def manifests(tmp_path):
    folder = RunFolder(tmp_path)
    graph = declare(small(), "prior", "name", *SWEPT)
    found = Manifests(folder, graph)
    folder.latents.write_bytes(b"latents")
    found.record("latents", {}, {})
    folder.clusters.write_bytes(b"clusters")
    found.record("cluster", {"shares": [0.5]}, {"cluster": {"seconds": 1.0, "peak_rss_mb": 2.0}})
    return found


def test_what_was_recorded_is_current_and_its_costs_are_added_up(manifests):
    assert manifests.require("cluster") == {"shares": [0.5]}
    manifests.record("fit flow", {}, {"fit": {"seconds": 1.0, "peak_rss_mb": 5.0}})
    manifests.record("fit imle", {}, {"fit": {"seconds": 2.0, "peak_rss_mb": 4.0}})
    assert manifests.costs() == {
        "cluster": {"seconds": 1.0, "peak_rss_mb": 2.0},
        "fit": {"seconds": 3.0, "peak_rss_mb": 5.0},
    }


def test_an_artifact_whose_file_is_not_what_was_written_is_not_loaded(manifests):
    manifests.folder.clusters.write_bytes(b"another")
    with pytest.raises(UserError, match=r"'cluster' .* not those that were written; python -m"):
        manifests.require("cluster")


def test_an_artifact_whose_input_is_gone_is_not_loaded(manifests):
    manifests.forget("latents")
    assert manifests.result("cluster") is None
    with pytest.raises(UserError, match="'latents' is not there yet"):
        manifests.require("cluster")


def test_an_artifact_of_another_config_says_what_differs(manifests):
    config, _ = changed("cluster.num_clusters")
    other = Manifests(manifests.folder, declare(config, "prior", "name", *SWEPT))
    with pytest.raises(UserError, match=r"another config \(cluster.num_clusters: 2 -> 3\)"):
        other.require("cluster")
    assert set(other.forget_stale()) == {"cluster"}
    assert not manifests.folder.clusters.exists()
    assert manifests.folder.latents.exists()


def test_an_artifact_whose_input_was_made_otherwise_is_not_loaded(manifests):
    made = {"fit flow": {}, "evaluate flow": {"num": 1}}
    for name, result in made.items():
        manifests.record(name, result, {})
    manifests.folder.clusters.write_bytes(b"of another machine")
    manifests.record("cluster", {"shares": [0.4]}, {})
    assert manifests.result("cluster") == {"shares": [0.4]}
    assert manifests.result("fit flow") is None
    manifests.record("fit flow", {}, {})
    assert manifests.result("evaluate flow") is None
    manifests.folder.clusters.write_bytes(b"clusters")
    manifests.record("cluster", {"shares": [0.5]}, {})
    manifests.record("fit flow", {}, {})
    assert manifests.result("evaluate flow") == {"num": 1}  # made from the same again


def test_an_edited_manifest_is_not_believed(manifests):
    path = manifests.folder.manifests / "cluster.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"result": {"shares": [0.9]}}))
    assert manifests.result("cluster") is None


@pytest.mark.parametrize("through_link", [False, True])
def test_what_a_person_put_among_the_artifacts_stays_and_what_is_stale_goes(
    manifests, tmp_path, through_link
):
    folder = manifests.folder.root / "samples" / "flow"
    place = tmp_path.parent / f"{tmp_path.name}-elsewhere" if through_link else folder
    (place / "0").mkdir(parents=True)
    if through_link:
        folder.parent.mkdir()
        folder.symlink_to(place)
    for name in ("00000.png", "00001.png", "latents.npy", "notes.txt", ".DS_Store"):
        (folder / "0" / name).write_text(name)
    manifests.record("fit flow", {}, {})
    manifests.record("sample flow", {"acceptance": []}, {})
    (folder / "0" / ".DS_Store").write_text("looked at")
    assert manifests.result("sample flow") is not None
    (folder / "0" / "00002.png").write_text("of another draw")
    assert manifests.result("sample flow") is None
    manifests.forget_stale()
    assert sorted(path.name for path in (place / "0").iterdir()) == [".DS_Store", "notes.txt"]


def test_a_stale_artifact_takes_only_its_own_places_with_it(manifests, tmp_path):
    outside = tmp_path.parent / "thesis.tex"
    outside.write_text("years of work")
    path = manifests.folder.manifests / "cluster.json"
    manifest = json.loads(path.read_text()) | {"places": ["clusters.npz", "../thesis.tex", ""]}
    path.write_text(json.dumps(manifest))
    manifests.forget("cluster")
    assert outside.exists()
    assert manifests.folder.latents.exists()
    assert not manifests.folder.clusters.exists()


@pytest.mark.parametrize("content", ["", "[]", "{", '{"result": 3, "finished": 0}', "null"])
def test_a_damaged_manifest_is_none(manifests, content):
    (manifests.folder.manifests / "cluster.json").write_text(content)
    assert manifests.result("cluster") is None


@pytest.mark.parametrize("costs", [{"fit": 3.0}, {"fit": {"seconds": "long"}}, {"fit": None}])
def test_a_manifest_whose_costs_are_no_numbers_is_none(costs, manifests):
    path = manifests.folder.manifests / "cluster.json"
    manifest = read_sealed(path)
    write_sealed(path, manifest)
    assert manifests.result("cluster") is not None
    write_sealed(path, {**manifest, "costs": costs})
    assert manifests.result("cluster") is None


def test_settings_read_back_from_json_do_not_differ():
    assert differing({"a": [1, 2]}, {"a": (1, 2)}) == []
    assert differing({"a": 1}, {"b": 2}) == ["a: 1 -> None", "b: None -> 2"]
