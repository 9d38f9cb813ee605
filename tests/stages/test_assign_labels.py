"""Assigning the user's images to the labels that a generator learnt during training."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from cgjax.config.plain import to_plain
from cgjax.errors import Interrupted, UserError
from cgjax.generators.weights import load_folder
from cgjax.run.training import open_trained, open_training
from cgjax.runtime.png import to_png
from cgjax.runtime.signals import Interrupts
from cgjax.stages.assign import assign_to_labels
from cgjax.stages.endtoend import TrainingStage, summary_text
from configs import scgan_faces
from tests.e2e.command import cgjax, errors
from tests.evaluation.test_lpips import random_tensors
from tests.stages.test_assign import interrupted_after_reading
from tests.stages.tiny_runs import bytes_of

NUM = 9
TINY = {
    **{"data.name": "folder", "data.size": 8, "data.num": 24, "network.width": 4},
    **{"train.iterations": 4, "train.batch": 8, "train.checkpoint_every": 4},
    **{"labels.num_clusters": 3, "labels.num": 24, "labels.every": 4},
    **{"score.num": 30, "score.every": 4, "score.repeats": 2},
    **{"assign.samples": 64, "assign.batch": 8, "assign.width": 4, "assign.steps": 4},
    **{"assign.held_out": 12, "assign.restarts": 1},
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos") / "mine"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(24):
        pixels = rng.integers(0, 80, (8, 8, 3), np.uint8) + np.uint8(60 * (i % 3))
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    return folder


def settings(photos, **changes):
    config = to_plain(scgan_faces.get_config("quick"))
    given = TINY | {"data.path": str(photos)} | changes
    for path, value in given.items():
        section, name = path.split(".")
        config[section][name] = value
    return config


def train(root, config, **options):
    stage = TrainingStage(open_training(root, config, **options), Interrupts())
    stage.run_all()
    stage.metrics.close()


@pytest.fixture(scope="module")
def trained(photos, tmp_path_factory):
    root = tmp_path_factory.mktemp("labels") / "run"
    train(root, settings(photos))
    return root


@pytest.fixture(scope="module")
def own(trained, tmp_path_factory):
    """Images by the generator, one label after the other."""
    folder = tmp_path_factory.mktemp("own") / "own"
    folder.mkdir()
    gen = load_folder(trained / "generator")
    for i in range(NUM):
        z = np.random.default_rng(i).standard_normal((1, gen.latent_dim)).astype(np.float32)
        image = np.asarray(gen.images(z, condition=i % 3))[0]
        (folder / f"{i}.png").write_bytes(to_png(image))
    return folder


def assign(root, images, interrupts=None):
    return assign_to_labels(open_trained(root, None), interrupts or Interrupts(), images)


@pytest.fixture(scope="module")
def told(trained, own):
    return assign(trained, own)


def test_every_image_gets_a_label_a_margin_and_an_error(told, trained):
    with open(trained / "assign" / "own" / "assign.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["file"] for row in table] == [f"{i}.png" for i in range(NUM)]
    assert {int(row["cluster"]) for row in table} <= {0, 1, 2}
    assert all(-1 <= float(row["margin"]) <= 1 for row in table)
    assert all(float(row["error"]) < 0.5 for row in table)
    latents = np.load(trained / "assign" / "own" / "latents.npy")
    np.testing.assert_array_equal(latents[:, -3:].sum(axis=1), 1)
    assert [int(row["cluster"]) for row in table] == latents[:, -3:].argmax(axis=1).tolist()
    assert "of 12 held-out images of the generator's own, " in told


def test_repeating_the_command_changes_nothing(told, trained, own):
    before = bytes_of(trained / "assign") | bytes_of(trained / "checkpoints")
    assert assign(trained, own) == told
    assert bytes_of(trained / "assign") | bytes_of(trained / "checkpoints") == before


def test_interrupted_it_resumes_to_the_same_bytes(told, trained, own, tmp_path, monkeypatch):
    root = tmp_path / "run"
    shutil.copytree(trained, root)
    for made in ("assign", "stages", "checkpoints/encoder"):
        shutil.rmtree(root / made)
    with monkeypatch.context() as patched:
        interrupts = interrupted_after_reading(patched)
        with pytest.raises(Interrupted, match="the encoder is saved at step"):
            assign(root, own, interrupts)
    assert assign(root, own).replace(str(root), "") == told.replace(str(trained), "")
    assert bytes_of(root / "assign") == bytes_of(trained / "assign")


def test_a_generator_without_labels_is_inverted_too(photos, own, tmp_path):
    root = tmp_path / "gan"
    train(root, settings(photos, **{"train.method": "gan"}))
    first, *_ = assign(root, own).splitlines()
    assert first.startswith("of 12 held-out images of the generator's own, the median of their")


def test_other_settings_of_assign_do_not_change_the_training(trained, photos, own, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(trained, root)
    weights = bytes_of(root / "generator")
    config = settings(photos, **{"assign.held_out": 14})
    with pytest.raises(UserError, match=r"assign\.held_out: 12 -> 14"):
        open_trained(root, config)
    run = open_trained(root, config, allow_change=True)
    assert "of 14 held-out images" in assign_to_labels(run, Interrupts(), own)
    assert bytes_of(root / "generator") == weights


def test_a_table_of_another_generator_is_removed(told, trained, photos, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(trained, root)
    assert (root / "assign" / "own" / "assign.csv").is_file()
    (root / "assign" / "own" / "notes.txt").write_text("mine")
    longer = settings(photos, **{"train.iterations": 6})
    open_training(root, longer, allow_change=True)
    assert (root / "summary.json").is_file()  # until there are others
    with pytest.raises(UserError, match=r"is not trained to its end \(6 iterations\)"):
        assign(root, photos)
    train(root, longer)
    left = [path.name for path in (root / "assign").rglob("*") if path.is_file()]
    assert left == ["notes.txt"]
    assert json.loads((root / "summary.json").read_text())["iterations"] == 6


def test_a_table_stays_when_only_the_scores_change(told, trained, photos, own, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(trained, root)
    before = bytes_of(root / "assign") | bytes_of(root / "generator")
    train(root, settings(photos, **{"score.repeats": 3}), allow_change=True)
    assert bytes_of(root / "assign") | bytes_of(root / "generator") == before
    assert assign(root, own).replace(str(root), "") == told.replace(str(trained), "")


def test_the_summary_says_how_many_images_are_compared(trained):
    summary = json.loads((trained / "summary.json").read_text())
    assert summary["num_points"] == 12  # half of them
    assert "4 iterations, 1 trial, 12 images\n" in summary_text(summary)


def test_assigning_leaves_the_training_unchanged_and_needs_none_of_its_images(
    trained, photos, tmp_path
):
    root, gone = tmp_path / "run", tmp_path / "photos"
    shutil.copytree(photos, gone)
    train(root, settings(gone))
    before = bytes_of(root)
    longer = settings(gone, **{"train.iterations": 8, "assign.held_out": 14})
    with pytest.raises(UserError, match=r"a different config .*4 -> 8.*leave out these flags"):
        open_trained(root, longer, allow_change=True)
    assert bytes_of(root) == before
    shutil.rmtree(gone)
    assert "held-out images" in assign(root, photos)


def test_a_replaced_generator_is_refused(trained, photos, tmp_path):
    root, other = tmp_path / "run", tmp_path / "other"
    shutil.copytree(trained, root)
    train(other, settings(photos, **{"train.learning_rate": 1e-3}))
    shutil.rmtree(root / "generator")
    shutil.copytree(other / "generator", root / "generator")
    with pytest.raises(UserError, match=r"is not the generator that this .*; .* writes it again"):
        assign(root, photos)
    train(root, settings(photos))
    assert bytes_of(root / "generator") == bytes_of(trained / "generator")


@pytest.mark.parametrize(
    "changes",
    [{"train.method": "mgan", "mgan.per_generator": 3}, {"network.name": "residual"}],
    ids=["mgan", "residual"],
)
def test_images_are_assigned_to_labels_of_every_kind_of_network(changes, photos, own, tmp_path):
    root = tmp_path / "run"
    train(root, settings(photos, **changes))
    assign(root, own)
    with (root / "assign/own/assign.csv").open() as lines:
        found = [int(row["cluster"]) for row in csv.DictReader(lines)]
    assert len(found) == NUM
    assert set(found) <= {0, 1, 2}


def test_a_training_that_is_not_of_images_is_refused(whole, photos, tmp_path):
    root = shutil.copytree(whole[0], tmp_path / "ring")
    with pytest.raises(UserError, match=r"has no generator/: images can only be assigned to"):
        assign(root, photos)


def test_the_command_prints_the_table_and_other_modes_are_refused(told, trained, own):
    done = cgjax("--mode=assign", f"--workdir={trained}", f"--images={own}")
    assert done.returncode == 0, done.stderr
    assert "held-out images of the generator's own" in done.stdout
    refused = cgjax("--mode=sweep", f"--workdir={trained}")
    assert refused.returncode == 2
    assert "is for runs that cluster a generator" in errors(refused.stderr)[0]


def test_reconstructions_are_measured_by_lpips_too(photos, tmp_path):
    root, weights = tmp_path / "run", tmp_path / "vgg.safetensors"
    train(root, settings(photos, **{"data.size": 16}))
    given = settings(photos, **{"data.size": 16, "assign.lpips": str(weights)})

    def assign_some():
        some = open_trained(root, given, allow_change=True)
        return assign_to_labels(some, Interrupts(), photos)

    with pytest.raises(UserError, match=r"--config.assign.lpips=.*vgg.safetensors: no file"):
        assign_some()
    assert not (root / "assign").exists()
    save_file(random_tensors("vgg"), weights)
    assert "\nLPIPS (vgg): mean " in assign_some()
    with open(root / "assign" / "mine" / "assign.csv", newline="") as file:
        assert all(float(row["lpips"]) > 0 for row in csv.DictReader(file))
