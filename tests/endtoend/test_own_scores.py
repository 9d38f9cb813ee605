"""Scores by the user's own judge, on data from a generator with classes."""

import json
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgjax.config.plain import to_plain
from cgjax.endtoend.data import data_of, images
from cgjax.endtoend.data.folder import FixedImages
from cgjax.endtoend.data.generated import GeneratedImages
from cgjax.errors import Interrupted, UserError
from cgjax.evaluation.distances import frechet
from cgjax.run.places import RESULTS
from cgjax.run.training import open_training
from cgjax.runtime.signals import Interrupts
from cgjax.stages.endtoend import summary_text
from configs import scgan_faces
from tests.endtoend.coloured import NUM, SIDE, brightness, save_coloured
from tests.endtoend.tiny_runs import TINY, train

KEY = jax.random.key(0)
NAME = "mine:brightness"


@pytest.fixture
def coloured(tmp_path):
    return str(save_coloured(tmp_path / "coloured"))


@pytest.fixture
def own(monkeypatch):
    module = types.ModuleType("mine")
    module.brightness = brightness
    module.plain = lambda images: brightness(images)[0]
    module.four = lambda images: (brightness(images)[0], np.zeros((len(images), 4)))
    module.wide = lambda images: np.asarray(images).reshape(len(images), -1)
    monkeypatch.setitem(sys.modules, "mine", module)
    return module


def test_each_image_shows_its_class_which_is_uniform(coloured):
    data = GeneratedImages(coloured)
    points = data.draw(KEY, 300)
    assert (data.num_classes, data.row_shape()) == (NUM, (SIDE, SIDE, 3))
    rows, classes = np.asarray(points.rows), np.asarray(points.classes)
    np.testing.assert_array_equal(rows.mean(axis=(1, 2)).argmax(axis=1), classes)
    assert np.bincount(classes).min() > 70
    assert len({row.tobytes() for row in rows}) > 100
    again, other = data.draw(KEY, 300), data.draw(jax.random.key(1), 300)
    np.testing.assert_array_equal(again.rows, rows)
    np.testing.assert_array_equal(again.classes, classes)
    assert not np.array_equal(other.classes, classes)


@pytest.mark.usefixtures("own")
def test_scores_are_those_of_the_judges_features_and_classes(coloured):
    data = GeneratedImages(coloured, features=NAME)
    perfect = data.perfect(KEY, 120, 2)
    rows = np.asarray(data.prepare(data.draw(jax.random.key(5), 120).rows))
    scores = data.scores(rows)
    assert set(scores) == set(perfect)
    assert scores["modes"] == NUM
    assert scores["reverse_kl_nats"] < 0.1
    assert 1 < scores[f"classifier_score_{NAME}"] <= NUM
    assert scores[f"frechet_{NAME}"] < 0.1
    single = np.full((120, SIDE, SIDE, 3), -0.9, np.float32)
    single[..., 1] = 0.9  # one class alone, and nothing like the images
    worse = data.scores(single)
    assert worse["modes"] == 1
    assert worse["reverse_kl_nats"] == pytest.approx(np.log(NUM))
    assert worse[f"classifier_score_{NAME}"] == pytest.approx(1, abs=1e-5)
    assert worse["precision"] == 0
    assert data.notes(KEY, 120, 2)["judge_accuracy"]["mean"] == 1


@pytest.mark.usefixtures("own")
def test_without_class_scores_of_the_data_s_classes_no_modes_are_counted(coloured):
    rows = np.random.default_rng(0).uniform(-1, 1, (40, SIDE, SIDE, 3)).astype(np.float32)
    plain = GeneratedImages(coloured, features="mine:plain")
    assert set(plain.scores(rows)) == {"frechet_mine:plain", "precision", "recall"}
    assert plain.notes(KEY, 40, 2) == {"features": "mine:plain"}
    four = GeneratedImages(coloured, features="mine:four")
    assert set(four.scores(rows)) == {
        *("frechet_mine:four", "classifier_score_mine:four", "precision", "recall")
    }
    with_classes = GeneratedImages(coloured, features=NAME).scores(rows)
    assert plain.scores(rows)["frechet_mine:plain"] == with_classes[f"frechet_{NAME}"]
    assert frechet(*2 * [brightness(rows)[0]]) < 1e-6 < with_classes[f"frechet_{NAME}"]


class Fixed(FixedImages):
    """Forty images of three true classes, as CIFAR-10 has ten."""

    num_classes, flip, features = NUM, False, NAME

    def __init__(self, path):
        points = GeneratedImages(path).draw(KEY, 40)
        self.all = np.asarray(points.rows), np.asarray(points.classes)

    def row_shape(self):
        return self.all_rows.shape[1:]

    all_rows = property(lambda self: self.all[0])
    all_classes = property(lambda self: self.all[1])


@pytest.mark.usefixtures("own")
def test_of_fixed_images_one_half_is_compared_with_the_other(coloured):
    data = Fixed(coloured)
    rows = np.asarray(data.prepare(jnp.asarray(data.all_rows)))
    scores, perfect = data.scores(rows), data.perfect(KEY, 40, 3)
    assert set(scores) == set(perfect)
    assert scores["modes"] == perfect["modes"].mean == NUM
    notes = data.notes(KEY, 40, 3)
    assert (notes["judge_accuracy"]["mean"], notes["judge_accuracy"]["images"]) == (1, 20)


def config_of(path, **score):
    config = to_plain(scgan_faces.get_config("quick"))
    for leaf, value in TINY.items():
        section, name = leaf.split(".")
        config[section][name] = value
    config["data"]["path"] = path
    config["labels"]["num_clusters"] = NUM
    config["score"] |= {"features": NAME} | score
    return config


class StopAtOnce(Interrupts):
    def agreed(self):
        return True


def lines_of(root, stage):
    lines = map(json.loads, (root / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["stage"] == stage]


def test_a_training_on_a_generators_classes_is_scored_by_the_judge_and_resumes(
    coloured, own, tmp_path
):
    config = config_of(coloured, every=9)
    with pytest.raises(Interrupted):
        train(tmp_path / "cut", config, StopAtOnce())
    summary = train(tmp_path / "run", config)
    again = train(tmp_path / "cut", config)
    assert again | {"seconds": 0} == summary | {"seconds": 0}
    assert summary["notes"]["features"] == NAME
    assert {f"frechet_{NAME}", f"classifier_score_{NAME}", "modes"} <= set(summary["scores"])
    assert summary["scores"]["modes"]["perfect"]["mean"] == NUM
    # k-means on rows of three colours finds the colours, so the true classes are the generator's.
    assert summary["agreement"]["purity"]["kmeans_on_rows"] == 1
    beside = [line for line in summary_text(summary).splitlines() if line.endswith(")")]
    assert len({len(line) for line in beside}) == 1  # the columns are aligned under long names
    names = ("samples.npz", "generator/weights.safetensors")
    for name in names:
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()
    # The generator that was trained is itself such data.
    trained = GeneratedImages(str(tmp_path / "run/generator"))
    assert trained.num_classes == NUM
    assert trained.draw(KEY, 2).rows.shape == (2, SIDE, SIDE, 3)
    # The judge is edited: everything is scored anew, and nothing trained.
    root, losses = tmp_path / "run", lines_of(tmp_path / "run", "train")
    assert [line["iteration"] for line in lines_of(root, "score")] == [9, 12]
    own.brightness = lambda images: tuple(2 * part for part in brightness(images))
    images.reference_of.cache_clear()  # as in another process
    edited, name = train(root, config), f"frechet_{NAME}"
    assert lines_of(root, "train") == losses
    assert [line["iteration"] for line in lines_of(root, "score")] == [12]
    expected = 4 * summary["scores"][name]["mean"]
    assert edited["scores"][name]["mean"] == pytest.approx(expected, rel=1e-3)


def test_a_conditional_training_has_the_generators_classes_as_labels(coloured, tmp_path):
    config = config_of(coloured, features="pca_pixels")
    config["train"]["method"] = "conditional"
    summary = train(tmp_path / "run", config)
    assert summary["method"] == "conditional"
    assert GeneratedImages(str(tmp_path / "run/generator")).num_classes == NUM


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("features", "words"),
    [
        ("mine:wide", r"--config\.score\.num=30: expected at least 192, the dimension of score"),
        ("mine:gone", "features 'mine:gone': module 'mine' .* has no 'gone'"),
        ("os:getcwd", "one of Python's own modules"),
    ],
)
def test_unsuitable_features_are_refused_before_anything_is_written(
    coloured, tmp_path, features, words
):
    with pytest.raises(UserError, match=words):
        open_training(tmp_path / "run", config_of(coloured, features=features))
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("own")
def test_other_features_are_other_results_of_the_same_training(coloured, tmp_path):
    runs = [
        open_training(tmp_path / "run", config_of(coloured, features=name), allow_change=True)
        for name in (NAME, "mine:plain", "pca_pixels")
    ]
    assert len({run.key for run in runs}) == 1
    assert len({run.manifests.graph[RESULTS].key for run in runs}) == 3
    assert data_of(config_of(coloured)).features == NAME
