"""`--mode=name`: one name, or a page's file, for the run's own, swept and split clusterings."""

import pytest

from cgjax.errors import UserError
from cgjax.regions.names import put_aside
from cgjax.regions.page_names import GivenName, GivenNames
from cgjax.run.folder import RunFolder, read_config
from cgjax.run.opening import load_run, open_run
from cgjax.runtime.signals import Interrupts
from cgjax.stages.pipeline import Pipeline
from tests.report.conftest import config, work


def name(root, cluster, called):
    return work(root, lambda pipeline: pipeline.name_cluster(cluster, called), "name")


def take(root, *given):
    return work(root, lambda pipeline: pipeline.take_names(list(given)), "name")


@pytest.fixture
def root(copied):
    return copied


def test_a_cluster_of_any_clustering_is_named_where_its_names_are_kept(root):
    for cluster, called in (("0", "left"), ("0/1", "low"), ("layer2-k3=2", "small")):
        assert name(root, cluster, called) == [f"cluster {cluster}: '{called}'"]
    run = load_run(root)
    assert run.entries[0]["name"] == "left"
    assert str(run.region("left/low")) == str(run.region("0/1"))
    assert run.region("layer2-k3=small").cluster == 2
    page = (root / "report" / "index.html").read_text()
    assert all(f'value="{called}"' in page for called in ("left", "low", "small"))
    name(root, "left", "")
    assert load_run(root).entries[0]["name"] is None


def test_naming_after_a_killed_change_of_clustering_keeps_the_earlier_names(root):
    name(root, "0", "left")
    folder = RunFolder(root)
    # Another config begins, and is killed before it is saved.
    put_aside(folder.names, folder.old_names, load_run(root).clustering.digest)
    name(root, "1", "right")
    assert [entry["name"] for entry in load_run(root).entries] == ["left", "right"]


@pytest.mark.parametrize(
    ("cluster", "called", "says"),
    [
        ("5", "left", "no cluster '5'"),
        ("0", "12", "--name=12: a number is always an id"),
        ("0", "0/1", "--name=0/1: a path of numbers is always an id"),
        ("layer1=0 | layer2-k3=1", "left", "is not one cluster; give its id"),
    ],
)
def test_what_cannot_be_named_is_a_one_line_error(cluster, called, says, root):
    with pytest.raises(UserError, match=says):
        name(root, cluster, called)


def test_names_for_other_clusterings_alone_are_a_one_line_error(root):
    with pytest.raises(UserError, match="is for other clusterings than"):
        take(root, GivenNames("layer1-k2", "0" * 64, []))


def test_a_clustering_that_the_run_no_longer_has_is_reported_and_the_others_are_merged(root):
    digest = load_run(root).clustering.digest
    lines = take(
        root,
        GivenNames("layer9-k2", "0" * 64, [GivenName(0, "old", None, None)]),
        GivenNames("layer1-k2", digest, [GivenName(1, "right", None, None)]),
    )
    assert lines == [
        "layer9-k2 of names.json is not in this run: 1 name is left out",
        "layer1-k2, cluster 1: 'right'",
    ]
    assert load_run(root).entries[1]["name"] == "right"


@pytest.mark.usefixtures("untyped")
def test_commands_name_a_cluster_by_its_name_only_if_no_other_cluster_has_it(copied):
    def named(*names):
        for cluster, name in zip(("0", "1", "0/0", "layer2-k3=1"), names, strict=True):
            work(copied, lambda p, c=cluster, n=name: p.name_cluster(c, n), "name")
        held = load_run(copied).held
        asked = []
        for text in ("0", "1", "0/0", "layer2-k3=1"):
            one, c = held.cluster(text)
            assert held.cluster(held.cluster_flag(one, c))[1] == c
            found, number = held.cluster(held.named_cluster_flag(one, c))
            assert (found.digest, number) == (one.digest, c)
            asked.append(held.named_cluster_flag(one, c))
        return asked

    assert named("", "", "", "") == ["0", "1", "0/0", "layer2-k3=1"]
    assert named("facing left", "", "", "") == ["facing left", "1", "0/0", "layer2-k3=1"]
    page = (copied / "report" / "index.html").read_text()
    assert "'--cluster=facing" in page.replace("&#39;", "'")
    assert "--out=samples/facing-left" in page
    # One name for two is both of them; signs of queries stand in quotes, or the id instead.
    assert named("same", "same", "", "")[:2] == ["0", "1"]
    assert named("a & b", 'it\'s "x"', "", "")[:2] == ["'a & b'", 'it\'s "x"']


def test_the_page_and_the_folder_keep_the_flags_that_gave_the_config(copied):
    typed = ["--config=configs/my faces.py", "--config.latents.num=300"]
    pipeline = Pipeline(open_run(copied, config(), mode="report", typed=typed), Interrupts())
    pipeline.report()
    pipeline.metrics.close()
    page = (copied / "report" / "index.html").read_text()
    assert "&#39;--config=configs/my" in page
    assert read_config(RunFolder(copied)).typed == typed
    work(copied, Pipeline.report, "report")  # given from Python: nothing was typed
    assert read_config(RunFolder(copied)).typed == []
    open_run(copied, config(), mode="report", typed=typed)
    open_run(copied, None, mode="report")  # the folder's own config keeps its flags
    assert read_config(RunFolder(copied)).typed == typed
