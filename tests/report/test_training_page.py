"""The page of a run that trains a generator: what it says, and when it is made."""

import html
import json
import os
import re
import shutil
from pathlib import Path

import pytest

from cgjax.endtoend.experiment import Experiment
from cgjax.errors import Interrupted, UserError
from cgjax.figures.curves import LINES
from cgjax.generators.base import layer_index
from cgjax.report import training
from cgjax.report.training import shown, training_page
from cgjax.run.training import open_trained
from cgjax.runtime.signals import Interrupts
from cgjax.stages.report import report_training
from tests.endtoend.tiny_runs import settings, train
from tests.killing import Killed, killing
from tests.report.browser import open_page

MB = 2**20
CONFIG = settings(train__trials=2, score__every=6)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("training") / "run"
    train(root, CONFIG)
    return root


@pytest.fixture
def copied(trained, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(trained, root)
    return root


def page_of(root):
    """The page's text, the same wherever the folder lies."""
    page = (root / "report" / "index.html").read_text()
    return re.sub(r"(--workdir=)[^<]*", r"\1RUN", page)


def summary_of(root):
    return json.loads((root / "summary.json").read_text())


def row_of(page, name):
    """The cells of the first row of a score, as texts."""
    (first, *_) = re.findall(rf"<tr><th [^>]*><code>{name}</code></th>(.*?)</tr>", page, re.S)
    return [re.sub("<.*?>", "", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", first)]


def points_of(page, name):
    """The number of points in the curve of a score."""
    (figure,) = re.findall(
        rf'<figure class="curve"><figcaption><code>{name}</code>.*?</figure>', page, re.S
    )
    lines = figure.split(f'class="{LINES}"')[1:]
    paths = filter(None, (re.match(r'><path d="([^"]*)"', line) for line in lines))
    return sum(len(re.findall("[ML]", path[1])) for path in paths)


def test_every_score_stands_beside_the_perfect_samplers_with_its_interval_and_trials(trained):
    page, summary = page_of(trained), summary_of(trained)
    assert summary["scores"]
    for name, score in summary["scores"].items():
        best = score["perfect"]
        interval = f"{shown(best['low'])} to {shown(best['high'])}"
        expected = [
            shown(score["mean"]),
            shown(best["mean"]),
            interval,
            *map(shown, score["trials"]),
        ]
        assert row_of(page, name)[:-1] == expected
        assert row_of(page, name)[-1]
    assert summary["agreement"]
    for name, score in summary["agreement"].items():
        expected = [shown(score["mean"]), shown(score["kmeans_on_rows"])]
        assert row_of(page, name)[:-1] == [*expected, *map(shown, score["trials"])]


def test_scores_in_the_users_own_features_are_explained(trained):
    summary = summary_of(trained)
    score = next(iter(summary["scores"].values()))
    summary["scores"] = {"classifier_score_mine:judge": score, "frechet_mine:judge": score}
    page = training_page(open_trained(trained, None), summary)
    assert "your own classifier" in row_of(page, "classifier_score_mine:judge")[-1]
    assert "Frechet distance" in row_of(page, "frechet_mine:judge")[-1]


def test_each_curve_has_a_point_for_each_line_of_the_metrics(trained):
    page = page_of(trained)
    lines = list(map(json.loads, (trained / "metrics.jsonl").read_text().splitlines()))
    scored = [line for line in lines if line["stage"] == "score"]
    assert len(scored) == 4  # after 6 and 12 iterations, of two trials
    for name in summary_of(trained)["scores"]:
        known = [line for line in scored if line[name] is not None]
        assert points_of(page, name) == len(known)
    assert points_of(page, "modes") == 4
    losses = [line for line in lines if line["stage"] == "train"]
    for name in ("loss_generator", "loss_discriminator"):
        assert points_of(page, name) == sum(len(line[name]) for line in losses)
    (table,) = re.findall(r'<table id="scored">(.*?)</table>', page, re.S)
    assert re.findall(r'<th scope="row">(.*?)</th>', table) == ["6", "12"]


@pytest.mark.parametrize(
    "line",
    [
        {"stage": "train", "iteration": 3, "loss_generator": 0.5},
        {"stage": "train", "loss_generator": [0.5]},
        {"stage": "train", "iteration": 3, "loss_generator": ["much"]},
        {"stage": "score", "iteration": "three", "trial": 0, "modes": 3},
        {"stage": "score", "iteration": 3, "trial": [0], "modes": 3},
        {"stage": "score", "iteration": 3, "trial": 0, "modes": "many"},
        {"stage": "score", "iteration": 3, "modes": [1]},
    ],
)
def test_an_edited_line_of_the_metrics_is_left_out(trained, copied, line):
    with (copied / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    page = training_page(open_trained(copied, None), summary_of(copied))
    for name in ("modes", "loss_generator"):
        assert points_of(page, name) == points_of(page_of(trained), name)


def test_the_page_says_what_was_trained_and_what_to_type_next(trained):
    page = html.unescape(re.sub("<.*?>", "", page_of(trained)))
    assert "12 iterations, 2 trials, 30 points scored in each" in page
    assert "python -m cgjax.main --workdir=RUN" in page
    assert "liu2020diverse" in page
    assert '"num_clusters": 4' in page


def test_the_command_that_clusters_the_generator_names_a_layer_that_every_network_has(trained):
    command = training._commands(open_trained(trained, None), summary_of(trained))["cluster"]
    layer = re.search(r"--config\.layer=(\S+)", command).group(1)
    for names in (("layer1", "layer2"), ("block1", "block2", "block3")):  # dcgan, residual
        assert layer_index(names, layer) == 1


def test_the_page_is_small_names_no_host_and_runs_no_script(trained):
    page = page_of(trained)
    assert len(page.encode()) < 2 * MB
    sources = re.findall(r'(?:src|href)="([^"#]+)', page)
    assert all(source.startswith("data:") for source in sources)
    assert "<script" not in page
    policy = r"default-src 'none'; img-src data: blob:; style-src 'sha256-[^']*'; base"
    assert re.search(policy, html.unescape(page))
    assert not re.search(r"\sstyle=", page)  # the policy forbids them


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "\"'><img src=x onerror=alert(1)>"])
def test_text_that_could_hold_markup_is_escaped(copied, text):
    run, summary = open_trained(copied, None), summary_of(copied)
    summary |= {"data": text, "method": text, "notes": {text: text, "more": {text: text}}}
    summary["scores"] |= {text: summary["scores"]["modes"]}
    summary["agreement"] |= {text: summary["agreement"]["purity"]}
    with run.folder.metrics.open("a") as file:
        line = {"stage": "score", "iteration": 12, "trial": 0, text: 1.0}
        file.write(json.dumps(line) + "\n")
    run.config["data"]["path"] = text
    page = training_page(run, summary)
    assert text not in page
    assert "<script" not in page
    assert "<img src=x" not in page
    assert page.count(html.escape(text).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")) > 5


def test_a_folder_of_a_version_without_pages_is_current_and_gets_one_without_training(
    copied, monkeypatch
):
    page = page_of(copied)
    shutil.rmtree(copied / "report")
    (copied / "stages" / "report.json").unlink()
    before = {path: path.read_bytes() for path in copied.rglob("*.npz")}
    monkeypatch.setattr(Experiment, "__init__", None)
    summary = report_training(open_trained(copied, None))
    assert summary == summary_of(copied)
    assert page_of(copied) == page
    assert open_trained(copied, None).is_intact
    (copied / "stages" / "results.json").unlink()  # a still earlier one
    shutil.rmtree(copied / "report")
    report_training(open_trained(copied, None))
    assert page_of(copied) == page
    assert {path: path.read_bytes() for path in copied.rglob("*.npz")} == before


def test_a_page_is_made_of_what_is_left_of_a_folder(copied):
    for name in ("metrics.jsonl", "figures/samples.png", "stages/results.json"):
        (copied / name).unlink()
    report_training(open_trained(copied, None))
    page = page_of(copied)
    assert row_of(page, "modes")
    assert 'class="curve"' not in page
    assert "<img" not in page


@pytest.mark.parametrize("content", ["", '{"scores": ', "3"])
def test_a_damaged_summary_of_an_earlier_version_ends_in_one_line(copied, content):
    (copied / "stages" / "results.json").unlink()  # it has the hashes of what was written
    (copied / "summary.json").write_text(content)
    with pytest.raises(UserError, match=r"summary\.json is damaged; .*--workdir=.* writes it"):
        report_training(open_trained(copied, None))


def test_killed_while_it_writes_the_page_a_training_resumes_to_the_same_page(
    trained, tmp_path, monkeypatch
):
    root = tmp_path / "run"
    write = training.write_atomically
    monkeypatch.setattr(training, "write_atomically", killing(write, 1))
    with pytest.raises(Killed):
        train(root, CONFIG)
    assert (root / "summary.json").is_file()
    assert not (root / "report" / "index.html").exists()
    monkeypatch.undo()
    monkeypatch.setattr(Experiment, "advance", None)  # it trains nothing
    train(root, CONFIG)
    pages = [page_of(one) for one in (root, trained)]
    seconds = re.compile(r"It took [\d,]+ seconds")
    assert seconds.sub("", pages[0]) == seconds.sub("", pages[1])


class StopAtOnce(Interrupts):
    def agreed(self):
        return True


def test_the_page_of_a_shorter_training_stays_until_the_longer_one_has_its_own(copied):
    longer = CONFIG | {"train": CONFIG["train"] | {"iterations": 18}}
    page = page_of(copied)
    with pytest.raises(Interrupted):
        train(copied, longer, StopAtOnce(), allow_change=True)
    assert page_of(copied) == page
    with pytest.raises(
        UserError, match=r"is not trained to its end \(18 .*--workdir=.* resumes it"
    ):
        report_training(open_trained(copied, None))
    train(copied, longer)
    assert "18 iterations" in page_of(copied)


def test_edited_results_get_no_page_and_an_edited_page_is_made_again(copied):
    page = page_of(copied)
    (copied / "report" / "index.html").write_text("somebody's")
    train(copied, None)
    assert page_of(copied) == page
    (copied / "samples.npz").write_bytes(b"somebody's")
    with pytest.raises(UserError, match=r"'results' is stale, or its files are not those"):
        report_training(open_trained(copied, None))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault_and_nothing_is_requested_or_too_wide(scheme, browser, trained):
    context = browser.new_context(offline=True, bypass_csp=True, color_scheme=scheme)
    opened = open_page(context, trained / "report" / "index.html")
    page = opened.page
    assert opened.errors == []
    assert [url for url in opened.requests if not url.startswith("data:")] == opened.requests[:1]
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    for width in (360, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    if script := os.environ.get("AXE_JS"):
        page.evaluate(Path(script).read_text())
        found = page.evaluate("axe.run()")["violations"]
        assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []
    context.close()


def test_a_curve_takes_its_colour_of_text_from_the_page(browser, trained):
    inks = []
    for scheme in ("light", "dark"):
        context = browser.new_context(offline=True, color_scheme=scheme)
        page = open_page(context, trained / "report" / "index.html").page
        assert page.evaluate("document.querySelectorAll('.curve svg').length") > 10
        ink = "getComputedStyle(document.querySelector('.curve text')).fill"
        inks.append((page.evaluate(ink), page.evaluate("getComputedStyle(document.body).color")))
        context.close()
    assert all(ink == body for ink, body in inks)
    assert inks[0] != inks[1]
