"""The command line end to end, on the generator with a planted attribute."""

import csv
import json
import shutil
import signal
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import cgjax as library
from cgjax.clustering import assign
from cgjax.errors import UserError
from cgjax.numerics.intervals import wilson_interval
from cgjax.regions.acceptance import expected_acceptance
from cgjax.regions.clustering import Clustering
from cgjax.regions.compound import Complement, Intersection, Union
from cgjax.regions.region import ClusterRegion, MarginRange
from cgjax.testing.planted import true_side
from tests.e2e.command import cgjax, errors, start, untrained
from tests.evaluation.test_lpips import random_tensors

CONFIG = "--config=configs/tiny.py:quick"
IMAGES = "samples/rejection/1"
STAGES = ("encode", "cluster", "fit", "sample", "evaluate", "report")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("finished") / "run"
    done = cgjax(CONFIG, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    return workdir


def bytes_of(workdir: Path) -> dict[str, bytes]:
    """Return what must not depend on interruptions: clusters, samples, pictures."""
    paths = [workdir / "clusters.npz", *sorted((workdir / "samples").rglob("*.*"))]
    paths += sorted((workdir / "figures").glob("*.png"))
    return {str(p.relative_to(workdir)): p.read_bytes() for p in paths}


def test_the_run_folder_holds_what_the_contract_says(finished):
    for name in (
        "config.json",
        "clusters.npz",
        "clusters.json",
        "metrics.jsonl",
        "summary.json",
        "figures/clusters.png",
        "figures/means.png",
        "figures/pca.png",
        "report/index.html",
        "samples/imle/0/00000.png",
        "samples/rejection/1/latents.npy",
        "checkpoints/imle",
    ):
        assert (finished / name).exists(), name
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["layer"] == "layer1"
    assert summary["num_clusters"] == 2
    assert set(STAGES) <= summary["stages"].keys()
    for numbers in summary["samplers"].values():
        for field in ("membership", "acceptance", "norm_ratio", "frechet", "frechet_floor"):
            assert len(numbers[field]) == 2
    with np.load(finished / "clusters.npz") as arrays:
        assert set(arrays) == {"centroids", "labels", "margins", "shares", "latents"}
    with Image.open(finished / "samples/imle/0/00000.png") as image:
        assert image.size == (16, 16)
    for line in (finished / "metrics.jsonl").read_text().splitlines():
        json.loads(line)


def test_the_clusters_are_the_planted_attribute(finished):
    with np.load(finished / "clusters.npz") as arrays:
        side = np.asarray(true_side(arrays["latents"]))
        agreement = np.mean(side == arrays["labels"])
    # Sides are swapped at most by the thin bridge between the two modes.
    assert max(agreement, 1 - agreement) > 0.97


def test_verified_samples_are_members_and_rejection_always_verifies(finished):
    run = library.load_run(finished)
    key = jax.random.key(5)
    for name in ("imle", "rejection"):
        for verify in (True, False):
            samples = run.sample(key, 1, 30, name, verify=verify)
            inside = run.are_inside(samples.latents, run.regions[1])
            assert inside.all() or (name == "imle" and not verify)
            assert (samples.acceptance is None) == (name == "imle" and not verify)


def test_margin_keeps_the_clear_part_of_the_cluster(finished):
    run = library.load_run(finished)
    samples = run.sample(jax.random.key(5), 0, 40, "rejection", margin=0.5)
    assert run.are_inside(samples.latents, run.region(0, 0.5)).all()
    # Half of a half of the prior is left, with room for three standard deviations.
    assert 0.1 < samples.acceptance < 0.45
    between = run.sample(jax.random.key(5), 0, 40, "rejection", margin=(0.5, 0.8))
    part = ClusterRegion(run.clustering, 0, MarginRange(0.5, 0.8))
    assert run.are_inside(between.latents, part).all()
    assert not run.are_inside(samples.latents, part).all()
    assert between.acceptance < samples.acceptance
    with pytest.raises(UserError, match="--margin"):
        run.sample(jax.random.key(5), 0, 4, "imle", verify=False, margin=0.5)


@pytest.fixture(scope="module")
def heights(finished) -> Clustering:
    """Two clusters at another layer: discs in the upper and in the lower half of the image."""
    run = library.load_run(finished)
    z = run.latents
    features = np.asarray(run.generator.at_layer("layer2").all_features(z)).reshape(len(z), -1)
    centroids = np.stack([features[z[:, 1] < 0].mean(axis=0), features[z[:, 1] >= 0].mean(axis=0)])
    labels, margins = map(np.asarray, assign(features, centroids))
    shares = np.bincount(labels, minlength=2) / len(z)
    return Clustering("layer2", centroids, labels, margins, shares)


def test_a_query_of_two_layers_is_drawn_by_rejection_and_by_the_sampler_of_its_cluster(
    finished, heights
):
    run = library.load_run(finished)
    region = Intersection((run.regions[1], ClusterRegion(heights, 0)))
    clustered = run.are_inside(run.latents, region)
    np.testing.assert_array_equal(clustered, region.members())
    expected = expected_acceptance(region)
    for sampler in ("rejection", "imle"):
        latents, draw = run.draw(jax.random.key(7), region, 40, sampler=sampler)
        assert run.are_inside(latents, region).all()
        if sampler == "rejection":
            seen = wilson_interval(draw.accepted, draw.proposed)
            assert seen.low <= expected.high
            assert expected.low <= seen.high


def test_a_sampler_draws_only_what_one_cluster_of_its_own_clustering_holds(finished, heights):
    run = library.load_run(finished)
    key = jax.random.key(7)
    above = ClusterRegion(heights, 0)
    for region in (above, Complement(run.regions[0]), Union((run.regions[0], above))):
        with pytest.raises(
            UserError, match=r"^--sampler=imle .* use --sampler=rejection, or train it"
        ):
            run.sample_region(key, region, 4, "imle")
        samples = run.sample_region(key, region, 4, "rejection", verify=False)
        assert run.are_inside(samples.latents, region).all()
    both = Intersection((run.regions[0], above))
    with pytest.raises(UserError, match=r"queries need the membership check"):
        run.sample_region(key, both, 4, "imle", verify=False)


def test_sampling_from_the_checkpoint_gives_the_same_bytes_for_the_same_seed(finished, tmp_path):
    for out in ("a", "b"):
        done = cgjax(
            "--mode=sample",
            f"--workdir={finished}",
            "--cluster=1",
            "--num=6",
            f"--out={tmp_path / out}",
            "--seed=3",
        )
        assert done.returncode == 0, done.stderr
        assert "6 images" in done.stdout
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    assert len(list((tmp_path / "a").glob("*.png"))) == 6


def test_a_name_given_by_a_person_can_be_sampled(finished, tmp_path):
    path = finished / "clusters.json"
    before = path.read_text()
    entries = json.loads(before)
    entries[1]["name"] = "disc on one side"
    path.write_text(json.dumps(entries))
    run = library.load_run(finished)
    named = run.sample(jax.random.key(0), "disc on one side", 3)
    np.testing.assert_array_equal(named.latents, run.sample(jax.random.key(0), 1, 3).latents)
    path.write_text(before)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--mode=sample", "--cluster=7", "--out=x"], "no cluster '7' in this run"),
        (
            ["--mode=sample", "--cluster=0 & & 1", "--out=x"],
            "--cluster=0 & & 1: expected a cluster at character 5 ('& 1')",
        ),
        (
            ["--mode=sample", "--cluster=layer2=0", "--out=x"],
            "no clustering 'layer2' in this run; it has: layer1-k2",
        ),
        (
            ["--mode=sample", "--cluster=0", "--out=x", "--num=100000000"],
            "; the budget is --config.sample.max_draws=",
        ),
        (["--mode=sample", "--cluster=0 & 1", "--out=x"], "--cluster=0 & 1 matches nothing"),
        (["--mode=sample", "--sampler=magic", "--out=x"], "--sampler=magic"),
        (["--mode=sample", "--num=0", "--out=x"], "--num=0"),
        (["--mode=sample", "--margin=2", "--out=x"], "--margin=2"),
        (["--mode=sample", "--margin=0.8:0.6", "--out=x"], "--margin=0.8:0.6"),
        (["--mode=sample"], "--out is missing"),
        (["--mode=dance"], "mode"),
        (["--no_such_flag"], "no_such_flag"),
        ([CONFIG, "--config.layer=layer9", "--workdir=runs/none"], "layer='layer9' is not"),
        ([CONFIG, "--config.cluster.num_clusters=0"], "--config.cluster.num_clusters=0"),
        ([CONFIG, "--config.cluster.num_cluster=3"], "num_cluster"),
        ([CONFIG, "--config.latents.num=many"], "many"),
        ([CONFIG, "--config.seed=1"], "seed: 0 -> 1"),
        (["--config=configs/nothing.py"], "nothing.py"),
        (["--config=configs/tiny.py:fast"], "config variant 'fast'"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_2(finished, args, expected):
    done = cgjax(f"--workdir={finished}", *args)
    assert done.returncode == 2, done.stderr
    message = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(message) == 1
    assert expected in message[0]
    assert "Traceback" not in done.stderr
    assert not Path("runs/none").exists()


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    done = cgjax(CONFIG, f"--workdir={tmp_path}")
    assert done.returncode == 2
    assert "not a cgjax run folder" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.slow
def test_killed_in_every_stage_it_resumes_to_the_same_bytes(finished, tmp_path):
    workdir = tmp_path / "run"
    for stage in STAGES[:-1]:
        with start(CONFIG, f"--workdir={workdir}") as process:
            for line in process.stderr:
                if f"{stage}: started" in line:
                    process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    done = cgjax(CONFIG, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    assert bytes_of(workdir) == bytes_of(finished)


@pytest.mark.slow
def test_interrupted_while_training_it_saves_exits_130_and_resumes_to_the_same_bytes(
    finished, tmp_path
):
    workdir = untrained(finished, tmp_path / "run")
    metrics = workdir / "metrics.jsonl"
    with start(CONFIG, f"--workdir={workdir}") as process:
        while process.poll() is None:
            if metrics.is_file() and '"epoch": ' in metrics.read_text():
                break
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert process.returncode == 130
    assert list((workdir / "checkpoints").glob("*/*.json"))
    done = cgjax(CONFIG, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    assert "resuming at epoch" in done.stderr
    assert bytes_of(workdir) == bytes_of(finished)


def test_a_damaged_checkpoint_is_never_sampled_from(finished, tmp_path):
    steps = sorted(
        (finished / "checkpoints" / "imle").glob("[0-9]*.json"), key=lambda p: int(p.stem)
    )
    folder = steps[-1].with_suffix("")
    victim = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = victim.read_bytes()
    victim.write_bytes(content[:-7])
    try:
        done = cgjax("--mode=sample", f"--workdir={finished}", f"--out={tmp_path / 'o'}")
        assert done.returncode == 2
        assert victim.name in done.stderr
        assert not (tmp_path / "o").exists()
    finally:
        victim.write_bytes(content)


def test_an_allowed_change_redoes_what_depends_on_it_and_nothing_else(finished, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    done = cgjax(CONFIG, f"--workdir={workdir}", "--config.sample.num=3", "--allow_config_change")
    assert done.returncode == 0, done.stderr
    assert "fit: started" not in done.stderr
    assert "sample: started" in done.stderr
    assert len(list((workdir / "samples/imle/0").glob("*.png"))) == 3


@pytest.fixture(scope="module")
def assigned(finished, tmp_path_factory) -> tuple[Path, str]:
    """A copy of the run with images assigned, and what the command printed."""
    workdir, images = tmp_path_factory.mktemp("assigned") / "run", f"{finished}/{IMAGES}"
    shutil.copytree(finished, workdir)
    done = cgjax("--mode=assign", f"--workdir={workdir}", f"--images={images}")
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout


def test_user_images_are_assigned_and_an_empty_folder_is_one_line(assigned, tmp_path):
    workdir, printed = assigned
    assert "held-out images of the generator's own" in printed
    with open(workdir / "assign" / "1" / "assign.csv", newline="") as file:
        found = [row["cluster"] for row in csv.DictReader(file)]
    assert len(found) == 4
    assert found.count("1") >= 3
    done = cgjax("--mode=assign", f"--workdir={workdir}", f"--images={tmp_path}")
    assert done.returncode == 2
    (error,) = errors(done.stderr)
    assert "no images in this folder" in error


@pytest.mark.torch
def test_lpips_from_the_published_files_to_the_table(finished, assigned, tmp_path):
    import torch

    workdir = tmp_path / "run"
    shutil.copytree(assigned[0], workdir)  # so that the encoder is trained already
    images = finished / IMAGES
    tensors = {name: torch.tensor(value) for name, value in random_tensors("vgg").items()}
    heads = {name: tensors.pop(name) for name in list(tensors) if name.startswith("lin")}
    torch.save(tensors, tmp_path / "trunk.pth")
    torch.save(heads, tmp_path / "heads.pth")
    weights = tmp_path / "vgg.safetensors"
    files = (f"--src={tmp_path}/trunk.pth", f"--heads={tmp_path}/heads.pth", f"--dst={weights}")
    done = cgjax("lpips", *files, module="converters")
    assert done.returncode == 0, done.stderr
    command = ("--mode=assign", f"--workdir={workdir}", f"--images={images}", CONFIG)
    command += (f"--config.assign.lpips={weights}", "--allow_config_change")
    done = cgjax(*command)
    assert done.returncode == 0, done.stderr
    assert "LPIPS (vgg): mean " in done.stdout
    with open(workdir / "assign" / "1" / "assign.csv", newline="") as file:
        assert all(float(row["lpips"]) >= 0 for row in csv.DictReader(file))
    weights.write_bytes(b"nothing")
    done = cgjax(*command)
    assert done.returncode == 2
    (error,) = errors(done.stderr)
    assert f"--config.assign.lpips={weights}: not a safetensors file" in error
