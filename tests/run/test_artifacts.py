"""A changed leaf makes exactly its dependents stale, and loading verifies what it finds."""

import json

import pytest

from cgjax.errors import UserError
from cgjax.run.artifacts import declare
from cgjax.run.folder import RunFolder
from cgjax.run.manifests import Manifests
from cgjax.run.places import page_images_name
from cgjax.runtime.files import read_sealed, write_sealed
from tests.run.changes import CHANGES, FITTED, changed, leaves, small

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
def test_changing_a_leaf_changes_exactly_the_keys_that_depend_on_it(path):
    old = declare(small(), *identities(small()), *SWEPT)
    config, stale = changed(path)
    new = declare(config, *identities(config), *SWEPT)
    keys = {name: artifact.key for name, artifact in new.items()}
    found = {name for name, artifact in old.items() if keys.get(name, artifact.key) != artifact.key}
    gone = old.keys() - new.keys()
    assert found | {name for name in gone if not name.startswith("fit ")} == stale


def test_keys_of_an_older_version_are_unchanged():
    # Of c606ce0, which had none of the silent leaves.
    graph = declare(small(), "prior", "name", *SWEPT)
    assert {name: graph[name].key for name in OLD_KEYS} == OLD_KEYS


def test_the_table_of_changes_has_only_existing_leaves():
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


def test_a_recorded_artifact_is_current_and_costs_are_summed(manifests):
    assert manifests.require("cluster") == {"shares": [0.5]}
    manifests.record("fit flow", {}, {"fit": {"seconds": 1.0, "peak_rss_mb": 5.0}})
    manifests.record("fit imle", {}, {"fit": {"seconds": 2.0, "peak_rss_mb": 4.0}})
    assert manifests.costs() == {
        "cluster": {"seconds": 1.0, "peak_rss_mb": 2.0},
        "fit": {"seconds": 3.0, "peak_rss_mb": 5.0},
    }


def test_an_artifact_with_a_changed_file_is_not_loaded(manifests):
    manifests.folder.clusters.write_bytes(b"another")
    with pytest.raises(UserError, match=r"'cluster' .* not those that were written; python -m"):
        manifests.require("cluster")


def test_an_artifact_with_a_missing_input_is_not_loaded(manifests):
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


def test_an_artifact_is_not_loaded_if_its_input_has_other_content(manifests):
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
    assert manifests.result("evaluate flow") == {"num": 1}  # its input has the same content again


def test_an_edited_manifest_is_ignored(manifests):
    path = manifests.folder.manifests / "cluster.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"result": {"shares": [0.9]}}))
    assert manifests.result("cluster") is None


@pytest.mark.parametrize("through_link", [False, True])
def test_stale_files_are_removed_and_a_users_own_files_stay(manifests, tmp_path, through_link):
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


def test_forgetting_an_artifact_removes_only_its_own_places(manifests, tmp_path):
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
def test_a_damaged_manifest_is_ignored(manifests, content):
    (manifests.folder.manifests / "cluster.json").write_text(content)
    assert manifests.result("cluster") is None


@pytest.mark.parametrize(
    "fields",
    [
        *({"costs": costs} for costs in ({"fit": 3.0}, {"fit": {"seconds": "a"}}, {"fit": None})),
        *({"traces": traces} for traces in (3, [1.0], {"judge a:b": 1.0}, {"judge a:b": ["a"]})),
        {"layer_trace": ["a"]},
    ],
)
def test_a_manifest_with_other_things_than_numbers_is_ignored(fields, manifests):
    path = manifests.folder.manifests / "cluster.json"
    manifest = read_sealed(path)
    write_sealed(path, manifest)
    assert manifests.result("cluster") is not None
    write_sealed(path, {**manifest, **fields})
    assert manifests.result("cluster") is None


def test_an_artifact_is_not_loaded_if_the_features_of_its_layer_have_changed(tmp_path):
    traces = {"layer layer1": [1.0, -3.0], "layer layer2": [2.0, 5.0]}
    graph = declare(small(), "prior", "name", *SWEPT)
    kept = Manifests(RunFolder(tmp_path), graph, trace=traces.__getitem__)
    for name in ("latents", "sweep layer1", "sweep layer2", "attributes", "sweep"):
        kept.record(name, {}, {})
    traces |= {"layer layer1": [1.0001, -3.0], "layer layer2": [2.2, 5.0]}
    assert kept.result("sweep layer1") is not None  # within rounding
    assert kept.result("sweep layer2") is None
    why = "'sweep layer2' was made when layer 'layer2' returned something else"
    for name in ("sweep layer2", "sweep"):
        with pytest.raises(UserError, match=why):
            kept.require(name)
    assert set(kept.forget_stale()) == {"sweep", "sweep layer2"}


def of_own(**leaves):
    """Return the artifacts of a run with functions of the user's own."""
    config = small()
    config["compare"]["judge"] = "mine:judge"
    config["evaluate"]["features"] = leaves.get("features", "mine:f")
    return declare(config, "prior", "name", ("layer1",), ("face_mesh", "mine:judge"))


def test_each_artifact_names_the_users_functions_that_it_is_made_with():
    judge, features = "judge mine:judge", "features mine:f"
    made = {name: set(artifact.traced) for name, artifact in of_own().items() if artifact.traced}
    of_judges = {page_images_name("own"), page_images_name("sweep"), "attributes"}
    assert made == {
        **{name: {judge} for name in of_judges},
        **{f"evaluate {sampler}": {features} for sampler in FITTED},
        **{"compare": {judge, features}, "sweep layer1": {"layer layer1"}},
    }
    assert of_own(features="layer:layer2")["evaluate flow"].traced == ("layer layer2",)
    assert not of_own(features="random_cnn")["evaluate flow"].traced


@pytest.mark.parametrize(
    ("now", "stale"),
    [
        ([1.0, float("nan"), 2.001], []),
        ([], []),  # it cannot be called any more, or answers at random
        ([1.0, float("nan"), 2.1], ["compare"]),
        ([1.0, 1.0, 2.0], ["compare"]),
        ([1.0, float("nan"), 2.0, 1.0], ["compare"]),
    ],
)
def test_what_an_edited_function_made_is_not_shown(tmp_path, now, stale):
    traces = {"judge mine:judge": [1.0, float("nan"), 2.0], "features mine:f": [5.0]}
    folder = RunFolder(tmp_path)
    kept = Manifests(folder, of_own(), trace=traces.__getitem__)
    for name in ("latents", "cluster", "fit rejection", "fit flow", "fit imle", "compare"):
        for place in kept.graph[name].places:
            (tmp_path / place).parent.mkdir(exist_ok=True)
            (tmp_path / place).write_bytes(name.encode())
        kept.record(name, {}, {})
    traces["judge mine:judge"] = now
    assert kept.forget_stale() == stale
    assert (tmp_path / "compare.csv").exists() != bool(stale)


@pytest.mark.parametrize("of_layer", [[], [1.0], [3.0]])
def test_manifests_of_earlier_versions_hold_a_trace_of_a_layer_or_none(tmp_path, of_layer):
    kept = Manifests(RunFolder(tmp_path), of_own(), trace=lambda traced: [1.0])
    for name in ("latents", "sweep layer1", "attributes"):
        kept.record(name, {"choice": 2}, {})
        path = kept.folder.manifests / f"{name.replace(' ', '-')}.json"
        manifest = read_sealed(path)
        del manifest["traces"]
        if of_layer:
            manifest["layer_trace"] = of_layer if name == "sweep layer1" else []
        write_sealed(path, manifest)
    assert kept.result("attributes") == {"choice": 2}
    assert kept.result("sweep layer1") == (None if of_layer == [3.0] else {"choice": 2})
