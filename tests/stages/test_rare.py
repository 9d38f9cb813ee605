"""A cluster too rare for the budget costs a run that cluster's numbers, and nothing else."""

import json
import os
import re
from types import SimpleNamespace

import numpy as np
import pytest

from cgjax import modes
from cgjax.errors import TooRare
from cgjax.regions.names import unnamed
from cgjax.regions.region import ClusterRegion
from cgjax.run.held import HeldClusterings
from cgjax.run.opening import load_run, open_run
from cgjax.run.run import Run
from cgjax.runtime.log import Metrics
from cgjax.runtime.processes import Processes
from cgjax.runtime.signals import Interrupts
from cgjax.stages import evaluate
from cgjax.stages.compare import CompareStage
from cgjax.stages.evaluate import EvaluateStage
from cgjax.stages.graph import Maker
from cgjax.stages.pipeline import Pipeline
from cgjax.stages.rare import LeftOut, warn_of_rare
from cgjax.stages.report import summarise, write_page
from cgjax.stages.sample import draw_sheet, save_samples
from tests.regions.planted import clustering
from tests.stages.test_hierarchy import config


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A run of two clusters and the exact sampler."""
    root = tmp_path_factory.mktemp("rare") / "run"
    leaves = {"samplers.flow.fit": False, "sample.sampler": "rejection", "evaluate.num": 12}
    few = {"evaluate.components": 3, "evaluate.prior_images": 16, "compare.num": 12}
    once = {"compare.margins": (0.0,)}
    pipeline = Pipeline(open_run(root, config(**leaves, **few, **once)), Interrupts())
    try:
        pipeline.cluster()
        pipeline.fit()
    finally:
        pipeline.metrics.close()
    return root


@pytest.fixture
def run(root):
    return load_run(root)


@pytest.fixture
def rare(monkeypatch, run):
    """Make the second cluster so rare that a check of the budget, or a draw, refuses it."""

    def refusing(function):
        def draw(*args, **options):
            if any(getattr(one, "cluster", 0) == 1 for one in args):
                raise TooRare("cluster 1, 0.1% of the prior: too rare")
            return function(*args, **options)

        return draw

    monkeypatch.setattr(run, "draw", refusing(run.draw))
    monkeypatch.setattr(evaluate, "draw_inside", refusing(evaluate.draw_inside))
    return monkeypatch


def maker_of(run, max_draws=0):
    return Maker(run.manifests, Metrics(os.devnull), max_draws=max_draws)


def test_samples_are_made_of_the_other_cluster_and_again_with_a_larger_budget(run, rare):
    maker, budget = maker_of(run), run.config["sample"]["max_draws"]
    save_samples(run, maker, "rejection", lambda: None)
    folder = run.folder.samples / "rejection"
    assert [path.name for path in folder.iterdir()] == ["0"]
    result = maker.result("sample rejection")
    assert [one["acceptance"] is None for one in result["acceptance"]] == [False, True]
    draw_sheet(run, maker)
    assert run.folder.figures.joinpath("clusters.png").is_file()
    assert maker_of(run, budget).result("sample rejection") == result
    assert maker_of(run, budget + 1).result("sample rejection") is None
    rare.undo()
    save_samples(run, maker_of(run, budget + 1), "rejection", lambda: None)
    assert sorted(path.name for path in folder.iterdir()) == ["0", "1"]
    assert "left_out" not in maker.result("sample rejection")


@pytest.mark.usefixtures("rare")
def test_the_other_cluster_is_measured_and_the_row_of_the_rare_one_says_why(run):
    maker = maker_of(run)
    EvaluateStage(run, maker, lambda *_: None).run_all()
    (numbers,) = summarise(run)["samplers"].values()
    assert numbers["membership"] == [1.0, None]
    assert numbers["left_out"] == [None, "cluster 1, 0.1% of the prior: too rare"]
    assert {len(values) for values in numbers.values()} == {2}
    table = modes._summary_table(summarise(run))
    assert re.search(r"rejection +1  left out: cluster 1, 0.1% of the prior: too rare$", table)
    write_page(run, maker, lambda *_: None)
    page = (run.folder.report / "index.html").read_text()
    assert '<td colspan="7" class="text">left out: cluster 1, 0.1% of the prior: too rare' in page
    assert json.loads(run.folder.summary.read_text())["samplers"]["rejection"] == numbers


@pytest.mark.usefixtures("rare")
def test_a_comparison_says_what_it_leaves_out(run):
    maker = maker_of(run)
    text = CompareStage(run, maker, lambda *_: None).run_all()
    assert text.endswith("\n\nleft out:\ncluster 1, 0.1% of the prior: too rare")
    assert {row["cluster"] for row in json.loads(run.folder.compared.read_text())["rows"]} == {0}
    assert "one cluster" not in text  # the run has two


def planted(counts, max_draws=1000):
    """A run of one clustering with this many members in each cluster."""
    one = clustering("layer1", np.repeat(np.arange(len(counts)), counts), len(counts))
    held = SimpleNamespace(
        leaves=[],
        entries_of=lambda _: [*unnamed(one)[:-1], unnamed(one)[-1] | {"name": "hats"}],
        cluster_flag=lambda _, c: str(c),
    )
    held.in_words = lambda region: HeldClusterings.in_words(held, region)
    run = SimpleNamespace(
        config={
            "sample": {"max_draws": max_draws, "num": 4},
            "evaluate": {"num": 8},
            "transfer": {"num": 4, "conditions": ()},
            "hierarchy": {"samplers": ()},
        },
        sampler_names=["rejection"],
        regions=[ClusterRegion(one, c) for c in range(one.num)],
        clustering=one,
        latents=one.labels,
        held=held,
    )
    run.naming = lambda region, instead: Run.naming(run, region, instead)
    return run


@pytest.mark.usefixtures("untyped")
def test_what_will_be_too_rare_is_said_before_training_in_one_line_with_what_to_type(caplog):
    warn_of_rare(planted([500, 495, 5], max_draws=3000), "evaluate")
    (line,) = caplog.messages
    assert line.startswith(
        "cluster 2 (hats), 0.5% of the prior (5 of 1,000 latents): 16 true members for "
        "--config.evaluate.num take about 3,200 draws, and the budget is "
        "--config.sample.max_draws=3000: type --config.sample.max_draws=14000, lower "
        "--config.evaluate.num, or ask for fewer --config.cluster.num_clusters; "
    )
    caplog.clear()
    warn_of_rare(planted([500, 495, 5], max_draws=14000), "evaluate")
    assert not caplog.messages


@pytest.mark.usefixtures("untyped")
def test_an_empty_cluster_is_foreseen_and_left_out_without_a_draw(caplog):
    run = planted([500, 500, 0])
    warn_of_rare(run, "evaluate")
    why = (
        "cluster 2 (hats), 0% of the prior: no member among 1,000 latents: raise "
        "--config.latents.num, or lower --config.cluster.num_clusters to 2, the clusters that have "
        "members"
    )
    assert caplog.messages[0].startswith(f"{why}; ")
    left_out = LeftOut(run)
    assert left_out.drawn(lambda region: region.cluster) == {0: 0, 1: 1}
    assert left_out.lines == {"2": why}
    assert [region.cluster for region in left_out.kept()] == [0, 1]


@pytest.mark.usefixtures("untyped")
def test_a_leaf_too_rare_to_train_on_does_not_stop_the_others(caplog):
    trained = []

    def fit_leaf(name, path):
        if path == (0, 0):
            raise TooRare("cluster 0/0 is too rare")
        trained.append(path)

    run = planted([5, 5])
    run.held.leaves, run.config["hierarchy"] = [(0, 0), (0, 1)], {"samplers": ("flow",)}
    fit = SimpleNamespace(fit_leaf=fit_leaf)
    Pipeline.fit_leaves(SimpleNamespace(processes=Processes(), run=run, _fit=fit))
    assert trained == [(0, 1)]
    assert caplog.messages == ["left out: cluster 0/0 is too rare"]


@pytest.mark.usefixtures("untyped")
def test_a_stage_that_is_left_with_nothing_stops():
    def refuse(region):
        raise TooRare(f"cluster {region.cluster} is too rare")

    with pytest.raises(TooRare, match="cluster 0 is too rare"):
        LeftOut(planted([5, 5])).drawn(refuse)


def test_a_draw_beyond_the_budget_names_cluster_share_sampler_and_what_to_type(run, key):
    run.config["sample"]["max_draws"] = 128
    region = run.regions[1]
    share = f"{float(f'{100 * region.share:.3g}'):g}%"
    line = (
        rf"^rejection, cluster 1, {share} of the prior: only \d+ of 900 samples after 128 draws "
        r"\(acceptance 0\.\d+\): type --config\.sample\.max_draws=\d+, or ask for fewer, widen "
    )
    with pytest.raises(TooRare, match=line) as caught:
        run.draw(key, region, 900, sampler="rejection")
    run.config["sample"]["max_draws"] = int(re.findall(r"max_draws=(\d+)", str(caught.value))[0])
    assert len(run.draw(key, region, 900, sampler="rejection")[0]) == 900
