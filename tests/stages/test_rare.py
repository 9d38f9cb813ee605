"""A cluster too rare for the budget costs a run that cluster's numbers, and nothing else."""

import json
import os
import re
from types import SimpleNamespace

import numpy as np
import pytest

from cgjax.errors import Interrupted, TooRare
from cgjax.figures.transfer import transfer_figure
from cgjax.regions.names import unnamed
from cgjax.regions.region import ClusterRegion
from cgjax.report.build import page_of
from cgjax.run.artifacts import Artifact
from cgjax.run.clusterings import HeldClusterings
from cgjax.run.folder import RunFolder
from cgjax.run.manifests import Manifests
from cgjax.run.opening import load_run, open_run
from cgjax.runtime.log import Metrics
from cgjax.stages import evaluate, transfer
from cgjax.stages.compare import CompareStage
from cgjax.stages.evaluate import EvaluateStage, reference_of
from cgjax.stages.fit import FitStage
from cgjax.stages.graph import Maker
from cgjax.stages.rare import LeftOut, warn_of_rare
from cgjax.stages.report import summary_of, summary_table, write_page
from cgjax.stages.sample import draw_sheet, save_samples
from cgjax.stages.transfer import TransferStage
from tests.regions.planted import clustering
from tests.stages.tiny_runs import config, pipeline_of


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A run of two clusters and the exact sampler."""
    root = tmp_path_factory.mktemp("rare") / "run"
    leaves = {"samplers.flow.fit": False, "sample.sampler": "rejection", "evaluate.num": 12}
    few = {"evaluate.components": 3, "evaluate.prior_images": 16, "compare.num": 12}
    once = {"compare.margins": (0.0,)}
    with pipeline_of(open_run(root, config(**leaves, **few, **once))) as pipeline:
        pipeline.cluster()
        pipeline.fit()
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
    (numbers,) = summary_of(run)["samplers"].values()
    assert numbers["membership"] == [1.0, None]
    assert numbers["left_out"] == [None, "cluster 1, 0.1% of the prior: too rare"]
    assert {len(values) for values in numbers.values()} == {2}
    table = summary_table(summary_of(run))
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


def test_the_page_says_what_a_transfer_leaves_out(run):
    lines = {f"{name}, cluster 1": "cluster 1 is empty" for name in ("flow", "rejection")}
    lines["rejection, cluster 0"] = "rejection, cluster 0, is too rare"
    classes = [
        {"condition": "3", "samplers": {}, "left_out": {"max_draws": 9, "lines": lines}},
        {"condition": "4", "samplers": {}},
    ]
    write_page(run, maker_of(run), lambda *_: None)
    summary = summary_of(run) | {"transfer": {"source": "0", "classes": classes}}
    page = page_of(run, summary)
    assert "Left out of class 3: rejection, cluster 0, is too rare" in page
    assert page.count("Left out of class 3: cluster 1 is empty") == 1  # for all samplers
    assert "Left out of class 4" not in page


@pytest.mark.usefixtures("untyped")
def test_each_sampler_leaves_out_of_a_transfer_only_what_it_misses(run, tmp_path, monkeypatch):
    names, missed, titles = ("transfer 0", "transfer figure"), {"flow": 0, "rejection": 1}, []

    def draw(key, region, num, *, sampler, **options):
        if region.cluster == missed[sampler]:
            raise TooRare(f"{sampler}, cluster {region.cluster}: too rare")
        return run.latents[region.members()][:num], None

    def figure(images, class_names, cluster_names):
        titles.extend(cluster_names)
        return transfer_figure(images, class_names, cluster_names)

    run.config["transfer"] |= {"conditions": ("3",), "num": 8}
    run.config["sample"]["sampler"] = "flow"
    run.generator.with_condition = lambda name: run.generator
    fitted = SimpleNamespace(sampler=SimpleNamespace(always_verified=True))
    run.draw, run.samplers = draw, SimpleNamespace(names=[*missed], fitted=lambda name: fitted)
    graph = {name: Artifact(name, "transfer", {}, (), (), "key") for name in names}
    maker = maker_of(SimpleNamespace(manifests=Manifests(RunFolder(tmp_path), graph)))
    monkeypatch.setattr(transfer, "transfer_figure", figure)
    TransferStage(run, maker, lambda *_: None).run_all()
    score = maker.result("transfer 0")
    agreements = [score["samplers"][name]["by_cluster"] for name in missed]
    assert [[value is None for value in one] for one in agreements] == [[1, 0], [0, 1]]
    lines = {f"{name}, cluster {c}": f"{name}, cluster {c}: too rare" for name, c in missed.items()}
    assert score["left_out"]["lines"] == lines
    assert titles == ["cluster 0: left out", "cluster 1"]


def planted(counts, max_draws=1000):
    """A run of one clustering with this many members in each cluster."""
    one = clustering("layer1", np.repeat(np.arange(len(counts)), counts), len(counts))
    held = SimpleNamespace(
        leaves=[],
        entries_of=lambda _: [*unnamed(one)[:-1], unnamed(one)[-1] | {"name": "hats"}],
        flag_of=lambda region: str(region.cluster),
    )
    held.in_words = lambda region: HeldClusterings.in_words(held, region)
    return SimpleNamespace(
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
    assert left_out.result == {"left_out": {"lines": {"2": why}}}  # no budget helps
    left_out.add("1", TooRare("too rare"))
    assert LeftOut(run, left_out).result["left_out"]["max_draws"] == 1000


@pytest.mark.usefixtures("untyped")
def test_what_no_budget_helps_is_not_made_again_with_a_larger_one():
    left_out = {"lines": {"2": "no member"}}
    manifests = SimpleNamespace(result=lambda name: {"left_out": left_out})
    maker = maker_of(SimpleNamespace(manifests=manifests), max_draws=10**9)
    assert maker.result("sample flow") == {"left_out": left_out}


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("num_members", [0, 5])
def test_a_cluster_inside_a_cluster_is_foreseen_with_the_flags_that_made_it(caplog, num_members):
    run = planted([1000 - num_members, num_members])
    run.regions, run.held.leaves = [], [(0, 1)]
    run.held.region_inside = lambda path: ClusterRegion(run.clustering, 1)
    run.config["hierarchy"], run.config["sample"]["max_draws"] = {"samplers": ("flow",)}, 9
    run.samplers = SimpleNamespace(make=lambda name: SimpleNamespace(num_latents=None))
    warn_of_rare(run, "evaluate")
    (line,) = caplog.messages
    assert "num_clusters" not in line
    assert ", or ask for fewer clusters in --config.hierarchy.splits; " in line


@pytest.fixture
def fitting(tmp_path):
    """The stage that trains, with one artifact that says what became of a leaf."""
    graph = {"fit flow in 0.0": Artifact("fit flow in 0.0", "fit", {}, (), (), "key")}
    maker = maker_of(SimpleNamespace(manifests=Manifests(RunFolder(tmp_path), graph)))
    run = planted([5, 5])
    run.held.region_inside = lambda path: run.regions[0]
    fit = SimpleNamespace(is_trained=False)
    run.samplers = SimpleNamespace(fit_of=lambda name, region: fit)
    return SimpleNamespace(run=run, maker=maker, num_tries=0)


@pytest.mark.usefixtures("untyped")
def test_a_leaf_too_rare_to_train_on_is_left_out_until_the_budget_is_larger(caplog, fitting):
    def fit_in(*_):
        fitting.num_tries += 1
        raise TooRare("cluster 0/0 is too rare")

    fitting.fit_in = fit_in
    FitStage.fit_leaf(fitting, "flow", (0, 0))
    FitStage.fit_leaf(fitting, "flow", (0, 0))
    assert fitting.num_tries == 1
    assert "left out: cluster 0/0 is too rare" in caplog.messages
    left_out = {"max_draws": 1000, "lines": {"0/0": "cluster 0/0 is too rare"}}
    assert fitting.maker.result("fit flow in 0.0") == {"left_out": left_out}
    fitting.maker = Maker(fitting.maker.manifests, fitting.maker.metrics, max_draws=1001)
    FitStage.fit_leaf(fitting, "flow", (0, 0))
    assert fitting.num_tries == 2


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


def spent(run, save):
    """Call a stage whose budget is too small for every cluster; return what it says."""
    run.config["sample"] |= {"max_draws": 1, "num": 200}  # a round of draws has fewer
    with pytest.raises(TooRare) as caught:
        save()
    return str(caught.value)


def test_a_stage_names_the_flag_that_its_mode_takes(run):
    run.manifests.forget("sample rejection")
    maker = maker_of(run)
    line = spent(run, lambda: save_samples(run, maker, "rejection", lambda: None))
    assert line.endswith(", or lower --config.sample.num")
    stage = TransferStage(run, maker, lambda *_: None)
    run.config["transfer"]["num"] = 200
    line = spent(run, lambda: stage._draw("rejection", LeftOut(run)))
    assert line.endswith(", or lower --config.transfer.num")
    draw = CompareStage(run, maker, lambda *_: None)._sampler("rejection")
    line = spent(run, lambda: draw(run.root_key, 1, 200))
    assert line.endswith(", or lower --config.compare.num")


@pytest.mark.usefixtures("untyped")
def test_a_draw_of_a_stage_stops_between_batches_when_asked_to(run):
    batches = []

    def check(*_):
        batches.append(1)
        if len(batches) == 3:
            raise Interrupted

    run.manifests.forget("sample rejection")
    run.generator.batch, key, region = 128, run.root_key, run.regions[0]
    run.config["sample"]["num"] = run.config["evaluate"]["num"] = 900
    evaluation = EvaluateStage(run, maker_of(run), check)
    comparison = CompareStage(run, maker_of(run), check)
    draws = [
        lambda: save_samples(run, maker_of(run), "rejection", check),
        lambda: reference_of(run, key, "evaluate", LeftOut(run), check),
        lambda: evaluation._measure("rejection", region, None),
        lambda: comparison._sampler("rejection")(key, 0, 900),
    ]
    for draw in draws:
        batches.clear()
        with pytest.raises(Interrupted):
            draw()
