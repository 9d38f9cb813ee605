"""Drawing on demand: the same number from every cluster, and with a sampler trained on a query."""

import functools
import itertools
import json
import os
import re
import shutil
import signal

import jax
import numpy as np
import pytest
from PIL import Image

from cgjax.config.schema import CLUSTERS
from cgjax.errors import Interrupted, UserError
from cgjax.generators.batching import in_batches
from cgjax.generators.registry import load_generator
from cgjax.modes import Command, action_for
from cgjax.regions import acceptance
from cgjax.run import sample_files
from cgjax.run.opening import load_run, open_run
from cgjax.runtime.lock import FolderLock
from cgjax.runtime.log import Progress
from cgjax.runtime.processes import Processes
from cgjax.runtime.signals import Interrupts, on_interrupt
from cgjax.stages import draw
from cgjax.stages.draw import Request, draw_balanced, draw_region, fit_query
from cgjax.stages.pipeline import Pipeline
from tests.killing import Killed, killing
from tests.stages.test_hierarchy import config
from tests.test_modes import parsed


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A run with clusterings of two layers, and one inside a cluster."""
    folder = tmp_path_factory.mktemp("draw") / "run"
    sweep = {"sweep.numbers": (2,), "sweep.layers": ("layer2",), "sweep.judged": 100}
    flow = {"latents.num": 400, "samplers.flow.num_latents": 400, "samplers.flow.num_epochs": 15}
    given = config("1/layer2-k3", **sweep, **flow, **{"sweep.judges": ("image_statistics",)})
    pipeline = Pipeline(open_run(folder, given), Interrupts())
    try:
        pipeline.cluster()
        pipeline.split()
        pipeline.fit()
        pipeline.sweep()
    finally:
        pipeline.metrics.close()
    return folder


def test_no_latents_give_no_images_and_no_members(root):
    run = load_run(root)
    none = run.latents[:0]
    assert run.are_inside(none, run.regions[0]).tolist() == []
    size = run.generator.gen.image_size
    assert run.generator.images(none).shape == (0, size, size, 3)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("num", [0, -1, 2.0, True])
@pytest.mark.parametrize("verify", [True, False])
def test_a_number_of_draws_below_one_is_refused(root, num, verify):
    run = load_run(root)
    for drawn in (run.draw, run.sample_region):
        with pytest.raises(UserError, match=f"num={num}: expected a whole number of at least 1"):
            drawn(jax.random.key(0), run.regions[0], num, sampler="rejection", verify=verify)


@pytest.mark.usefixtures("untyped")
def test_invalid_keys_regions_and_latents_are_refused(root):
    run = load_run(root)
    key, region = jax.random.key(0), run.regions[0]
    for drawn in (run.draw, run.sample_region):
        with pytest.raises(UserError, match="key=0: expected a random key"):
            drawn(0, region, 2, sampler="rejection")
        with pytest.raises(UserError, match=r"region=0: .* such as run\.region\(0\)"):
            drawn(key, 0, 2, sampler="rejection")
    with pytest.raises(UserError, match=r"region='a': expected a region"):
        run.are_inside(run.latents, "a")
    with pytest.raises(UserError, match="latents are not an array"):
        run.are_inside([[1.0], [1.0, 2.0]], region)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        (None, "None"),
        (3, "3"),
        (b"run", "b'run'"),
        ("a" * 5000, "'aaa+[.]{3}"),
    ],
)
def test_an_impossible_folder_is_reported_in_one_line(name, message):
    for load in (load_run, load_generator):
        with pytest.raises(UserError, match=message) as caught:
            load(name)
        assert len(str(caught.value)) < 1000
        assert "\n" not in str(caught.value)


def test_files_that_are_not_samples_are_not_overwritten(root, tmp_path):
    run, own = load_run(root), tmp_path / "ffhq"
    own.mkdir()
    for i in range(3):
        Image.new("RGB", (4, 4)).save(own / f"{i:05d}.png")
    before = {path: path.read_bytes() for path in own.iterdir()}
    with pytest.raises(UserError, match=r"holds 00000.png, which is not a sample of this"):
        draw_region(run, asked(own, "0", num=2))
    assert {path: path.read_bytes() for path in own.iterdir()} == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "latents.npy").write_text("my own")
    with pytest.raises(UserError, match=r"holds latents.npy"):
        draw_region(run, asked(tmp_path / "mine", "0", num=2))


def test_a_draw_replaces_an_earlier_one_and_nothing_else(root, tmp_path):
    run, out = load_run(root), tmp_path / "out"
    draw_region(run, asked(out, "0", num=5))
    (out / "notes.txt").write_text("mine")
    draw_region(run, asked(out, "0", num=2))
    assert sorted(path.name for path in out.iterdir()) == [
        *("00000.png", "00001.png", "latents.npy", "notes.txt")
    ]
    assert len(np.load(out / "latents.npy")) == 2


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_draw_that_is_killed_leaves_the_earlier_one_and_the_next_draw_cleans_up(
    root, tmp_path, monkeypatch
):
    run = load_run(root)
    draw_region(run, asked(tmp_path, "0", num=5))
    before = contents(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(sample_files, "to_png", killing(sample_files.to_png, 3))
        patched.setattr(shutil, "rmtree", lambda *args, **options: None)  # nor does SIGKILL
        with pytest.raises(Killed):
            draw_region(run, asked(tmp_path, "1", num=5))
    left = contents(tmp_path)
    assert before.items() <= left.items()
    assert len(left) == len(before) + 2
    draw_region(run, asked(tmp_path, "1", num=4))
    assert len(contents(tmp_path)) == len(list(tmp_path.iterdir())) == 5


def test_two_draws_into_one_folder_do_not_mix(root, tmp_path):
    run, first = load_run(root), asked(tmp_path, "0", num=3)
    with sample_files.draft(tmp_path, "--out"):
        with pytest.raises(UserError, match="is being written by another command"):
            draw_region(run, first)
        assert [p.name for p in tmp_path.iterdir()] == [".lock"]
    draw_region(run, first)


def test_a_draw_that_is_killed_while_it_replaces_another_leaves_no_latents(
    root, tmp_path, monkeypatch
):
    run = load_run(root)
    draw_region(run, asked(tmp_path, "0", num=5))
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", killing(os.replace, 6 + 3))
        with pytest.raises(Killed):
            draw_region(run, asked(tmp_path, "1", num=5))
    assert not (tmp_path / "latents.npy").exists()
    draw_region(run, asked(tmp_path, "1", num=4))
    assert len(list(tmp_path.glob("*.png"))) == len(np.load(tmp_path / "latents.npy")) == 4


def test_an_interrupted_draw_leaves_the_earlier_one_or_has_replaced_it(root, tmp_path, monkeypatch):
    run = load_run(root)
    draw_balanced(run, asked(tmp_path, None, num=6, sampler="rejection"))
    before = contents(tmp_path)

    def interrupted(function, at):
        calls = itertools.count(1)

        def call(*args):
            if next(calls) == at:
                os.kill(os.getpid(), signal.SIGINT)
            return function(*args)

        return call

    with monkeypatch.context() as patched:
        patched.setattr(sample_files, "to_png", interrupted(sample_files.to_png, 3))
        # As the command does: tests that run in the background ignore Ctrl-C.
        with on_interrupt(signal.default_int_handler), pytest.raises(KeyboardInterrupt):
            draw_balanced(run, asked(tmp_path, None, num=4, sampler="rejection"))
    assert contents(tmp_path) == before
    with monkeypatch.context() as patched:
        patched.setattr(draw, "move_samples", interrupted(draw.move_samples, 2))
        draw_balanced(run, asked(tmp_path, None, num=4, sampler="rejection"))
    assert len(contents(tmp_path)) == 6


def test_few_images_of_a_draw_are_held(root, tmp_path, monkeypatch):
    run = load_run(root, resources={"generator": {"batch": 8}})
    blocks, to_png = run.generator.image_blocks, sample_files.to_png
    made = written = most = 0

    def making(z):
        nonlocal made, most
        for block in blocks(z):
            made += len(block)
            most = max(most, made - written)
            yield block

    def writing(image):
        nonlocal written
        written += 1
        return to_png(image)

    monkeypatch.setattr(run.generator, "images", lambda z: 1 / 0)
    monkeypatch.setattr(run.generator, "image_blocks", making)
    monkeypatch.setattr(sample_files, "to_png", writing)
    draw_balanced(run, asked(tmp_path, None, num=60, sampler="rejection"))
    assert (made, written, most) == (60, 60, 8)


def test_a_balanced_draw_of_fewer_clusters_removes_the_samples_of_the_others(root, tmp_path):
    run = load_run(root)
    draw_balanced(run, asked(tmp_path, "1", num=6, sampler="rejection"))
    assert list((tmp_path / "2").iterdir())
    draw_balanced(run, asked(tmp_path, None, num=6, sampler="rejection"))
    assert not list((tmp_path / "2").iterdir())


def test_a_run_is_opened_with_other_resources_and_with_no_other_setting(root):
    given = {"sample": {"max_draws": 7}, "generator": {"batch": 3}, "seed": 99}
    run = load_run(root, resources=given)
    assert (run.config["sample"]["max_draws"], run.generator.batch) == (7, 3)
    assert run.config["seed"] == load_run(root).config["seed"] != 99
    with pytest.raises(UserError, match=r"--config.sample.max_draws=7"):
        draw_region(run, asked(root / "unused", "0", num=100, sampler="rejection"))
    with pytest.raises(UserError, match=r"--config.sample.max_draws=many: expected"):
        load_run(root, resources={"sample": {"max_draws": "many"}})


def test_a_sampler_of_a_query_is_trained_with_the_resources_of_the_given_config(root, tmp_path):
    config = load_run(root).config
    config["sample"]["max_draws"] = 7
    options = parsed("--fit_query", "--cluster=0 & layer2=0", f"--out={tmp_path}")
    state = (Processes(), FolderLock(root), Interrupts())
    command = Command("sample", options, root, config, [], *state)
    with pytest.raises(UserError, match=r"the budget is --config.sample.max_draws=7: type"):
        action_for("sample", CLUSTERS)(command)


def test_a_balanced_draw_replaces_the_samples_of_one_region_in_the_same_folder(root, tmp_path):
    run = load_run(root)
    (tmp_path / "notes.txt").write_text("my own")
    draw_region(run, asked(tmp_path, "0", num=2, sampler="rejection"))
    draw_balanced(run, asked(tmp_path, None, num=4, sampler="rejection"))
    assert {path.name for path in tmp_path.iterdir()} == {"0", "1", "notes.txt"}


@pytest.mark.parametrize("obstacle", ["file", "no folder", "budget"])
def test_an_impossible_balanced_draw_leaves_the_earlier_one(root, tmp_path, monkeypatch, obstacle):
    run = load_run(root)
    draw_balanced(run, asked(tmp_path, "1", num=6, sampler="rejection"))
    if obstacle == "file":
        (tmp_path / "1" / "00009.png").write_text("my own")
    elif obstacle == "no folder":
        shutil.rmtree(tmp_path / "1")
        (tmp_path / "1").write_text("my own")
    else:  # enough for the larger cluster alone
        low, high = sorted(run.clustering.shares)
        monkeypatch.setitem(run.config["sample"], "max_draws", int(3.5 / (low + high) / high))
        monkeypatch.setattr(acceptance, "wilson_interval", lambda part, num: (0.0, part / num))
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"00009.png|is a file|max_draws"):
        draw_balanced(run, asked(tmp_path, None, num=6, sampler="rejection"))
    assert contents(tmp_path) == before


def test_a_draw_whose_images_fail_leaves_the_earlier_one(root, tmp_path, monkeypatch):
    run = load_run(root)
    draw_balanced(run, asked(tmp_path, None, num=6, sampler="rejection"))
    before = contents(tmp_path)

    def failing(z):
        raise UserError("images returned NaN")

    monkeypatch.setattr(run.generator, "image_blocks", failing)
    with pytest.raises(UserError, match="NaN"):
        draw_balanced(run, asked(tmp_path, None, num=6, sampler="rejection"))
    assert contents(tmp_path) == before


def test_a_draw_that_fails_halfway_leaves_the_earlier_one(root, tmp_path, monkeypatch):
    run = load_run(root)
    draw_balanced(run, asked(tmp_path, None, num=6, sampler="rejection"))
    before = contents(tmp_path)
    drawing = run.drawing

    def failing(key, region, *args, **options):
        if region.cluster == 1:
            raise UserError("too rare")
        return drawing(key, region, *args, **options)

    monkeypatch.setattr(run, "drawing", failing)
    with pytest.raises(UserError, match="too rare"):
        draw_balanced(run, asked(tmp_path, None, num=4, sampler="rejection"))
    assert contents(tmp_path) == before


def test_a_long_draw_logs_its_progress(root, tmp_path, monkeypatch, caplog):
    run = load_run(root)
    monkeypatch.setattr(draw, "Progress", functools.partial(Progress, every_s=0.0))
    with caplog.at_level("INFO", "absl"):
        draw_region(run, asked(tmp_path, "0", num=400, sampler="rejection"))
    lines = [record.getMessage() for record in caplog.records]
    for what in ("draw", "images"):
        pattern = what + r" \d+/400, .*/s, \d+ s left"
        assert any(re.fullmatch(pattern, line) for line in lines), lines


def asked(out, cluster=None, *, num=8, sampler=None, margin="0"):
    return Request(cluster, margin, num, sampler, verify=True, seed=0, out=out)


def train(root, cluster, **options):
    pipeline = Pipeline(load_run(root), Interrupts())
    try:
        fit_query(pipeline, asked(root, cluster, **options))
    finally:
        pipeline.metrics.close()
    return load_run(root)


@pytest.mark.parametrize(
    ("name", "queries"),
    [
        (None, ("0", "1")),
        ("layer2-k2", ("layer2=0", "layer2=1")),
        ("layer2", ("layer2=0", "layer2=1")),
        ("1", ("1/0", "1/1", "1/2")),
    ],
)
def test_balanced_draws_the_same_number_from_every_cluster(name, queries, root, tmp_path, capsys):
    run = load_run(root)
    draw_balanced(run, asked(tmp_path, name, num=7, sampler="rejection"))
    for c, query in enumerate(queries):
        latents = np.load(tmp_path / str(c) / "latents.npy")
        assert len(latents) == 7 // len(queries) + (c < 7 % len(queries))
        assert run.are_inside(latents, run.region(query)).all()
        assert len(list((tmp_path / str(c)).glob("*.png"))) == len(latents)
    assert capsys.readouterr().out.count("expected acceptance") == len(queries)


@pytest.mark.parametrize(
    ("name", "num", "message"),
    [
        (None, 1, "--num=1 --balanced: expected at least one image for each of 2 clusters"),
        (
            "layer9",
            8,
            "it has: layer1-k2, layer2-k2; try --cluster=layer1-k2",
        ),
    ],
)
def test_an_impossible_balance_is_reported_in_one_line(name, num, message, root, tmp_path):
    with pytest.raises(UserError, match=message):
        draw_balanced(load_run(root), asked(tmp_path, name, num=num))
    assert not list(tmp_path.iterdir())


QUERY = "layer2=0 & 0"


def test_a_sampler_of_a_query_proposes_it_and_is_kept(root, tmp_path, capsys):
    region = load_run(root).region(QUERY)
    run = train(root, QUERY)
    assert run.samplers.name_for(region) == "flow"
    assert run.samplers.source(region, "flow").among.fingerprint == region.fingerprint
    # Another order is the same query; another query is not.
    assert run.samplers.fit_of("flow", run.region("0 & layer2=0")).last_step is not None
    assert run.samplers.fit_of("flow", run.region("layer2=0 | 0")).last_step is None
    draw_region(run, asked(tmp_path, QUERY, margin="0.5"))
    assert run.are_inside(np.load(tmp_path / "latents.npy"), run.region(QUERY, 0.5)).all()
    assert "flow: expected acceptance 100%" in capsys.readouterr().out


def test_a_sampler_of_a_query_learns_members_of_it_sorted_by_depth(root, monkeypatch):
    query = "layer2=1 | 0"
    seen = []
    run = load_run(root)
    kind = type(run.samplers.make("flow"))
    epoch = kind.epoch
    monkeypatch.setattr(kind, "epoch", lambda *args: seen.append(args[2]) or epoch(*args))
    train(root, query)
    members = seen[0]
    region = run.region(query)
    assert members.is_ordered
    assert members.latents.shape[:2] == (1, 2000)
    z = np.asarray(members.latents[0])
    assert run.are_inside(z, region).all()
    assert len(np.unique(z, axis=0)) == len(z)

    def depth(rows):
        return region.depth(lambda layer: run.generator.at_layer(layer).features(rows))

    # The program that the depths were saved by: another one rounds otherwise.
    depths = in_batches(depth, z, run.generator.batch)
    assert (np.diff(depths) >= -1e-6).all()
    saved = run.samplers.fit_of("flow", region).last_step.metadata["depths"]
    np.testing.assert_allclose(saved, np.quantile(depths, np.linspace(0, 1, 101)), atol=1e-6)


def test_a_stopped_training_resumes_to_the_same_sampler(root, tmp_path, monkeypatch):
    query, copy = "layer2=1 | 1", tmp_path / "run"
    shutil.copytree(root, copy)
    region = load_run(root).region(query)
    assert load_run(root).samplers.fit_of("flow", region).sampler.num_epochs == 3
    pipeline = Pipeline(load_run(copy), Interrupts())
    kind = type(pipeline.run.samplers.make("flow"))
    epoch = kind.epoch

    def stopping(*args):
        pipeline.interrupts.requested = True
        return epoch(*args)

    monkeypatch.setattr(kind, "epoch", stopping)
    with pytest.raises(Interrupted):
        fit_query(pipeline, asked(copy, query))
    monkeypatch.undo()
    pipeline.metrics.close()
    stopped = load_run(copy).samplers.fit_of("flow", region)
    assert stopped.last_step is None
    assert [step.number for step in stopped.saved.steps()] == [1]
    states = [train(folder, query).samplers.fitted("flow", region).state for folder in (root, copy)]
    for whole, resumed in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_array_equal(np.asarray(whole), np.asarray(resumed))


def test_samplers_of_two_clusterings_have_different_labels(root):
    run = load_run(root)
    labels = [run.samplers.fit_of("flow", run.region(c)).label for c in ("layer2=0", "1/0", "0")]
    assert labels == ["flow in layer2-k2=0", "flow in 1/0", "flow in 0"]


def test_a_trained_sampler_is_not_retrained(root, monkeypatch):
    train(root, QUERY)
    monkeypatch.setattr(Pipeline, "fit_in", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(root, QUERY)
    monkeypatch.undo()
    sampler = type(load_run(root).samplers.make("flow"))
    monkeypatch.setattr(sampler, "epoch", lambda *args: 1 / 0)
    train(root, QUERY)


def test_a_sampler_of_a_query_is_stale_with_other_settings(root, tmp_path):
    run = train(root, QUERY)
    region = run.region(QUERY)
    text = (root / "config.json").read_text()
    saved = json.loads(text)
    saved["config"]["samplers"]["flow"]["learning_rate"] = 0.001
    (root / "config.json").write_text(json.dumps(saved))
    try:
        assert load_run(root).samplers.fit_of("flow", region).last_step is None
    finally:
        (root / "config.json").write_text(text)


@pytest.mark.parametrize(
    ("cluster", "sampler", "message"),
    [
        ("0", None, "--cluster=0: the run's samplers are trained on this cluster already"),
        (None, None, "--cluster=0: the run's samplers are trained on this cluster already"),
        (QUERY, "rejection", "--sampler=rejection: it is not trained; expected one of flow"),
        (
            QUERY,
            "imle",
            "--sampler=imle was not fitted in .*; to fit it too, add "
            "--config.samplers.imle.fit=true --allow_config_change to the command that made",
        ),
        (QUERY, "magic", "--sampler=magic was not fitted in .*; expected one of [a-z, ]+$"),
        ("0 & 1", None, "--cluster=0 & 1 matches nothing"),
    ],
)
def test_an_impossible_sampler_of_a_query_is_reported_in_one_line(cluster, sampler, message, root):
    with pytest.raises(UserError, match=message):
        train(root, cluster, sampler=sampler)


def test_without_a_sampler_of_the_query_the_message_says_how_to_train_one(root):
    run = load_run(root)
    with pytest.raises(UserError, match="or train it on this query with --fit_query"):
        run.sample(jax.random.key(0), "layer2=0 | 0", 4, sampler="flow")
