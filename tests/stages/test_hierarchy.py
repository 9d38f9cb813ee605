"""Clusters inside clusters: found among the members of one, and drawn with every check."""

import json
import shlex
import shutil

import jax
import numpy as np
import pytest

from cgjax.errors import UserError
from cgjax.run import run_checks
from cgjax.run.opening import load_run, open_run
from tests.stages.tiny_runs import bytes_of, config, pipeline_of

SPLITS = ("0/layer2-k2", "0/1/layer1-k3")


def make(root, given, **options):
    with pipeline_of(open_run(root, given, **options)) as pipeline:
        pipeline.cluster()
        pipeline.split()
        pipeline.fit()
        pipeline.report()
    return load_run(root)


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return make(tmp_path_factory.mktemp("split") / "run", config(*SPLITS))


def test_a_split_clusters_as_many_members_as_the_run_has_latents(split):
    summary = json.loads(split.folder.summary.read_text())
    assert [each["split"] for each in summary["splits"]] == list(SPLITS)
    for each in summary["splits"]:
        assert each["num"] == 200  # the run has about a hundred members; the others were drawn
        assert sum(each["shares"]) == pytest.approx(1)
    assert "0/layer2-k2" in (split.folder.report / "index.html").read_text()


def test_the_members_of_a_leaf_are_members_of_every_cluster_above_it(split):
    own, (first, second) = split.clustering.labels, map(split.held.inside, split.held.splits)
    expected = (own == 0) & (first.labels == 1) & (second.labels == 2)
    region = split.region("0/1/2")
    np.testing.assert_array_equal(region.members(), expected)
    np.testing.assert_array_equal(split.are_inside(split.latents, region), expected)
    parts = [split.region(f"0/{c}").members() for c in range(2)]
    np.testing.assert_array_equal(parts[0] | parts[1], own == 0)
    assert not (parts[0] & parts[1]).any()


def test_a_leaf_is_drawn_by_the_sampler_of_its_cluster_and_every_sample_is_checked(split):
    region = split.region("0/1")
    assert split.samplers.name_for(region) == "flow"
    for sampler in ("flow", "rejection"):
        latents = split.sample(jax.random.key(0), "0/1", 12, sampler).latents
        assert split.are_inside(latents, region).all()
        assert split.are_inside(latents, split.region(0)).all()


@pytest.fixture
def name_inside(split):
    """Name the clusters of one split, until the test ends."""
    split.folder.old_names.mkdir(exist_ok=True)

    def name(number, *names):
        entries = [{"id": c, "name": name} for c, name in enumerate(names)]
        inner = split.held.inside(split.held.splits[number])
        (split.folder.old_names / f"{inner.digest[:16]}.json").write_text(json.dumps(entries))

    yield name
    shutil.rmtree(split.folder.old_names)


def test_leaves_can_be_queried_and_named(split, name_inside):
    name_inside(0, None, "upper")
    assert str(split.region("0/upper")) == "0/1"
    leaf = split.region("0/upper").members()
    np.testing.assert_array_equal(leaf, split.region("0/1").members())
    np.testing.assert_array_equal(leaf, split.region("upper").members())
    clustering, c = split.held.cluster("upper")
    assert split.held.cluster_flag(clustering, c) == "0/1"
    assert split.held.named_cluster_flag(clustering, c) == "upper"
    either = split.region("upper | 1").members()
    np.testing.assert_array_equal(either, leaf | (split.clustering.labels == 1))


def test_a_path_of_ids_is_never_a_name(split, name_inside):
    name_inside(0, "0/1", None)  # as an earlier version let a person call it
    assert str(split.region("0/1")) == "0/1"
    assert split.held.named_cluster_flag(split.held.inside(split.held.splits[0]), 0) == "0/0"


def test_a_name_in_several_splits_is_refused_with_the_paths(split, name_inside):
    name_inside(0, "left", "upper")
    name_inside(1, "left", None, None)
    with pytest.raises(UserError, match=r"named 'left': 0/0, 0/1/0; specify .*--cluster=0/0$"):
        split.region("left")
    with pytest.raises(UserError, match=r"^no cluster 'right' in this run"):
        split.region("right")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1/0", r"^--cluster=1/0: cluster 1 is not split in this run, which splits 0, 0/1; see "),
        ("0/0/1", r"cluster 0/0 is not split"),
        ("0/2", r"^no cluster '2' in 0/layer2-k2; it has: 0, 1"),
        ("7/0", r"^no cluster '7' in this run"),
    ],
)
def test_an_invalid_path_is_reported_in_one_line(text, message, split):
    with pytest.raises(UserError, match=message):
        split.region(text)


def test_another_split_leaves_everything_else_as_it_is(split, tmp_path):
    root = tmp_path / "run"
    make(root, config(SPLITS[0]))
    before = {path.name: path.read_bytes() for path in (root / "stages").iterdir()}
    run = make(root, config("1/layer2-k2"), allow_change=True)
    after = {path.name: path.read_bytes() for path in (root / "stages").iterdir()}
    assert before.keys() - after.keys() == {"split-0.json", "page-split-0.json"}
    assert after.keys() - before.keys() == {"split-1.json", "page-split-1.json"}
    assert {n for n in before.keys() & after.keys() if before[n] != after[n]} == {"report.json"}
    assert [path.name for path in (root / "clusterings").iterdir()] == ["1%2Flayer2-k2.npz"]
    with pytest.raises(UserError, match="cluster 0 is not split"):
        run.region("0/1")


@pytest.mark.parametrize(
    "mode", ["sweep", "compare", "evaluate", "report", "name", "serve", "assign"]
)
def test_a_mode_that_makes_no_splits_does_not_remove_those_that_are_there(mode, split, monkeypatch):
    monkeypatch.setattr(run_checks, "check_run", lambda *_: None)  # a sweep needs more latents
    root = split.folder.root
    before = bytes_of(root)
    for splits, message in (
        (("0/layer1-k2",), r"'split 0' was .* \(split: 0/layer2-k2 -> 0/layer1-k2\); --mode="),
        (("1/layer2-k2",), r"'split 0' \(0/layer2-k2\) is not in this config; .*: first type"),
        ((SPLITS[0],), r"'split 0.1' \(0/1/layer1-k3\) is not in this config"),
        ((), r"'split 0' \(0/layer2-k2\) is not in this config"),
    ):
        with pytest.raises(UserError, match=message):
            open_run(root, config(*splits), mode=mode, allow_change=True)
    typed = ["--config=mine.py", "--config.hierarchy.splits=()"]
    with pytest.raises(UserError) as refused:
        open_run(root, config(), mode=mode, allow_change=True, typed=typed)
    command = shlex.join([f"--workdir={root}", *typed, "--allow_config_change"])
    assert str(refused.value).endswith(f": first type python -m cgjax.main {command}")
    assert before == bytes_of(root)


def test_splits_go_with_the_clusters_that_they_are_in(split, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(split.folder.root, root)
    open_run(root, config(*SPLITS, seed=1), mode="compare", allow_change=True)
    assert not list((root / "clusterings").glob("*"))


def test_a_page_with_another_split_is_removed_before_the_new_one_is_made(split, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(split.folder.root, root)
    open_run(root, config(*SPLITS))
    assert (root / "report").exists()
    open_run(root, config("0/layer1-k2"), allow_change=True)  # and killed then
    assert not (root / "report").exists()


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (("0",), r"splits=0: expected a cluster and a clustering of it, as in 0/layer4-k2"),
        (("0/layer2-k0",), r"splits=0/layer2-k0: expected a cluster and"),
        (("2/layer2-k2",), r"splits=2/layer2-k2: expected a cluster from 0 to 1 in place of 2"),
        (("0/1/layer2-k2",), r"no split makes the cluster 0/1; add one before it"),
        (("0/layer2-k2", "0/layer1-k2"), r"the cluster 0 is split twice"),
        (("0/layer9-k2",), r"layer='layer9' is not one of this generator's"),
    ],
)
def test_an_impossible_split_is_reported_in_one_line_before_any_work(splits, message, tmp_path):
    with pytest.raises(UserError, match=message):
        open_run(tmp_path / "run", config(*splits))
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """A run whose leaves have their own samplers."""
    root = tmp_path_factory.mktemp("leaves") / "run"
    leaves = {"hierarchy.samplers": ["flow"], "samplers.flow.num_latents": 16000}
    with pipeline_of(open_run(root, config("0/layer2-k2", **leaves))) as pipeline:
        pipeline.cluster()
        pipeline.split()
        pipeline.fit()
        pipeline.fit_leaves()
    return load_run(root)


def test_a_leaf_is_drawn_by_its_own_sampler_if_it_has_one(learnt):
    region = learnt.region("0/1")
    assert learnt.samplers.source(region, "flow").among.fingerprint == region.fingerprint
    assert learnt.samplers.source(learnt.region("0"), "flow").among.cluster == 0
    assert learnt.samplers.source(region, "flow").expected(region).share == 1.0
    latents = learnt.sample(jax.random.key(0), "0/1", 12).latents
    assert learnt.are_inside(latents, region).all()
    deep = learnt.region("0/1", 0.5)
    assert learnt.samplers.name_for(deep) == "flow"
    assert learnt.samplers.source(deep, "flow").among.fingerprint == region.fingerprint
    deep = learnt.sample(jax.random.key(0), "0/1", 12, margin=0.5).latents
    assert learnt.are_inside(deep, learnt.region("0/1", 0.5)).all()


def test_trained_samplers_of_leaves_are_not_retrained(learnt, caplog):
    with pipeline_of(open_run(learnt.folder.root, learnt.config)) as pipeline:
        before = {p: p.read_bytes() for p in (learnt.folder.root / "stages").glob("fit-flow-in*")}
        assert len(before) == 2
        pipeline.fit_leaves()
    assert before == {p: p.read_bytes() for p in before}


def test_a_sampler_of_leaves_must_be_fitted_and_trained(tmp_path):
    for name, message in (
        ("rejection", "expected one of flow"),
        ("imle", "not among the samplers"),
    ):
        with pytest.raises(UserError, match=f"hierarchy.samplers={name}: {message}"):
            open_run(tmp_path / "run", config("0/layer2-k2", **{"hierarchy.samplers": [name]}))


def test_a_split_by_a_layer_that_is_not_there_names_its_own_setting(tmp_path):
    expected = r"layer='layer9' is not .* try --config.hierarchy.splits=0/layer\d-k2; "
    with pytest.raises(UserError, match=expected):
        open_run(tmp_path / "run", config("0/layer9-k2"))
    assert not (tmp_path / "run").exists()
