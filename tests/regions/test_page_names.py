"""A file's names are set unless the run has newer ones; conflicts are reported, not applied."""

import json

import pytest

from cgjax.errors import UserError
from cgjax.regions.names import MAX_NAME, judged_of
from cgjax.regions.page_names import GivenName, GivenNames, merge, read_names


def entries(*names):
    return [{"id": c, "name": name, "share": 0.5, "note": ""} for c, name in enumerate(names)]


def command(c, name):
    return f"name --cluster={c} --name={name}"


def given(*clusters):
    return GivenNames("layer1-k2", "0" * 64, [GivenName(*one) for one in clusters])


@pytest.mark.parametrize(
    ("now", "was", "name", "ends_as"),
    [
        (None, None, "left", "left"),
        ("left", "left", "right", "right"),
        ("left", "left", None, None),
        ("left", "left", "left", "left"),
        ("smiling", None, None, "smiling"),  # renamed in the run, unchanged on the page
        ("smiling", None, "smiling", "smiling"),  # both agree
        (None, None, "means nothing", "means nothing"),
        (None, None, "7", None),  # a number is an id
        (None, None, "0 / 1", None),  # and so is a path of them
    ],
)
def test_a_name_is_set_unless_the_run_was_renamed_since(now, was, name, ends_as):
    merged, lines = merge(given((0, name, was, None)), entries(now, "other"), command)
    assert [entry["name"] for entry in merged] == [ends_as, "other"]
    assert not any("conflict" in line.text for line in lines)
    assert [line.is_problem for line in lines] == [name in ("7", "0 / 1")] * len(lines)


def test_a_conflict_keeps_the_runs_name_and_reports_both_in_one_line():
    merged, ((line, is_problem),) = merge(
        given((1, "left", None, None)), entries(None, "right"), command
    )
    assert merged[1]["name"] == "right"
    assert line.startswith("conflict: layer1-k2, cluster 1 has been called 'right' since the page")
    assert "names.json says 'left'; kept 'right'" in line
    assert line.endswith("; to set the other name, type name --cluster=1 --name=left")
    assert is_problem


def test_two_clusters_may_get_the_same_name_and_keep_their_ids():
    merged, _ = merge(
        given((0, "left", None, None), (1, "left", None, None)), entries(None, None), str
    )
    assert [(entry["id"], entry["name"]) for entry in merged] == [(0, "left"), (1, "left")]


def test_a_judgement_is_kept_with_its_interval_until_the_name_changes():
    judged = judged_of({"shown": 24, "contradict": [17, 3, 3]})
    assert judged["contradict"] == [3, 17]
    assert (judged["low"], judged["share"], judged["high"]) == (0.7415, 0.9167, 0.9768)
    merged, lines = merge(given((0, "left", None, judged)), entries(None, None), command)
    assert merged[0]["judged"] == judged
    assert lines[-1].text.endswith("92% (74% to 98%) of 24 random members agree with 'left'")
    again, _ = merge(given((0, "left", "left", None)), merged, command)
    assert again[0]["judged"] == judged
    renamed, _ = merge(given((0, "right", "left", None)), merged, command)
    assert "judged" not in renamed[0]


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{",
        '{"format": "cgjax names", "version": 2}',
        '{"format": "cgjax names", "version": 1}',
        {"clusterings": [{"id": 1, "digest": "", "clusters": []}]},
        {"clusterings": [{"id": "a", "digest": "", "clusters": [{"id": "0", "name": "x"}]}]},
        {"clusterings": [{"id": "a", "digest": "", "clusters": [{"id": 0, "name": 3}]}]},
        {"clusterings": [{"id": "a", "digest": "", "clusters": [3]}]},
        {
            "clusterings": [
                {
                    "id": "a",
                    "digest": "",
                    "clusters": [{"id": 0, "name": "x", "judged": {"shown": 1, "contradict": 9}}],
                }
            ]
        },
    ],
)
def test_a_file_that_is_not_names_json_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "names.json"
    if isinstance(content, dict):
        content = json.dumps({"format": "cgjax names", "version": 1, **content})
    path.write_text(content)
    with pytest.raises(UserError, match=r"^--from=.*names\.json") as error:
        read_names(path)
    assert "\n" not in str(error.value)


def test_a_name_longer_than_the_input_field_allows_is_refused(tmp_path):
    path = tmp_path / "names.json"

    def write(name, was=None):
        clusters = [{"id": 0, "name": name, "was": was}]
        content = {"clusterings": [{"id": "a", "digest": "", "clusters": clusters}]}
        path.write_text(json.dumps({"format": "cgjax names", "version": 1, **content}))
        return path

    longest, longer = "x" * MAX_NAME, "x" * (MAX_NAME + 1)
    assert read_names(write(longest))[0].clusters[0].name == longest
    assert read_names(write(longer, was=longer))[0].clusters[0].name == longer  # unchanged
    with pytest.raises(UserError, match="has 10,001 characters; expected 10,000 at most"):
        read_names(write(longer))


def test_a_missing_file_and_an_unknown_cluster_say_what_was_expected(tmp_path):
    with pytest.raises(UserError, match=r"the file does not exist; give the names\.json"):
        read_names(tmp_path / "names.json")
    with pytest.raises(UserError, match=r"layer1-k2 has no cluster 2; expected 0 to 1"):
        merge(given((2, "left", None, None)), entries(None, None), command)
