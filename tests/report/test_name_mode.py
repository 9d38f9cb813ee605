"""`--mode=name`: one name, or a page's file, for the run's own, swept and split clusterings."""

import pytest

from cgjax.errors import UserError
from cgjax.regions.naming import Given, GivenNames
from cgjax.run.run import load_run
from tests.report.conftest import work


def name(root, given):
    return work(root, lambda pipeline: pipeline.name(given), "name")


@pytest.fixture
def root(copied):
    return copied


def test_a_cluster_of_any_clustering_is_named_where_its_names_are_kept(root):
    for cluster, called in (("0", "left"), ("0/1", "low"), ("layer2-k3=2", "small")):
        assert name(root, (cluster, called)) == [f"cluster {cluster}: '{called}'"]
    run = load_run(root)
    assert run.entries[0]["name"] == "left"
    assert str(run.region("left/low")) == str(run.region("0/1"))
    assert run.region("layer2-k3=small").cluster == 2
    page = (root / "report" / "index.html").read_text()
    assert all(f'value="{called}"' in page for called in ("left", "low", "small"))
    name(root, ("left", ""))
    assert load_run(root).entries[0]["name"] is None


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("5", "left"), "no cluster '5'"),
        (("0", "12"), "--name=12: a number is always an id"),
        (("layer1=0 | layer2-k3=1", "left"), "is not one cluster; give its id"),
        ([GivenNames("layer1-k2", "0" * 64, [])], "is of other clusterings than"),
    ],
)
def test_what_cannot_be_named_is_one_line(given, says, root):
    with pytest.raises(UserError, match=says):
        name(root, given)


def test_a_clustering_that_the_run_no_longer_has_is_said_and_the_others_are_merged(root):
    digest = load_run(root).clustering.digest
    lines = name(
        root,
        [
            GivenNames("layer9-k2", "0" * 64, [Given(0, "old", None, None)]),
            GivenNames("layer1-k2", digest, [Given(1, "right", None, None)]),
        ],
    )
    assert lines == [
        "layer9-k2 of names.json is not in this run: its 1 names stay out",
        "layer1-k2, cluster 1: 'right'",
    ]
    assert load_run(root).entries[1]["name"] == "right"
