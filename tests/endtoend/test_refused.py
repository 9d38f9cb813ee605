"""What a training run refuses, each in one line with the flag to type."""

import re
import sys

import jax
import pytest
from PIL import Image

from cgjax.config import schema
from cgjax.config.plain import to_plain
from cgjax.endtoend.data.digits import Digits8
from cgjax.errors import UserError
from cgjax.run import training as training_folder
from cgjax.run.folder import Provenance, RunFolder, read_config, save_config, saved_kind
from cgjax.run.training import open_training
from configs import common, scgan_faces
from tests.e2e.command import cgjax, errors
from tests.endtoend.coloured import save_coloured
from tests.endtoend.tiny_runs import on_photos, settings


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data.path": "nowhere"}, "--config.data.path=nowhere: generator 'nowhere'"),
        ({"data.name": "folder", "data.size": 24}, "square images whose side is 8, 16, 32"),
        (
            {"data.name": "folder", "train.batch": 25},
            "--config.train.batch: needs 25 rows, but there are only 20",
        ),
        (
            {"data.name": "folder", "score.features": "random_cnn", "score.num": 500},
            "--config.score.features=random_cnn: expected at least 416 images to compare with 416 "
            "others; of --config.score.num=500 only 10 can be compared, half of the images that "
            "exist; add images until there are 832, or type --config.score.features=pca_pixels",
        ),
    ],
)
def test_data_that_do_not_fit_are_refused_before_anything_is_written(tmp_path, changes, words):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(20):
        Image.new("RGB", (8, 8), (12 * i, 5, 9)).save(photos / f"{i}.png")
    config = to_plain(scgan_faces.get_config("quick"))
    config["data"] |= {"path": str(photos), "size": 8 if "data.name" in changes else 64}
    for path, value in changes.items():
        section, name = path.split(".")
        config[section][name] = value
    with pytest.raises(UserError, match=re.escape(words)):
        open_training(tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


def test_a_folder_with_too_few_images_to_score_is_refused_before_anything_is_written(tmp_path):
    config = on_photos(tmp_path / "photos", 11)
    with pytest.raises(
        UserError, match=r"only 5 can be compared, half of .*; add images until there are 12$"
    ):
        open_training(tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


def test_too_many_digits_and_a_missing_scikit_learn_are_refused(monkeypatch):
    with pytest.raises(UserError, match="expected at most 1797"):
        Digits8().draw(jax.random.key(0), 1798)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UserError, match=r"pip install 'cgjax\[digits\]'"):
        Digits8().draw(jax.random.key(0), 5)


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("train.method", "vae", "--config.train.method=vae: expected gan"),
        ("data.name", "spiral", "--config.data.name=spiral: expected ring"),
        ("train.batch", 70, "--config.train.batch=70: expected at most data.num=60"),
        ("labels.num_clusters", 50, "--config.labels.num_clusters=50: expected at most labels.num"),
        ("labels.supervised", True, "expected at least 8, one for each class"),
        ("train.learning_rate", -1.0, "--config.train.learning_rate=-1.0: expected"),
        (
            "score.features",
            "vgg",
            "expected pca_pixels, random_cnn, inception:FILE or package.module:function",
        ),
        ("score.features", "incepton:weights.safetensors", "expected pca_pixels, random_cnn, inc"),
        ("score.features", "own", "--config.score.features=own: expected pca_pixels, random_cnn"),
        ("score.features", "layer:layer1", "expected pca_pixels, random_cnn, inception:FILE or"),
        ("score.features", "random_cnn", "expected pca_pixels with data.name=ring"),
        ("score.features", "random_cnn", "--config.score.num=30: expected at least 416"),
        ("data.flip", True, "--config.data.flip=True: expected False with data.name=ring"),
        ("labels.features", "autoencoder", "expected rows with train.method=scgan"),
        ("train.lr", 1.0, "config.train.lr"),
        (
            "train.method",
            "clustergan",
            "=clustergan: expected a data set of images or vectors;",
        ),
        (
            "network.name",
            "encoding",
            "--config.network.name=encoding: expected planar or planar_plain or planar_modulated",
        ),
        (
            "network.name",
            "dcgan",
            "--config.network.name=dcgan: expected planar or planar_plain or planar_modulated",
        ),
        ("data.name", "digits8", "--config.train.method=scgan: expected a data set of images or p"),
        ("data.name", "folder", "expected dcgan or dcgan_flat or sngan or residual with"),
        ("train.critic_factor", 0.0, "--config.train.critic_factor=0.0: expected"),
        ("network.modulation", 0.2, "=0.2: expected 0.1 with network.name=planar"),
        ("train.cooldown", -1, "--config.train.cooldown=-1: expected"),
        ("train.cooldown", 10_000, "=10000: expected at most train.iterations="),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line_with_the_flag_to_type(path, value, expected):
    config = settings()
    section, name = path.split(".")
    config[section][name] = value
    with pytest.raises(UserError) as error:
        schema.validate(config)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train.method": "conditional"}, "=generated: its true classes are unknown, and this run"),
        ({"labels.supervised": True}, "=generated: its true classes are unknown, and this run"),
        (
            {"data.path": "3", "labels.supervised": True},
            "--config.labels.num_clusters=2: expected at least 3, one for each class",
        ),
    ],
)
def test_classes_are_those_of_the_generator(tmp_path, monkeypatch, changes, words):
    monkeypatch.chdir(tmp_path)
    save_coloured("3")
    config = to_plain(scgan_faces.get_config("quick"))
    for path, value in changes.items():
        section, name = path.split(".")
        config[section][name] = value
    with pytest.raises(UserError, match=words):
        open_training(tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


def test_features_that_do_not_exist_are_refused_in_one_line_with_exit_2(tmp_path):
    done = cgjax(
        "--config=configs/scgan_faces.py:quick",
        "--config.score.features=nowhere:features",
        f"--workdir={tmp_path / 'run'}",
    )
    (line,) = errors(done.stderr)
    assert done.returncode == 2
    assert line.startswith("error: features 'nowhere:features': there is no module 'nowhere'")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("network", ["encoding", "encoding_dcgan"])
def test_mgan_with_clustergans_networks_is_refused(network):
    config = settings(train__method="mgan", network__name=network)
    with pytest.raises(UserError, match=rf"--config\.network\.name={network}: expected"):
        schema.validate(config)


def test_a_missing_weights_file_is_refused_before_any_work(tmp_path):
    config = to_plain(scgan_faces.get_config("quick"))
    config["score"] |= {"features": "inception:gone.safetensors", "num": 2048}
    with pytest.raises(UserError, match=r"--config.score.features=.*: no file gone.safetensors"):
        open_training(tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["folder", "cifar10"])
def test_missing_data_are_refused_in_one_line_with_exit_2(name, tmp_path):
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


def test_the_folder_of_one_kind_of_run_is_refused_by_the_other(tmp_path):
    training, clustering = RunFolder(tmp_path / "training"), RunFolder(tmp_path / "clustering")
    open_training(training.root, settings())
    assert saved_kind(training) == schema.TRAINING
    with pytest.raises(UserError, match="run of another kind"):
        read_config(training)
    clustering.root.mkdir()
    save_config(clustering, to_plain(common.get_config()), Provenance(""))
    before = clustering.config.read_bytes()
    for allow_change in (False, True):
        with pytest.raises(UserError, match="run of another kind"):
            open_training(clustering.root, settings(), allow_change=allow_change)
    assert clustering.config.read_bytes() == before


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
