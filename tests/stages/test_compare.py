"""The comparison: one table with every method, resumable, and honest about what is missing."""

import csv
import io
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from cgjax.config import plain as configuration
from cgjax.errors import UserError
from cgjax.evaluation import compare_table
from cgjax.evaluation.attribute import attribute_of
from cgjax.generators.biggan_parts import truncated_latents
from cgjax.generators.families import build_network
from cgjax.generators.weights import named_arrays, save_generator
from cgjax.regions.region import MarginRange
from cgjax.run.conditional import TAKEN
from cgjax.run.opening import open_run
from cgjax.runtime.files import read_sealed, write_sealed
from cgjax.runtime.signals import Interrupts
from cgjax.samplers.flow import Flow
from cgjax.stages import compare, measuring, sweep
from cgjax.stages.graph import Maker
from cgjax.stages.measuring import Measurer
from cgjax.stages.methods import ComparedMethod
from cgjax.stages.pipeline import Pipeline
from configs import tiny


def disc_side(images: np.ndarray) -> np.ndarray:
    """Where the dark disc is, from -1 (left) to 1 (right): a judge that knows the truth."""
    weight = np.abs(images - images[:, :1, :1]).sum(axis=(1, 3)) + 1e-6
    place = np.linspace(-1, 1, images.shape[2])
    return (weight * place).sum(axis=1) / weight.sum(axis=1)


def make_config(**compare_settings) -> dict:
    config = tiny.get_config("quick")
    config.samplers.imle.num_epochs = 2
    config.samplers.gaussian.fit = True
    config.sample.sampler = "imle"
    config.compare.judge = "tests.stages.test_compare:disc_side"
    config.compare.attribute = "disc_side"
    config.compare.threshold = 0.1
    config.compare.update(compare_settings)
    return configuration.to_plain(config)


def unlearnt(config: dict) -> dict:
    """The config with rejection alone, for what is not about samplers that learn."""
    for name, sampler in config["samplers"].items():
        sampler["fit"] = name == "rejection"
    config["sample"]["sampler"] = "rejection"
    return config


def make_pipeline(root, learns=True, **compare_settings) -> Pipeline:
    config = make_config(**compare_settings)
    config = config if learns else unlearnt(config)
    return Pipeline(open_run(root, config, mode="compare", allow_change=True), Interrupts())


def run_compare(pipeline: Pipeline) -> str:
    try:
        return pipeline.compare()
    finally:
        pipeline.metrics.close()


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    root = tmp_path_factory.mktemp("compare") / "run"
    return root, run_compare(make_pipeline(root))


def test_every_method_is_in_every_form_of_the_table(compared):
    root, text = compared
    rows = json.loads((root / "compare.json").read_text())["rows"]
    table = list(csv.DictReader(io.StringIO((root / "compare.csv").read_text())))
    assert len(rows) == len(table)
    methods = {row["method"] for row in rows}
    # SeFa is left out: the planted generator has no weight that it could factorise.
    assert methods == {"members", "rejection", "flow", "imle", "gaussian", "ganspace"}
    assert methods <= set(TAKEN)
    for method in methods:
        assert method in text
        assert {row["cluster"] for row in rows if row["method"] == method} == {0, 1}
    assert set(table[0]) == set(compare_table.COLUMNS)
    assert (root / "figures/compare.png").stat().st_size > 1000


def test_true_members_are_right_and_at_the_floor(compared):
    rows = json.loads((compared[0] / "compare.json").read_text())["rows"]
    for row in rows:
        if row["method"] == "members":
            assert row["membership"] == 1.0
            assert row["accuracy"] > 0.9  # the bridge between the two modes is thin
            edited = [
                r for r in rows if r["method"] == "ganspace" and r["cluster"] == row["cluster"]
            ]
            assert row["ratio"] < max(r["ratio"] for r in edited)
            assert row["frechet_low"] < row["frechet_floor"] < row["frechet_high"]
        if "verified" in row["setting"].split(","):
            assert row["membership"] == 1.0
            assert 0 < row["acceptance"] <= 1
        assert row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"]
        assert row["strict"] <= row["accuracy"] + 1e-9
        assert row["judge"] == "tests.stages.test_compare:disc_side"


def test_the_chosen_direction_moves_images_the_right_way(compared):
    rows = json.loads((compared[0] / "compare.json").read_text())["rows"]
    best = max(row["accuracy"] for row in rows if row["method"] == "ganspace")
    assert best > 0.7  # unedited draws of the prior are right about half of the time


def test_a_second_call_measures_nothing(compared, monkeypatch):
    root, text = compared

    def refuse(*args):
        raise AssertionError("measured again")

    monkeypatch.setattr(Measurer, "measure", refuse)
    assert run_compare(make_pipeline(root)) == text
    (root / "compare.txt").unlink()  # the lines are still saved
    assert run_compare(make_pipeline(root)) == text


@pytest.mark.usefixtures("untyped")  # a stage without metrics
def test_what_an_edited_judge_measured_is_measured_anew(compared, tmp_path, monkeypatch):
    root = shutil.copytree(compared[0], tmp_path / "run")

    def lines():
        run = open_run(root, make_config(), mode="compare")
        return compare.CompareStage(run, Maker(run.manifests, None), lambda: None)._load()

    saved = read_sealed(root / "compare.json")
    assert lines() == saved["rows"]
    assert (root / "compare.csv").exists()
    side = disc_side
    monkeypatch.setattr(sys.modules[__name__], "disc_side", lambda images: -side(images))
    assert lines() == []
    assert not (root / "compare.csv").exists()
    del saved["traces"]  # as an earlier version left it
    write_sealed(root / "compare.json", saved)
    assert lines() == saved["rows"]


def test_only_the_lines_of_an_added_margin_are_measured_and_a_removed_margin_leaves_the_table(
    tmp_path, monkeypatch
):
    root, measured = tmp_path / "run", []
    measure = Measurer.measure

    def count(self, method, c, drawn):
        measured.append((method.name, method.setting))
        return measure(self, method, c, drawn)

    monkeypatch.setattr(Measurer, "measure", count)
    run_compare(make_pipeline(root, margins=(0.0, 0.3), directions=0))
    measured.clear()
    run_compare(make_pipeline(root, margins=((0.2, 0.8), 0.0), directions=0))
    settings = {("rejection", "verified, margin 0.2:0.8"), ("flow", "verified, margin 0.2:0.8")}
    assert set(measured) == settings
    assert len(measured) == 4  # of two clusters
    rows = json.loads((root / "compare.json").read_text())["rows"]
    assert "verified, margin 0.3" not in {row["setting"] for row in rows}
    # In the order of the settings, whenever they were measured.
    flow = [row["setting"] for row in rows if row["method"] == "flow" and row["cluster"] == 0]
    assert flow == ["unverified", "verified, margin 0.2:0.8", "verified"]


@pytest.mark.usefixtures("untyped")  # a stage without metrics, methods that draw nothing
def test_a_line_depends_on_its_own_sampler_the_clusters_and_the_weights(tmp_path):
    def keys(change=lambda config: None):
        config = make_config()
        change(config)
        run = open_run(tmp_path / "run", config, mode="compare", allow_change=True)
        stage = compare.CompareStage(run, Maker(run.manifests, None), lambda: None)
        names = ("members", "flow", "imle", "sefa")
        return {name: stage._key(ComparedMethod(name, "", None)) for name in names}

    def changed(change):
        return {name for name, key in keys(change).items() if key != before[name]}

    before = keys()
    assert changed(lambda c: c["samplers"]["imle"].update(num_epochs=3)) == {"imle"}
    assert changed(lambda c: c["samplers"]["imle"].update(output="raw")) == {"imle"}
    assert changed(lambda c: c["compare"].update(margins=[0.1], accuracy=0.5)) == set()
    assert changed(lambda c: c["compare"].update(selection=3)) == {"members", "sefa"}
    assert changed(lambda c: c["compare"].update(threshold=0.2)) == set(before)
    assert changed(lambda c: c["cluster"].update(num_clusters=3)) == set(before)
    other = "tests.run.changes:other_generator"
    assert changed(lambda c: c["generator"].update(name=other)) == set(before)


def test_an_error_while_measuring_ends_the_comparison_without_a_manifest(tmp_path, monkeypatch):
    def refuse(*args):
        raise UserError("sets of other widths")

    monkeypatch.setattr(measuring, "precision_recall_density_coverage", refuse)
    with pytest.raises(UserError, match="sets of other widths"):
        run_compare(make_pipeline(tmp_path / "run", learns=False, directions=0))
    assert not (tmp_path / "run/compare.csv").exists()
    assert (
        make_pipeline(tmp_path / "run", learns=False, directions=0).maker.result("compare") is None
    )


def truncated(key, shape):
    return truncated_latents(key, *shape, 1.0)


def test_without_a_judge_distances_are_measured_and_one_cluster_prints_the_paper_s_ratio(tmp_path):
    config = make_config(judge=None)
    config["cluster"]["num_clusters"] = 1
    config["sample"]["sampler"] = "flow"
    for name, settings in config["samplers"].items():
        settings["fit"] = name in ("flow", "gaussian")
    run = open_run(tmp_path / "run", config, mode="compare")
    text = run_compare(Pipeline(run, Interrupts()))
    assert text.splitlines()[-1].endswith("1.121")
    rows = json.loads((tmp_path / "run/compare.json").read_text())["rows"]
    assert all("accuracy" not in row for row in rows)
    untrained = next(row for row in rows if row["setting"] == compare_table.SAME_CODES)
    assert untrained["norm_ratio"] == pytest.approx(1.0, abs=0.25)  # five deviations of 64 draws


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(("prior", "is_same"), [(jax.random.normal, True), (truncated, False)])
def test_an_untrained_flow_stands_for_the_prior_only_where_that_is_a_standard_normal(
    prior, is_same
):
    run = SimpleNamespace(
        clustering=SimpleNamespace(num=1),
        sampler_names=["flow"],
        samplers=SimpleNamespace(fitted=lambda name: SimpleNamespace(sampler=Flow(8))),
        latents=np.asarray(prior(jax.random.key(0), (10_000, 8))),
    )
    stage = SimpleNamespace(
        run=run,
        maker=SimpleNamespace(result=lambda name: None),
        settings={"dialled": ("gan,flow",), "directions": 0},
        margin_ranges=[MarginRange.parse(0.6)],
        conditional=None,
        _sampler=lambda name, **options: None,
        _untrained=lambda sampler: None,
    )
    measurer = SimpleNamespace(sides=[], reference=None)
    settings = [method.setting for method in compare.CompareStage._methods(stage, measurer)]
    assert (compare_table.SAME_CODES in settings) == is_same
    assert settings[-1] == "verified, margin 0.6"


@pytest.mark.usefixtures("untyped")
def test_without_margins_a_dialled_sampler_is_measured_on_whole_clusters():
    settings = {"dialled": ["flow"], "margins": [], "directions": 0, "num": 2, "judge": None}
    run = SimpleNamespace(
        config={"compare": settings},
        root_key=jax.random.key(0),
        clustering=SimpleNamespace(num=2),
        sampler_names=["flow"],
        samplers=SimpleNamespace(fitted=lambda name: SimpleNamespace(sampler=Flow(8))),
    )
    maker = SimpleNamespace(result=lambda name: None)
    stage = compare.CompareStage(run, maker, lambda *_: None)
    methods = stage._methods(SimpleNamespace(sides=[], reference=None))
    assert [m.setting for m in methods] == ["true, held out", "unverified", "verified"]


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("stage", [compare.CompareStage, sweep.SweepStage])
def test_a_finished_table_is_read_whatever_the_locale(stage, tmp_path, monkeypatch):
    for name in ("compare.txt", "sweep.txt"):
        (tmp_path / name).write_bytes("judge of größe\n".encode())
    monkeypatch.setattr(
        Path, "read_text", lambda path, encoding="latin-1": path.read_bytes().decode(encoding)
    )
    run = SimpleNamespace(folder=SimpleNamespace(root=tmp_path))
    finished = SimpleNamespace(run=run, maker=SimpleNamespace(result=lambda name: {}))
    assert stage.run_all(finished) == "judge of größe"


def test_an_attribute_unknown_to_the_judge_is_named():
    settings = make_config(attribute="yaw")["compare"]
    with pytest.raises(UserError, match=r"compare\.attribute=yaw: the judge .*disc_side knows"):
        attribute_of(settings)


def brightness(images: np.ndarray) -> np.ndarray:
    return images.mean(axis=(1, 2, 3))


def compare_stylegan(root, **settings) -> list[dict]:
    architecture = {
        "form": "genforce",
        "latent_dim": 8,
        "style_dim": 6,
        "mapping_widths": [6],
        "depths": [8, 4],
    }
    network = build_network("stylegan", architecture)
    arrays = {name: np.asarray(array) for name, array in named_arrays(network).items()}
    source = {"name": "random numbers", "sha256": ""}
    folder = save_generator(
        root / "style", "stylegan", architecture, arrays, source=source, licence="none"
    )
    judge = {"judge": "tests.stages.test_compare:brightness", "attribute": "brightness"}
    config = unlearnt(make_config(**judge, threshold=0.0))
    config["generator"]["weights"], config["layer"] = str(folder), "layer0"
    config["compare"] |= {"margins": [0.0], "directions": 2, "alphas": [1.0], "num": 32}
    for name, value in settings.items():
        config["evaluate"][name] = value
    run_compare(Pipeline(open_run(root / "run", config, mode="compare"), Interrupts()))
    return json.loads((root / "run/compare.json").read_text())["rows"]


def test_sefa_of_a_stylegan_is_measured_on_images_of_edited_w(tmp_path):
    rows = [row for row in compare_stylegan(tmp_path) if row["method"] == "sefa"]
    assert {row["setting"].split(", ")[-1] for row in rows} == {"shift 1", "set 1"}
    for row in rows:
        assert np.isfinite(row["frechet"])
        assert "membership" not in row  # edited w has no latent


def test_sefa_is_left_out_if_its_directions_cannot_be_compared(tmp_path, caplog):
    rows = compare_stylegan(tmp_path, features="layer:layer0")
    assert {row["method"] for row in rows} == {"members", "rejection", "ganspace"}
    assert "sefa is left out: its edits are in w" in caplog.text
