"""A training run from its config to its folder: what it leaves, resuming, and what it refuses."""

import copy
import inspect
import json
import re
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from cgjax.config import schema, training
from cgjax.config.plain import digest, flatten, to_plain
from cgjax.endtoend.data import DATA
from cgjax.endtoend.data.digits import Digits8
from cgjax.endtoend.data.folder import _files, _read
from cgjax.endtoend.data.generated import GeneratedImages
from cgjax.endtoend.experiment import Experiment
from cgjax.endtoend.methods import METHODS
from cgjax.endtoend.networks import NETWORKS
from cgjax.errors import Interrupted, UserError
from cgjax.generators.registry import load_generator
from cgjax.run import training as training_folder
from cgjax.run.folder import RunFolder, read_config, save_config, saved_kind
from cgjax.run.training import open_training
from cgjax.runtime.signals import Interrupts
from cgjax.stages.endtoend import TrainingStage, summary_text
from configs import (
    clustergan_digits,
    clustergan_faces,
    common,
    scgan_cifar10,
    scgan_common,
    scgan_faces,
    scgan_grid,
    scgan_imagenet,
    scgan_ring,
    scgan_stacked_digits,
)
from tests.e2e.command import cgjax, errors
from tests.killing import Killed

TINY = {
    "data.num": 60,
    "network.width": 6,
    "network.critic_width": 4,
    "train.iterations": 12,
    "train.batch": 10,
    "train.report_every": 3,
    "train.checkpoint_every": 3,
    "labels.num_clusters": 4,
    "labels.every": 6,
    "labels.num": 40,
    "labels.num_init": 1,
    "score.num": 30,
    "score.every": 12,
    "score.repeats": 2,
}
RESULTS = ("samples.npz", "figures/samples.png")


def settings(**changes):
    """The tiny config; a double underscore stands for the dot of a path."""
    config = to_plain(scgan_ring.get_config())
    for path, value in (TINY | {k.replace("__", "."): v for k, v in changes.items()}).items():
        section, name = path.split(".")
        config[section][name] = value
    return config


def train(root, config, interrupts=None, **options):
    run = open_training(root, config, **options)
    return TrainingStage(run, interrupts or Interrupts()).run_all()


def lines_of(root, stage):
    lines = map(json.loads, (root / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["stage"] == stage]


class StopAt(Interrupts):
    """Asks to stop at the given look."""

    def __init__(self, looks):
        super().__init__()
        self.left = looks

    def agreed(self):
        self.left -= 1
        return self.left <= 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of an uninterrupted run, and its summary."""
    root = tmp_path_factory.mktemp("whole") / "run"
    return root, train(root, settings())


def test_a_run_leaves_samples_a_figure_metrics_and_scores_beside_a_perfect_samplers(whole):
    root, summary = whole
    with np.load(root / "samples.npz") as arrays:
        assert arrays["points"].shape == (1, 30, 2)
        assert arrays["labels"].shape == (1, 30)
        assert set(arrays["labels"].ravel()) <= set(range(4))
    with Image.open(root / "figures/samples.png") as image:
        assert image.size[0] > 500
    assert json.loads((root / "summary.json").read_text()) == summary
    assert summary["scores"]["modes"]["perfect"]["low"] <= 8
    best = summary["scores"]["high_quality_box"]["perfect"]
    assert 0.9 < best["low"] <= best["mean"] <= best["high"] <= 1
    assert 0 <= summary["agreement"]["nmi_arithmetic"]["mean"] <= 1
    assert [line["iteration"] for line in lines_of(root, "train")] == [3, 6, 9, 12]
    (score,) = lines_of(root, "score")
    assert score["modes"] == summary["scores"]["modes"]["mean"]
    assert "perfect sampler" in summary_text(summary)


def test_digits_are_clustered_by_clustergan_beside_k_means_and_drawn_label_by_label(tmp_path):
    config = to_plain(clustergan_digits.get_config("quick"))
    config["train"] |= {"iterations": 6, "report_every": 3, "checkpoint_every": 3, "batch": 20}
    config["labels"]["num_init"] = 1
    config["score"] |= {"num": 60, "every": 6, "repeats": 2}
    schema.validate(config)
    with pytest.raises(Interrupted):
        train(tmp_path / "cut", config, StopAt(1))
    summary = train(tmp_path / "run", config)
    again = train(tmp_path / "cut", config)
    assert again | {"seconds": 0} == summary | {"seconds": 0}
    assert summary["scores"] == {}
    accuracy = summary["agreement"]["accuracy"]
    assert 0.1 <= accuracy["mean"] < 0.6 < accuracy["kmeans_on_rows"] < 0.9
    with np.load(tmp_path / "run" / "samples.npz") as arrays:
        assert arrays["points"].shape == (1, 60, 64)
        assert set(arrays["labels"].ravel()) <= set(range(10))
    with Image.open(tmp_path / "run" / "figures/samples.png") as image:
        assert image.size[1] > 11 * 48
    assert "k-means on the rows" in summary_text(summary)
    assert "ClusterGAN" in (tmp_path / "run" / "citations.bib").read_text()


FACES = {
    "data.num": 40,
    "network.width": 4,
    "network.embedding_dim": 3,
    "train.iterations": 4,
    "train.batch": 8,
    "train.report_every": 2,
    "train.checkpoint_every": 2,
    "labels.every": 2,
    "labels.num": 30,
    "labels.num_init": 1,
    "score.num": 60,
    "score.every": 4,
    "score.repeats": 2,
}


@pytest.mark.slow
@pytest.mark.parametrize("module", [scgan_faces, clustergan_faces])
def test_a_generator_of_faces_is_trained_on_faces_and_can_be_clustered(module, tmp_path):
    config = to_plain(module.get_config("quick"))
    for path, value in FACES.items():
        section, name = path.split(".")
        config[section][name] = value
    with pytest.raises(Interrupted):
        train(tmp_path / "cut", config, StopAt(1))
    summary = train(tmp_path / "run", config)
    again = train(tmp_path / "cut", config)
    assert again | {"seconds": 0} == summary | {"seconds": 0}
    assert summary["agreement"] == {}
    assert summary["notes"] == {"features": "pca48_pixels"}
    assert set(summary["scores"]) == {"frechet_pca48_pixels", "precision", "recall"}
    assert "60 images" in summary_text(summary)
    with np.load(tmp_path / "run/samples.npz") as arrays:
        assert arrays["points"].shape == (1, 60, 64, 64, 3)
        assert arrays["points"].dtype == np.uint8
    generator = load_generator(tmp_path / "run/generator")
    z = generator.sample_latents(jax.random.key(0), 3)
    images = [np.asarray(generator.images(z, condition=c)) for c in range(2)]
    assert images[0].shape == (3, 64, 64, 3)
    assert not np.array_equal(*images)
    names = ("samples.npz", "generator/weights.safetensors", "figures/samples.png")
    for name in names:
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()
    other = train(tmp_path / "run", config | {"seed": 1}, allow_change=True)
    assert other["scores"] != summary["scores"]


def test_a_folder_of_an_older_version_goes_on_and_other_images_begin_anew(tmp_path, monkeypatch):
    config = settings()
    new = training_folder.TrainingRun(tmp_path, config).key
    for path in training.ADDED:
        section, name = path.split(".")
        del config[section][name]
    old = {p: v for p, v in flatten(config).items() if not schema.is_resource(p)}
    del old["train.iterations"]
    assert digest(old) == new
    assert training_folder.TrainingRun(tmp_path, schema.complete(config)).key == new
    config = to_plain(scgan_faces.get_config("quick"))
    known = training_folder.TrainingRun(tmp_path, config).key
    monkeypatch.setattr(GeneratedImages, "identity", lambda self: "other weights")
    assert training_folder.TrainingRun(tmp_path, config).key != known


def test_other_images_under_the_same_name_are_not_gone_on_with_unasked(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(20):
        Image.new("RGB", (8, 8), (12 * i, 5, 9)).save(photos / f"{i}.png")
    config = to_plain(scgan_faces.get_config("quick"))
    config["data"] |= {"name": "folder", "path": str(photos), "size": 8}
    config["labels"]["num"] = 20
    run = open_training(tmp_path / "run", config)
    assert run.identity == open_training(tmp_path / "run", config).identity != ""
    Image.new("RGB", (8, 8), "white").save(photos / "new.png")
    _files.cache_clear()
    _read.cache_clear()
    with pytest.raises(UserError, match=r"made with other data .*--allow_config_change"):
        open_training(tmp_path / "run", config)
    assert open_training(tmp_path / "run", config, allow_change=True).identity != run.identity


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data.path": "nowhere"}, "--config.data.path=nowhere: generator 'nowhere'"),
        ({"data.name": "folder", "data.size": 24}, "square images whose side is 8, 16, 32"),
        ({"data.name": "folder", "train.batch": 25}, "--config.train.batch: 25 rows are wanted"),
    ],
)
def test_data_that_do_not_fit_are_said_before_anything_is_written(tmp_path, changes, words):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(20):
        Image.new("RGB", (8, 8), (12 * i, 5, 9)).save(photos / f"{i}.png")
    config = to_plain(scgan_faces.get_config("quick"))
    config["data"] |= {"path": str(photos), "size": 8}
    for path, value in changes.items():
        section, name = path.split(".")
        config[section][name] = value
    with pytest.raises(UserError, match=re.escape(words)):
        open_training(tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


def test_more_digits_than_there_are_are_refused_and_so_are_digits_without_scikit_learn(monkeypatch):
    with pytest.raises(UserError, match="expected at most 1797"):
        Digits8().draw(jax.random.key(0), 1798)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UserError, match=r"pip install 'cgjax\[digits\]'"):
        Digits8().draw(jax.random.key(0), 5)


def test_an_interrupted_run_resumes_to_the_same_bytes(whole, tmp_path):
    root, summary = whole
    with pytest.raises(Interrupted, match="training is saved at iteration"):
        train(tmp_path, settings(), StopAt(2))  # just before the second clustering
    assert not (tmp_path / "summary.json").exists()
    again = train(tmp_path, settings())
    for name in RESULTS:
        assert (tmp_path / name).read_bytes() == (root / name).read_bytes(), name
    assert again | {"seconds": 0} == summary | {"seconds": 0}
    assert [line["iteration"] for line in lines_of(tmp_path, "train")] == [3, 6, 9, 12]


@pytest.mark.slow
def test_killed_before_any_change_of_the_folder_it_goes_on_to_the_same_curve_and_bytes(
    whole, tmp_path, kill_at
):
    root, summary = whole
    kills, again = 0, None
    while again is None:
        kill_at(kills + 1)
        try:
            again = train(tmp_path, settings())
        except Killed:
            kills += 1
        finally:
            kill_at(0)
    assert kills > 10
    for name in RESULTS:
        assert (tmp_path / name).read_bytes() == (root / name).read_bytes(), name
    assert again | {"seconds": 0} == summary | {"seconds": 0}
    for stage in ("train", "score"):
        curves = [[line | {"time": 0} for line in lines_of(r, stage)] for r in (root, tmp_path)]
        assert curves[0] == curves[1]


def test_a_finished_run_trains_nothing_and_keeps_its_seconds(whole, monkeypatch):
    root, summary = whole
    monkeypatch.setattr(Experiment, "advance", None)
    assert train(root, None) == summary


def test_more_iterations_go_on_where_fewer_ended(whole, tmp_path):
    _, summary = whole
    train(tmp_path, settings(train__iterations=9))
    with pytest.raises(UserError, match=r"train\.iterations.*--allow_config_change"):
        train(tmp_path, settings())
    again = train(tmp_path, settings(), allow_change=True)
    assert again | {"seconds": 0} == summary | {"seconds": 0}


def test_a_changed_seed_begins_anew_and_removes_what_was_shown(tmp_path):
    config = settings(train__method="gan", train__iterations=3)
    assert not train(tmp_path, config)["agreement"]  # it clusters nothing
    assert all((tmp_path / name).is_file() for name in RESULTS)
    run = open_training(tmp_path, config | {"seed": 1}, allow_change=True)
    assert not any((tmp_path / name).exists() for name in (*RESULTS, "summary.json"))
    assert not any(map(run.is_own, run.steps.steps()))


def test_a_loss_that_is_not_finite_names_its_step_and_saves_nothing_of_it(tmp_path, monkeypatch):
    advance = Experiment.advance

    def broken(self, states, begin, end):
        states, losses = advance(self, states, begin, end)
        if begin == 3:
            losses = losses._replace(generator=losses.generator.at[0, 1].set(np.nan))
        return states, losses

    monkeypatch.setattr(Experiment, "advance", broken)
    with pytest.raises(UserError, match=r"trial 0 was not finite in iteration 5; lower --config"):
        train(tmp_path, settings())
    assert [path.name for path in (tmp_path / "checkpoints/trials").glob("*.json")] == ["3.json"]


def test_a_trial_is_what_it_is_alone_and_about_that_beside_others_in_one_program():
    losses = {}
    for trials, together in ((1, False), (2, False), (2, True)):
        config = settings(train__method="gan", train__trials=trials, train__together=together)
        experiment = Experiment(config)
        made = experiment.advance(experiment.init(), 0, 3)[1].discriminator
        losses[trials, together] = np.asarray(made)[:, :1]
    in_turn = losses[2, False]
    np.testing.assert_array_equal(losses[1, False][0], in_turn[0])
    assert in_turn[0] != in_turn[1]
    np.testing.assert_allclose(losses[2, True], in_turn, rtol=1e-5)


# What is refused


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("train.method", "vae", "--config.train.method=vae: expected gan"),
        ("data.name", "spiral", "--config.data.name=spiral: expected ring"),
        ("train.batch", 70, "--config.train.batch=70: expected at most data.num=60"),
        ("labels.num_clusters", 50, "--config.labels.num_clusters=50: expected at most labels.num"),
        ("labels.supervised", True, "expected at least 8, one for each class"),
        ("train.learning_rate", -1.0, "--config.train.learning_rate=-1.0: expected"),
        ("score.features", "vgg", "expected pca_pixels, random_cnn or inception:FILE"),
        ("score.features", "random_cnn", "expected pca_pixels with data.name=ring"),
        ("score.features", "random_cnn", "--config.score.num=30: expected at least 416"),
        ("data.flip", True, "--config.data.flip=True: expected False with data.name=ring"),
        ("labels.features", "autoencoder", "expected rows with train.method=scgan"),
        ("train.lr", 1.0, "config.train.lr"),
        ("train.method", "clustergan", "=clustergan: expected data of images or vectors; those of"),
        ("network.name", "encoding", "--config.network.name=encoding: expected planar with"),
        ("network.name", "dcgan", "--config.network.name=dcgan: expected planar with"),
        ("data.name", "digits8", "--config.train.method=scgan: expected data of images or points"),
        ("data.name", "folder", "expected dcgan or dcgan_flat or sngan or residual with"),
    ],
)
def test_a_wrong_setting_is_one_line_with_the_flag_to_type(path, value, expected):
    config = settings()
    section, name = path.split(".")
    config[section][name] = value
    with pytest.raises(UserError) as error:
        schema.validate(config)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_of_weights_that_is_not_there_is_said_before_any_work(tmp_path):
    config = to_plain(scgan_faces.get_config("quick"))
    config["score"] |= {"features": "inception:gone.safetensors", "num": 2048}
    with pytest.raises(UserError, match=r"--config.score.features=.*: no file gone.safetensors"):
        open_training(tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["folder", "cifar10"])
def test_data_that_are_not_there_are_one_line_and_exit_2(name, tmp_path):
    done = cgjax(
        "--config=configs/scgan_faces.py:quick",
        f"--config.data.name={name}",
        f"--config.data.path={tmp_path}",
        f"--workdir={tmp_path / 'run'}",
    )
    (line,) = errors(done.stderr)
    assert done.returncode == 2
    assert line.startswith(f"error: --config.data.path={tmp_path}: no ")
    assert not (tmp_path / "run").exists()


def test_the_folder_of_one_kind_of_run_is_refused_by_the_other(whole, tmp_path):
    root, _ = whole
    assert saved_kind(RunFolder(root)) == schema.TRAINING
    with pytest.raises(UserError, match="run of another kind"):
        read_config(RunFolder(root))
    save_config(RunFolder(tmp_path), to_plain(common.get_config()), "", [])
    before = (tmp_path / "config.json").read_bytes()
    for allow_change in (False, True):
        with pytest.raises(UserError, match="run of another kind"):
            open_training(tmp_path, settings(), allow_change=allow_change)
    assert (tmp_path / "config.json").read_bytes() == before


@pytest.mark.parametrize(("num", "devices"), [(2, None), (1, 4)])
def test_several_processes_or_devices_are_refused(num, devices):
    with pytest.raises(UserError, match="leave"):
        training_folder.check_alone(num, devices)


def test_the_command_refuses_other_modes_in_one_line_and_exits_2(tmp_path):
    done = cgjax("--config=configs/scgan_grid.py", "--mode=sweep", f"--workdir={tmp_path / 'x'}")
    (line,) = errors(done.stderr)
    assert done.returncode == 2
    assert line.startswith("error: --mode=sweep is for runs that cluster a generator")
    assert not (tmp_path / "x").exists()


# The configs and the table


@pytest.mark.parametrize("module", [scgan_ring, scgan_grid, clustergan_digits])
@pytest.mark.parametrize("arg", ["", "code", "quick", "code-quick"])
def test_every_variant_is_valid_and_complete(module, arg):
    config = to_plain(module.get_config(arg))
    schema.validate(config)
    assert schema.complete(config) == config
    assert set(flatten(config)) == set(training.LEAVES)


IMAGES = {
    scgan_faces: ("quick",),
    clustergan_faces: ("quick",),
    scgan_stacked_digits: ("quick", "cpu"),
    scgan_cifar10: ("quick",),
    scgan_imagenet: ("quick",),
}


@pytest.mark.parametrize(
    ("module", "arg"),
    [(module, arg) for module, args in IMAGES.items() for arg in ("", *args)],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_every_variant_of_images_is_valid_and_complete(module, arg):
    config = to_plain(module.get_config(arg))
    schema.validate(config)
    assert schema.complete(config) == config
    assert set(flatten(config)) == set(training.LEAVES)
    with pytest.raises(ValueError, match="'fast' is not known"):
        module.get_config("fast")


def test_an_unknown_variant_is_refused():
    with pytest.raises(ValueError, match="'fast' is not known"):
        scgan_ring.get_config("fast")


def test_every_leaf_has_a_comment():
    lines = inspect.getsource(scgan_common.get_config).splitlines()
    leaves = [i for i, line in enumerate(lines) if re.search(r"\w+\.\w+ = (?!config_dict)", line)]
    bare = [lines[i] for i in leaves if not re.match(r"\s+#", lines[i - 1])]
    assert [line.strip() for line in bare] == ["labels.num_clusters = 50"]  # said above the section


def test_the_table_names_the_methods_data_and_networks_that_there_are():
    assert set(training.METHODS) == set(METHODS)
    assert set(training.DATA) == set(DATA)
    assert set(training.ARCHITECTURES) == set(NETWORKS)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_can_be_built_from_a_config(name):
    config = copy.deepcopy(settings(train__method=name))
    if name == "clustergan":
        config["network"]["name"], config["data"]["name"] = "encoding", "digits8"
    schema.validate(config)
    assert Experiment(config).trainer.method.num_labels >= 1
