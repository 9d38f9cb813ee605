"""`--config.cluster.num_clusters=auto`: chosen from the run's own features, with the reason."""

import json

import pytest

from cgjax.errors import UserError
from cgjax.run.opening import load_run, open_run
from tests.stages import tiny_runs
from tests.stages.tiny_runs import pipeline_of


def config(**leaves):
    auto = {"latents.num": 400, "cluster.num_clusters": "auto", "cluster.max_clusters": 4}
    return tiny_runs.config(**(auto | leaves))


@pytest.fixture(scope="module")
def chosen(tmp_path_factory):
    root = tmp_path_factory.mktemp("chosen") / "run"
    with pipeline_of(open_run(root, config())) as pipeline:
        pipeline.cluster()
        pipeline.report()
    return root


def test_the_planted_number_is_chosen_and_the_summary_and_page_say_why(chosen):
    summary = json.loads((chosen / "summary.json").read_text())
    assert summary["num_clusters"] == summary["choice"]["num_clusters"] == 2
    assert summary["choice"]["reason"].startswith("2 clusters: valleys lie between them")
    assert [row["num_clusters"] for row in summary["choice"]["table"]] == [1, 2, 3, 4]
    page = (chosen / "report" / "index.html").read_text()
    assert "How many clusters" in page
    assert "2 clusters: valleys lie between them" in page
    assert "2 (chosen)" in page


def test_the_run_opens_with_the_chosen_number(chosen):
    run = load_run(chosen)
    assert (run.clustering.num, run.clustering.id) == (2, "layer1-k2")
    assert [str(region) for region in run.regions] == ["0", "1"]


def test_too_few_latents_are_reported_in_one_line_before_any_work(tmp_path):
    with pytest.raises(UserError, match=r"^choosing among 1 to 16 clusters needs at least 960 lat"):
        open_run(tmp_path / "run", config(**{"cluster.max_clusters": 16}))
    assert not (tmp_path / "run").exists()


def test_a_word_that_is_not_a_number_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"num_clusters=many: expected a whole number, or auto$"):
        open_run(tmp_path / "run", config(**{"cluster.num_clusters": "many"}))
