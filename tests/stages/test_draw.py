"""Drawing on demand: one region or the same number from every cluster, and its files."""

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

from cgjax.errors import UserError
from cgjax.generators.registry import load_generator
from cgjax.regions import acceptance
from cgjax.run import sample_files
from cgjax.run.opening import load_run
from cgjax.runtime.log import Progress
from cgjax.runtime.signals import on_interrupt
from cgjax.stages import draw
from cgjax.stages.draw import Request, draw_balanced, draw_region
from tests.killing import Killed, killing
from tests.stages.tiny_runs import bytes_of


def asked(out, cluster=None, *, num=8, sampler=None, margin="0"):
    return Request(cluster, margin, num, sampler, verify=True, seed=0, out=out)


def test_no_latents_give_no_images_and_no_members(layered):
    run = load_run(layered)
    none = run.latents[:0]
    assert run.are_inside(none, run.regions[0]).tolist() == []
    size = run.generator.gen.image_size
    assert run.generator.images(none).shape == (0, size, size, 3)


def test_a_run_opened_by_a_relative_path_is_read_from_any_current_folder(
    layered, monkeypatch, tmp_path
):
    monkeypatch.chdir(layered.parent)
    run = load_run(layered.name)
    monkeypatch.chdir(tmp_path)
    assert run.sample(jax.random.key(0), 0, 2, sampler="rejection").latents.shape[0] == 2


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("num", [0, -1, 2.0, True])
@pytest.mark.parametrize("verify", [True, False])
def test_a_number_of_draws_below_one_is_refused(layered, num, verify):
    run = load_run(layered)
    for drawn in (run.draw, run.sample_region):
        with pytest.raises(UserError, match=f"num={num}: expected a whole number of at least 1"):
            drawn(jax.random.key(0), run.regions[0], num, sampler="rejection", verify=verify)


@pytest.mark.usefixtures("untyped")
def test_invalid_keys_regions_and_latents_are_refused(layered):
    run = load_run(layered)
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


def test_files_that_are_not_samples_are_not_overwritten(layered, tmp_path):
    run, own = load_run(layered), tmp_path / "ffhq"
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


def test_a_draw_replaces_an_earlier_one_and_nothing_else(layered, tmp_path):
    run, out = load_run(layered), tmp_path / "out"
    draw_region(run, asked(out, "0", num=5))
    (out / "notes.txt").write_text("mine")
    draw_region(run, asked(out, "0", num=2))
    assert sorted(path.name for path in out.iterdir()) == [
        *("00000.png", "00001.png", "latents.npy", "notes.txt")
    ]
    assert len(np.load(out / "latents.npy")) == 2


def test_a_draw_that_is_killed_leaves_the_earlier_one_and_the_next_draw_cleans_up(
    layered, tmp_path, monkeypatch
):
    run = load_run(layered)
    draw_region(run, asked(tmp_path, "0", num=5))
    before = bytes_of(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(sample_files, "to_png", killing(sample_files.to_png, 3))
        patched.setattr(shutil, "rmtree", lambda *args, **options: None)  # nor does SIGKILL
        with pytest.raises(Killed):
            draw_region(run, asked(tmp_path, "1", num=5))
    left = bytes_of(tmp_path)
    assert before.items() <= left.items()
    assert len(left) == len(before) + 2
    draw_region(run, asked(tmp_path, "1", num=4))
    assert len(bytes_of(tmp_path)) == len(list(tmp_path.iterdir())) == 5


def test_two_draws_into_one_folder_do_not_mix(layered, tmp_path):
    run, first = load_run(layered), asked(tmp_path, "0", num=3)
    with sample_files.draft(tmp_path, "--out"):
        with pytest.raises(UserError, match="is being written by another command"):
            draw_region(run, first)
        assert [p.name for p in tmp_path.iterdir()] == [".lock"]
    draw_region(run, first)


def test_a_draw_that_is_killed_while_it_replaces_another_leaves_no_latents(
    layered, tmp_path, monkeypatch
):
    run = load_run(layered)
    draw_region(run, asked(tmp_path, "0", num=5))
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", killing(os.replace, 6 + 3))
        with pytest.raises(Killed):
            draw_region(run, asked(tmp_path, "1", num=5))
    assert not (tmp_path / "latents.npy").exists()
    draw_region(run, asked(tmp_path, "1", num=4))
    assert len(list(tmp_path.glob("*.png"))) == len(np.load(tmp_path / "latents.npy")) == 4


def test_an_interrupted_draw_leaves_the_earlier_one_or_has_replaced_it(
    layered, tmp_path, monkeypatch
):
    run = load_run(layered)
    draw_balanced(run, asked(tmp_path, None, num=6, sampler="rejection"))
    before = bytes_of(tmp_path)

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
    assert bytes_of(tmp_path) == before
    with monkeypatch.context() as patched:
        patched.setattr(draw, "move_samples", interrupted(draw.move_samples, 2))
        draw_balanced(run, asked(tmp_path, None, num=4, sampler="rejection"))
    assert len(bytes_of(tmp_path)) == 6


def test_few_images_of_a_draw_are_held(layered, tmp_path, monkeypatch):
    run = load_run(layered, resources={"generator": {"batch": 8}})
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


def test_a_balanced_draw_of_fewer_clusters_removes_the_samples_of_the_others(layered, tmp_path):
    run = load_run(layered)
    draw_balanced(run, asked(tmp_path, "1", num=6, sampler="rejection"))
    assert list((tmp_path / "2").iterdir())
    draw_balanced(run, asked(tmp_path, None, num=6, sampler="rejection"))
    assert not list((tmp_path / "2").iterdir())


def test_a_run_is_opened_with_other_resources_and_with_no_other_setting(layered):
    given = {"sample": {"max_draws": 7}, "generator": {"batch": 3}, "seed": 99}
    run = load_run(layered, resources=given)
    assert (run.config["sample"]["max_draws"], run.generator.batch) == (7, 3)
    assert run.config["seed"] == load_run(layered).config["seed"] != 99
    with pytest.raises(UserError, match=r"--config.sample.max_draws=7"):
        draw_region(run, asked(layered / "unused", "0", num=100, sampler="rejection"))
    with pytest.raises(UserError, match=r"--config.sample.max_draws=many: expected"):
        load_run(layered, resources={"sample": {"max_draws": "many"}})


def test_a_balanced_draw_replaces_the_samples_of_one_region_in_the_same_folder(layered, tmp_path):
    run = load_run(layered)
    (tmp_path / "notes.txt").write_text("my own")
    draw_region(run, asked(tmp_path, "0", num=2, sampler="rejection"))
    draw_balanced(run, asked(tmp_path, None, num=4, sampler="rejection"))
    assert {path.name for path in tmp_path.iterdir()} == {"0", "1", "notes.txt"}


@pytest.mark.parametrize("obstacle", ["file", "no folder", "budget"])
def test_an_impossible_balanced_draw_leaves_the_earlier_one(
    layered, tmp_path, monkeypatch, obstacle
):
    run = load_run(layered)
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
    before = bytes_of(tmp_path)
    with pytest.raises(UserError, match=r"00009.png|is a file|max_draws"):
        draw_balanced(run, asked(tmp_path, None, num=6, sampler="rejection"))
    assert bytes_of(tmp_path) == before


def test_a_draw_whose_images_fail_leaves_the_earlier_one(layered, tmp_path, monkeypatch):
    run = load_run(layered)
    draw_balanced(run, asked(tmp_path, None, num=6, sampler="rejection"))
    before = bytes_of(tmp_path)

    def failing(z):
        raise UserError("images returned NaN")

    monkeypatch.setattr(run.generator, "image_blocks", failing)
    with pytest.raises(UserError, match="NaN"):
        draw_balanced(run, asked(tmp_path, None, num=6, sampler="rejection"))
    assert bytes_of(tmp_path) == before


def test_a_draw_that_fails_halfway_leaves_the_earlier_one(layered, tmp_path, monkeypatch):
    run = load_run(layered)
    draw_balanced(run, asked(tmp_path, None, num=6, sampler="rejection"))
    before = bytes_of(tmp_path)
    drawing = run.drawing

    def failing(key, region, *args, **options):
        if region.cluster == 1:
            raise UserError("too rare")
        return drawing(key, region, *args, **options)

    monkeypatch.setattr(run, "drawing", failing)
    with pytest.raises(UserError, match="too rare"):
        draw_balanced(run, asked(tmp_path, None, num=4, sampler="rejection"))
    assert bytes_of(tmp_path) == before


def test_a_long_draw_logs_its_progress(layered, tmp_path, monkeypatch, caplog):
    run = load_run(layered)
    monkeypatch.setattr(draw, "Progress", functools.partial(Progress, every_s=0.0))
    with caplog.at_level("INFO", "absl"):
        draw_region(run, asked(tmp_path, "0", num=400, sampler="rejection"))
    lines = [record.getMessage() for record in caplog.records]
    for what in ("draw", "images"):
        pattern = what + r" \d+/400, .*/s, \d+ s left"
        assert any(re.fullmatch(pattern, line) for line in lines), lines


@pytest.mark.parametrize(
    ("name", "queries"),
    [
        (None, ("0", "1")),
        ("layer2-k2", ("layer2=0", "layer2=1")),
        ("layer2", ("layer2=0", "layer2=1")),
        ("1", ("1/0", "1/1", "1/2")),
    ],
)
def test_balanced_draws_the_same_number_from_every_cluster(
    name, queries, layered, tmp_path, capsys
):
    run = load_run(layered)
    draw_balanced(run, asked(tmp_path, name, num=7, sampler="rejection"))
    for c, query in enumerate(queries):
        latents = np.load(tmp_path / str(c) / "latents.npy")
        assert len(latents) == 7 // len(queries) + (c < 7 % len(queries))
        assert run.are_inside(latents, run.region(query)).all()
        assert len(list((tmp_path / str(c)).glob("*.png"))) == len(latents)
    assert capsys.readouterr().out.count("expected acceptance") == len(queries)


def test_the_clusters_inside_a_cluster_are_found_by_its_name_too(layered, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(layered, root)
    names = [{"id": 0, "name": "left"}, {"id": 1, "name": "right"}]
    (root / "clusters.json").write_text(json.dumps(names))
    held = load_run(root).held
    inside = [region.parts[-1] for region in held.clusters_of("right")]
    assert [held.cluster_flag(one.clustering, one.cluster) for one in inside] == [
        "1/0",
        "1/1",
        "1/2",
    ]
    for name in ("left", "0"):
        with pytest.raises(
            UserError, match=f"cluster {name} is not split in this run, .* splits 1"
        ):
            held.clusters_of(name)


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
def test_an_impossible_balance_is_reported_in_one_line(name, num, message, layered, tmp_path):
    with pytest.raises(UserError, match=message):
        draw_balanced(load_run(layered), asked(tmp_path, name, num=num))
    assert not list(tmp_path.iterdir())
