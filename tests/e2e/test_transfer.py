"""Clusters and samplers of one class of a conditional generator are applied to others."""

import json

import pytest
from PIL import Image

from tests.e2e.command import cgjax
from tests.golden_cases import GOLDEN

SMALL = (
    "--config=configs/biggan_dog_pose.py:quick",
    "--config.generator.condition=3",
    "--config.generator.batch=8",  # one size for most numbers of images: fewer programs
    "--config.samplers.flow.fit=false",
    "--config.latents.num=300",
    "--config.evaluate.num=40",
    "--config.evaluate.prior_images=64",
    "--config.evaluate.components=8",
    "--config.transfer.num=40",
)
TARGETS = "--config.transfer.conditions=1,3"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    pytest.importorskip("torch")
    from converters.__main__ import convert

    folder = tmp_path_factory.mktemp("biggan") / "weights"
    convert("biggan", GOLDEN / "biggan_deep_a" / "pytorch_model.bin", folder)
    return f"--config.generator.weights={folder}"


@pytest.fixture(scope="module")
def finished(weights, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished") / "run"
    done = cgjax(*SMALL, weights, TARGETS, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    return workdir


def test_every_class_is_scored_for_the_default_sampler_and_the_reference(finished):
    transfer = json.loads((finished / "summary.json").read_text())["transfer"]
    assert transfer["source"] == "3"
    assert [entry["condition"] for entry in transfer["classes"]] == ["1", "3"]
    for entry in transfer["classes"]:
        assert entry["samplers"].keys() == {"imle", "rejection"}
        assert sum(entry["shares"]) == pytest.approx(1)
        for score in entry["samplers"].values():
            low, high = score["interval"]
            assert low <= score["agreement"] <= high
            assert score["chance"] >= 0.5
            assert sorted(score["matching"]) == [0, 1]


def test_the_source_class_agrees_with_itself(finished):
    # The same latents, features and seed give the same clusters, and the reference draws members.
    other, itself = json.loads((finished / "summary.json").read_text())["transfer"]["classes"]
    assert itself["samplers"]["rejection"]["agreement"] == 1
    assert itself["samplers"]["rejection"]["matching"] == [0, 1]
    assert other["samplers"]["rejection"]["agreement"] < 1


def test_the_numbers_the_figure_and_the_page_are_written(finished):
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    scored = [(x["condition"], x["sampler"]) for x in lines if "agreement" in x]
    assert sorted(scored) == [(c, s) for c in ("1", "3") for s in ("imle", "rejection")]
    with Image.open(finished / "figures" / "transfer.png") as picture:
        # Three rows and two clusters of four 32-pixel images, shown four times as large.
        assert picture.height > 3 * 128
        assert picture.width > 2 * 4 * 128
    page = (finished / "report" / "index.html").read_text()
    assert "The same latents in other classes" in page
    assert "transfer.png" in page


def test_another_class_is_scored_without_recomputing_anything_else(finished, weights):
    before = {p: p.stat().st_mtime_ns for p in (finished / "samples").rglob("*.png")}
    stamps = {p.name: p.read_text() for p in (finished / "stages").glob("*.json")}
    (finished / "figures" / "transfer.png").unlink()
    done = cgjax(*SMALL, weights, TARGETS, f"--workdir={finished}")
    assert done.returncode == 0, done.stderr
    assert (finished / "figures" / "transfer.png").is_file()
    again = {p.name: p.read_text() for p in (finished / "stages").glob("*.json")}
    assert {n for n in stamps if stamps[n] != again[n]} == {"report.json", "transfer-figure.json"}
    assert before == {p: p.stat().st_mtime_ns for p in (finished / "samples").rglob("*.png")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--config=configs/tiny.py:quick", "--config.transfer.conditions=beagle"),
            "planted takes no 'condition'",
        ),
        ((*SMALL, "--config.transfer.conditions=1,99"), "ids go from 0 to 9"),
    ],
    ids=["unconditional", "unknown"],
)
def test_a_class_that_the_generator_lacks_stops_the_run_before_any_work(
    arguments, message, weights, tmp_path
):
    given = (*arguments, weights) if SMALL[0] in arguments else arguments
    done = cgjax(*given, f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert "--config.transfer.conditions=" in lines[0]
    assert not (tmp_path / "run").exists()
