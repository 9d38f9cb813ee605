"""Names resolve in one place, are checked as untrusted input, and belong to their clustering."""

import contextlib
import json
import resource

import numpy as np
import pytest

from cgjax.errors import UserError
from cgjax.regions.clustering import Clustering
from cgjax.regions.names import (
    find_clusters,
    put_aside,
    read_entries,
    restore_or_begin,
    unnamed,
)
from tests.killing import Killed


@pytest.fixture
def clustering():
    return Clustering(
        layer="layer1",
        centroids=np.arange(3, dtype=np.float32)[:, None],
        labels=np.array([0, 1, 2, 0], np.int32),
        margins=np.ones(4, np.float32),
        shares=np.array([0.5, 0.25, 0.25]),
    )


def entries(*names):
    return [{"id": c, "name": name} for c, name in enumerate(names)]


def test_a_cluster_is_found_by_id_or_name_and_an_unknown_one_lists_them():
    known = entries(None, "facing left")
    assert find_clusters(1, known) == [1]
    assert find_clusters("0", known) == [0]
    assert find_clusters("facing left", known) == [1]
    with pytest.raises(UserError, match=r"no cluster '7' .*: 0, 1 \(facing left\)"):
        find_clusters("7", known)


def test_an_id_is_never_looked_up_among_names():
    known = entries("1", "0", "2")
    for wanted in (0, 1, 2):
        assert find_clusters(wanted, known) == find_clusters(str(wanted), known) == [wanted]
    with pytest.raises(UserError, match="no cluster '-1'"):
        find_clusters(-1, known)
    with pytest.raises(UserError, match=r"no cluster '111+\.\.\. in this run; it has: 0"):
        find_clusters("1" * 5000, known)


def test_clusters_that_share_a_name_are_found_together_and_an_unknown_one_names_the_clustering():
    known = entries("left", None, "left")
    assert find_clusters("left", known) == [0, 2]
    assert find_clusters(" 1 ", known) == [1]
    with pytest.raises(UserError, match=r"^no cluster 'up' in a-k3; .* try --cluster=a-k3=0$"):
        find_clusters("up", known, "a-k3", "a-k3=0")


@pytest.mark.parametrize("text", ["--1", "²", "+1", "1.0", "-"])
def test_a_text_that_only_resembles_a_number_is_a_name(text):
    assert find_clusters(text, entries(None, text)) == [1]


def read(tmp_path, content, clustering, *, encoding="utf-8"):
    path = tmp_path / "clusters.json"
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, encoding=encoding)
    return read_entries(path, clustering)


def test_names_and_notes_are_read_and_shares_are_the_clusterings_own(tmp_path, clustering):
    given = [{"id": 2, "name": " left ", "share": 9, "note": "n"}, {"id": 0, "name": 5}]
    assert read(tmp_path, given, clustering) == [
        {"id": 0, "name": "5", "share": 0.5, "note": ""},
        {"id": 1, "name": None, "share": 0.25, "note": ""},
        {"id": 2, "name": "left", "share": 0.25, "note": "n"},
    ]


def test_a_file_saved_by_a_windows_editor_is_read(tmp_path, clustering):
    given = [{"id": 0, "name": "Köpfe links"}]
    found = read(tmp_path, json.dumps(given), clustering, encoding="utf-8-sig")
    assert found[0]["name"] == "Köpfe links"


@pytest.mark.parametrize(
    "content",
    [
        [{"id": 7, "name": "x"}],
        [{"id": -1}],
        [{"id": 1.7}],
        [{"id": "0"}],
        [{"id": True}],
        [{"id": 1}, {"id": 1}],
        [0, 1, 2],
        {"0": "left"},
        [{"name": "left"}],
        [{"id": 0, "name": ["left"]}],
        [{"id": 0, "note": 3}],
        "[{",
    ],
)
def test_a_file_that_does_not_list_this_runs_clusters_is_refused(tmp_path, clustering, content):
    with pytest.raises(UserError, match=r"clusters\.json"):
        read(tmp_path, content, clustering)


def test_names_are_archived_for_another_clustering_and_restored_with_their_own(
    tmp_path, clustering
):
    path, archive = tmp_path / "clusters.json", tmp_path / "names"
    restore_or_begin(path, archive, clustering)
    assert json.loads(path.read_text()) == unnamed(clustering)
    named = unnamed(clustering)
    named[1]["name"] = "left"
    path.write_text(json.dumps(named))

    put_aside(path, archive, clustering.digest)
    other = clustering._replace(labels=np.array([0, 1, 2, 1], np.int32))
    restore_or_begin(path, archive, other)
    assert all(entry["name"] is None for entry in read_entries(path, other))

    put_aside(path, archive, other.digest)
    assert len(list(archive.iterdir())) == 1, "what has no names is not kept"
    restore_or_begin(path, archive, clustering)
    assert json.loads(path.read_text()) == named


def test_names_are_put_aside_whole_even_when_the_disk_is_full(tmp_path, clustering):
    path, archive = tmp_path / "clusters.json", tmp_path / "names"
    path.write_text(json.dumps([{"id": 0, "name": "left"}]))
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, limits[1]))  # of any file that is written
    try:
        with contextlib.suppress(OSError, UserError):
            put_aside(path, archive, clustering.digest)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    restore_or_begin(path, archive, clustering)
    assert path.read_bytes() == before


@pytest.mark.parametrize("kill", [1, 2, 3])
def test_names_given_after_a_killed_change_of_clustering_are_kept(
    tmp_path, clustering, kill_at, kill
):
    path, archive = tmp_path / "clusters.json", tmp_path / "names"
    path.write_text(json.dumps([{"id": 0, "name": "left"}]))
    kill_at(kill)
    with contextlib.suppress(Killed):
        put_aside(path, archive, clustering.digest)
    kill_at(0)
    expected = "left"
    if path.is_file():  # the change was not made, and a person goes on naming
        expected = "facing left"
        path.write_text(json.dumps([{"id": 0, "name": expected}]))
    restore_or_begin(path, archive, clustering)
    assert read_entries(path, clustering)[0]["name"] == expected
