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
from cgjax.evaluation import compare_table, extractors, fidelity
from cgjax.evaluation.attribute import Attribute, Side, attribute_of
from cgjax.evaluation.distances import frechet, frechet_floor, kid
from cgjax.figures.plots import draw_comparison
from cgjax.generators.biggan_parts import truncated_latents
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.generators.families import build_network
from cgjax.generators.weights import named_arrays, save_generator
from cgjax.numerics.intervals import wilson_interval
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
from tests.evaluation.test_fidelity import Itself


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


def test_the_one_cluster_table_divides_by_the_floor_and_prints_the_paper_s_ratio():
    rows = [
        {"method": "members", "setting": "true", "frechet": 2.0, "ratio": 1.0},
        {"method": "flow", "setting": "unverified", "frechet": 2.1, "ratio": 1.05},
        {"method": "flow", "setting": compare_table.SAME_CODES, "frechet": 2.0, "ratio": 1.0},
        {"method": "imle", "setting": "unverified", "frechet": 4.0, "ratio": 2.0},
    ]
    lines = compare_table.domain_gap(rows).splitlines()
    assert lines[2].split()[-2:] == ["1.050", "1.050"]
    assert lines[4].split()[-1] == "2.000"
    assert lines[5].split()[-1] == "1.121"


def test_at_equal_accuracy_the_closest_setting_of_each_method_is_named():
    def row(method: str, setting: str, accuracy: float, distance: float) -> dict:
        limits = {"frechet_low": distance - 1, "frechet_high": distance + 1}
        line = {"method": method, "setting": setting, "accuracy": accuracy, "frechet": distance}
        return {"cluster": 0} | line | limits

    rows = [
        row("flow", "margin 0", 0.7, 10),
        row("flow", "margin 0.6", 0.975, 90),
        row("flow", "margin 0.8", 0.99, 200),
        row("sefa", "set 2", 0.98, 300),
        row("gaussian", "verified", 0.8, 20),
    ]
    lines = compare_table.closest(rows, 0.97).splitlines()
    assert "flow, margin 0.6: Frechet 90.0 (89.0 to 91.0), accuracy 0.975" in lines[1]
    assert "sefa, set 2" in lines[2]
    assert lines[3].endswith("never as accurate: gaussian")


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


class Grey:
    """A generator of grey images, whose layer is the latent."""

    layers, latent_dim, image_size = ("latent",), 3, 2

    def sample_latents(self, key, n):
        return jax.random.normal(key, (n, 3))

    def features(self, z, layer):
        return z

    def images(self, z):
        return jax.numpy.zeros((len(z), 2, 2, 3))


@pytest.fixture
def by_hand():
    """One cluster of two modes, every latent of positive x a member of it; and its two halves."""
    rng = np.random.default_rng(0)
    modes = np.repeat(np.array([[0, 0, 0], [20, 0, 0]], np.float32), 10, axis=0)
    halves = [modes + rng.normal(size=modes.shape).astype(np.float32) for _ in range(2)]
    members = np.concatenate(halves)
    measurer = Measurer(
        generator=ConditionedGenerator(Grey(), "latent", {}, 100),
        memberships=[lambda z: z[:, 0] > 0],
        reference=fidelity.Reference(
            Itself(), {0: members}, {0: members}, {0: frechet_floor(members, num_splits=8)}
        ),
        sides=[],
        num=20,
        key=jax.random.key(0),
    )
    return measurer, *halves


def measured(measurer, latents, **options):
    line = ComparedMethod("flow", "", lambda key, c, n: (latents, 0.5), **options)
    return measurer.measure(line, 0, measurer.draw(line, 0))


def test_samples_from_half_of_the_members_have_full_precision_and_half_recall(by_hand):
    measurer, first, second = by_hand
    latents = np.concatenate([second[:10], second[:10] + 0.01])
    row = measured(measurer, latents)
    assert row["frechet"] == pytest.approx((frechet(latents, first) + frechet(latents, second)) / 2)
    assert row["frechet_low"] < row["frechet"] < row["frechet_high"]
    assert row["ratio"] == row["frechet"] / row["frechet_floor"]
    assert row["precision"] > 0.7
    assert row["recall"] <= 0.5
    assert row["coverage"] <= 0.5
    assert row["kid"] == kid(latents, first).mean > 1
    assert row["mean_distance"] < 0.3


class Constant(Itself):
    """Such as the class that a classifier gives, in a pure cluster."""

    def __call__(self, z):
        return np.zeros((len(z), 2), np.float32)


def test_members_whose_features_are_all_equal_leave_ratios_empty(by_hand):
    measurer, _, second = by_hand
    extractor = Constant()
    members = {0: extractor(measurer.reference.latents[0])}
    reference = fidelity.Reference(extractor, members, measurer.reference.latents, {0: 0.0})
    row = measured(measurer._replace(reference=reference), second)
    assert (row["frechet"], row["ratio"], row["mean_distance"]) == (0.0, None, None)
    untrained = row | {"setting": compare_table.SAME_CODES}
    lines = compare_table.domain_gap([row | {"setting": "unverified"}, untrained]).splitlines()
    assert [line.split()[-1] for line in lines[1:3]] == ["-", "-"]
    draw_comparison([row])


@pytest.mark.parametrize(("side", "at_once"), [(2, [8, 8, 4]), (1, [2] * 10)])
def test_images_are_measured_a_few_at_a_time(side, at_once, by_hand, monkeypatch):
    measurer, first, _ = by_hand
    seen: list[int] = []

    class Counting:
        name, attributes = "counting", ("number",)

        def __call__(self, images):
            seen.append(len(images))
            return {"number": np.arange(sum(seen) - len(images), sum(seen), dtype=float)}

    attribute = Attribute(Counting(), "number", 9.5, 0.0)
    measurer = measurer._replace(sides=[Side(attribute, 1, np.arange(5.0))])
    monkeypatch.setattr(measuring, "BLOCK_ROWS", 8)
    monkeypatch.setattr(extractors, "SIDE", side)  # of images that are not large
    monkeypatch.setattr(measurer.generator, "images", lambda z: 1 / 0)
    assert measured(measurer, first)["accuracy"] == 0.5
    assert seen == at_once


def test_latents_are_measured_against_the_same_number_of_members(by_hand):
    measurer, *_ = by_hand
    line = [[4, 0, 0], [-4, 0, 0]] * 10
    members = np.array(line + [[100, 100, 100]] * 20, np.float32)
    reference = measurer.reference._replace(latents=[members])
    latents = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]] * 5, np.float32)
    row = measured(measurer._replace(reference=reference), latents)
    assert row["norm_ratio"] == 0.25
    assert row["effective_rank"] == pytest.approx(2.0)
    low, high = wilson_interval(5, 20)
    assert (row["membership_low"], row["membership"], row["membership_high"]) == (low, 0.25, high)


def test_the_line_of_the_members_compares_one_half_with_the_other(by_hand):
    measurer, first, second = by_hand
    row = measured(measurer, second, is_second_half=True)
    assert row["frechet"] == frechet(second, first)
    interval = fidelity.distance_interval(second, first)
    assert (row["frechet_low"], row["frechet_high"]) == interval


def test_times_are_per_draw_and_per_image_and_members_have_no_draw_time(by_hand, monkeypatch):
    measurer, _, second = by_hand
    ticks = iter([0.0, 0.5, 10.0, 12.0, 20.0] * 2)  # what is done with images does not count
    monkeypatch.setattr(measuring, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    flow, members = (
        measured(measurer, second, is_second_half=of_members) for of_members in (False, True)
    )
    assert flow["sampling_ms"] == 100.0  # half a second for a quarter of 20
    assert members["sampling_ms"] is None
    assert flow["image_ms"] == members["image_ms"] == 100.0  # two seconds for 20
