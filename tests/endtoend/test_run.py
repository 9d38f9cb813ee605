"""A training run from its config to its folder: what it writes, and how it resumes."""

import json
import shutil
import sys
import types

import jax
import numpy as np
import pytest
from PIL import Image

from cgjax.config import schema, training
from cgjax.config.plain import digest, flatten, to_plain
from cgjax.endtoend.data.folder import contents_of
from cgjax.endtoend.data.generated import GeneratedImages
from cgjax.endtoend.experiment import Experiment, check_data
from cgjax.endtoend.methods import METHODS
from cgjax.errors import Interrupted, UserError
from cgjax.generators.families import build_network
from cgjax.generators.registry import load_generator
from cgjax.generators.weights import named_arrays, save_generator
from cgjax.run.folder import Provenance, RunFolder, save_config
from cgjax.run.training import TrainingRun, open_trained, open_training
from cgjax.runtime.signals import Interrupts
from cgjax.stages.endtoend import summary_text
from configs import clustergan_digits, clustergan_faces, scgan_faces
from tests.endtoend.tiny_runs import on_photos, settings, train
from tests.killing import Killed

RESULTS = ("samples.npz", "figures/samples.png")


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


def test_a_run_writes_samples_a_figure_metrics_and_scores_with_a_perfect_samplers(whole):
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


def test_clustergan_clusters_digits_compared_with_k_means_and_draws_each_label(tmp_path):
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


def key_of(root, config):
    return TrainingRun(root, config, check_data(config)).key


def test_an_older_versions_folder_continues_and_other_images_start_over(tmp_path, monkeypatch):
    config = settings()
    new = key_of(tmp_path, config)
    for path in training.ADDED:
        section, name = path.split(".")
        del config[section][name]
    old = {p: v for p, v in flatten(config).items() if not schema.is_resource(p)}
    del old["train.iterations"]  # train.cooldown is one of ADDED
    assert digest(old) == new
    assert key_of(tmp_path, schema.complete(config)) == new
    config = to_plain(scgan_faces.get_config("quick"))
    known = key_of(tmp_path, config)
    monkeypatch.setattr(GeneratedImages, "identity", lambda self: "other weights")
    assert key_of(tmp_path, config) != known


def test_changed_images_under_the_same_name_are_refused_unless_allowed(tmp_path):
    photos = tmp_path / "photos"
    config = on_photos(photos, 20)
    config["labels"]["num"] = 20
    run = open_training(tmp_path / "run", config)
    assert run.identity == open_training(tmp_path / "run", config).identity != ""
    Image.new("RGB", (8, 8), "white").save(photos / "new.png")
    contents_of.cache_clear()
    with pytest.raises(UserError, match=r"made with other data .*--allow_config_change"):
        open_training(tmp_path / "run", config)
    assert open_training(tmp_path / "run", config, allow_change=True).identity != run.identity


def test_a_training_goes_on_with_the_same_images_in_another_place(tmp_path):
    photos = tmp_path / "photos"
    config = on_photos(photos, 20)
    config["labels"]["num"] = 20
    began = open_training(tmp_path / "run", config).key
    config["data"]["path"] = str(photos.rename(tmp_path / "moved"))
    with pytest.raises(UserError, match=r"data\.path: .*/photos -> .*/moved"):
        open_training(tmp_path / "run", config)
    assert open_training(tmp_path / "run", config, allow_change=True).key == began
    assert open_training(tmp_path / "run", None).key == began
    Image.new("RGB", (8, 8), "white").save(tmp_path / "moved/new.png")
    contents_of.cache_clear()
    assert open_training(tmp_path / "run", config, allow_change=True).key != began


def test_the_same_weights_in_another_architecture_are_other_data(tmp_path):
    source, root = tmp_path / "source", tmp_path / "run"
    config = to_plain(scgan_faces.get_config("quick"))
    config["data"]["path"] = str(source)

    plain, with_classes = {"latent_dim": 8}, {"latent_dim": 6, "num_classes": 2}
    network = build_network("dcgan", plain | {"widths": [4, 2]})
    arrays = {name: np.asarray(array) for name, array in named_arrays(network).items()}

    def identity(architecture, **options):
        about = {"source": {"name": "random weights"}, "licence": "none"}
        save_generator(source, "dcgan", architecture | {"widths": [4, 2]}, arrays, **about)
        return open_training(root, config, **options).identity

    began = identity(plain)
    assert identity(plain) == began
    with pytest.raises(UserError, match="was made with other data"):
        identity(with_classes)
    assert identity(with_classes, allow_change=True) != began
    saved = Provenance(began.split()[0])  # as an earlier version, which kept the weights' hash
    save_config(RunFolder(root), config, saved)
    assert identity(plain) == saved.weights_sha256


def test_an_edited_function_of_fixed_clusters_is_another_training(tmp_path, monkeypatch):
    own = types.ModuleType("mine")
    monkeypatch.setitem(sys.modules, "mine", own)
    changes = {"train.method": "fixed_clusters", "labels.features": "mine:features"}
    config, root = settings(**changes), tmp_path / "run"

    def key(**options):
        return open_training(root, config, **options).key

    own.features = lambda rows: rows[:, :1]
    new = key()
    own.features = lambda rows: rows[:, :1] * np.float32(1 + 1e-6)
    assert key() == open_trained(root, None).key == new  # within rounding
    own.features = lambda rows: rows.missing
    assert key() == new
    own.features = lambda rows: rows[:, 1:]
    with pytest.raises(UserError, match=r"features=mine:features returned something else; use an"):
        key()
    assert key(allow_change=True) == key() != new


def test_a_folder_without_a_trace_of_its_features_is_continued(tmp_path, monkeypatch):
    own = types.ModuleType("mine")
    own.features = lambda rows: rows[:, :1]
    monkeypatch.setitem(sys.modules, "mine", own)
    config, root = settings(train__method="fixed_clusters"), tmp_path / "run"
    config["labels"]["features"] = "mine:features"
    old = TrainingRun(root, config, "")
    root.mkdir()
    save_config(old.folder, config, Provenance(""))
    for _ in range(2):
        assert open_training(root, config).key == old.key


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


@pytest.mark.parametrize("method", ["scgan", "gan"])
def test_a_run_resumes_without_clustering_afresh(method, tmp_path, monkeypatch):
    config = settings(train__method=method, labels__every=100)
    summary = train(tmp_path / "whole", config)
    with pytest.raises(Interrupted):
        train(tmp_path / "cut", config, StopAt(1))
    monkeypatch.setattr(METHODS[method](config, 8).__class__, "start", None)
    again = train(tmp_path / "cut", config)
    assert again | {"seconds": 0} == summary | {"seconds": 0}


def test_a_checkpoint_of_other_networks_is_refused_in_one_line(tmp_path, monkeypatch):
    with pytest.raises(Interrupted):
        train(tmp_path, settings(), StopAt(1))
    shapes = Experiment.shapes

    def wider(self):
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((2, *x.shape), x.dtype), shapes(self))

    monkeypatch.setattr(Experiment, "shapes", wider)
    with pytest.raises(UserError, match=r"trained by a version .* other networks; use another"):
        train(tmp_path, settings())


@pytest.mark.slow
def test_killed_before_any_change_of_the_folder_it_resumes_to_the_same_curve_and_bytes(
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


def test_a_longer_training_continues_where_a_shorter_one_ended(whole, tmp_path):
    _, summary = whole
    train(tmp_path, settings(train__iterations=9))
    with pytest.raises(UserError, match=r"train\.iterations.*--allow_config_change"):
        train(tmp_path, settings())
    again = train(tmp_path, settings(), allow_change=True)
    assert again | {"seconds": 0} == summary | {"seconds": 0}


def test_a_shorter_trainings_results_stay_until_replaced(whole, tmp_path):
    _, summary = whole
    shorter = train(tmp_path, settings(train__iterations=6))
    with pytest.raises(Interrupted):
        train(tmp_path, settings(), StopAt(1), allow_change=True)
    assert json.loads((tmp_path / "summary.json").read_text()) == shorter
    assert all((tmp_path / name).is_file() for name in RESULTS)
    longer = train(tmp_path, settings())
    assert longer | {"seconds": 0} == summary | {"seconds": 0}
    open_training(tmp_path, settings(train__iterations=9), allow_change=True)
    assert not any((tmp_path / name).exists() for name in (*RESULTS, "summary.json"))


def test_an_earlier_versions_results_are_removed_when_another_training_starts(whole, tmp_path):
    root, _ = whole
    shutil.copytree(root, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "stages")
    open_training(tmp_path / "run", settings() | {"seed": 1}, allow_change=True)
    left = [name for name in (*RESULTS, "summary.json") if (tmp_path / "run" / name).exists()]
    assert left == []


def test_edited_results_are_recomputed(whole, tmp_path):
    root, summary = whole
    shutil.copytree(root, tmp_path / "run")
    figure = tmp_path / "run/figures/samples.png"
    figure.write_bytes(b"somebody's")
    assert train(tmp_path / "run", None) == summary
    assert figure.read_bytes() == (root / "figures/samples.png").read_bytes()


def test_a_training_is_saved_before_it_is_scored(whole, tmp_path, monkeypatch):
    _, summary = whole
    scores = Experiment.scores
    monkeypatch.setattr(Experiment, "scores", None)
    with pytest.raises(TypeError):
        train(tmp_path, settings(score__every=6))
    monkeypatch.setattr(Experiment, "scores", scores)
    again = train(tmp_path, settings(score__every=6))
    assert [line["iteration"] for line in lines_of(tmp_path, "train")] == [3, 6, 9, 12]
    assert [line["iteration"] for line in lines_of(tmp_path, "score")] == [6, 12]
    assert again["scores"] == summary["scores"]


def test_a_training_continues_into_a_cooldown_but_not_out_of_one(tmp_path):
    cooled = settings(train__iterations=9, train__cooldown=3)
    train(tmp_path / "plain", settings(train__iterations=6))
    run = open_training(tmp_path / "plain", cooled, allow_change=True)
    assert [step.number for step in run.steps.steps() if run.is_own(step)][-1] == 6
    gone_on = train(tmp_path / "plain", cooled)
    at_once = train(tmp_path / "cooled", cooled)
    assert gone_on | {"seconds": 0} == at_once | {"seconds": 0}
    assert at_once["scores"] != train(tmp_path / "ever", settings(train__iterations=9))["scores"]
    longer = settings(train__iterations=12, train__cooldown=3)
    run = open_training(tmp_path / "cooled", longer, allow_change=True)
    assert [step.number for step in run.steps.steps() if run.is_own(step)] == [6]


def test_a_changed_seed_starts_over_and_removes_the_results(tmp_path):
    config = settings(train__method="gan", train__iterations=3)
    assert not train(tmp_path, config)["agreement"]  # it clusters nothing
    assert all((tmp_path / name).is_file() for name in RESULTS)
    run = open_training(tmp_path, config | {"seed": 1}, allow_change=True)
    assert not any((tmp_path / name).exists() for name in (*RESULTS, "summary.json"))
    assert not any(map(run.is_own, run.steps.steps()))


def test_a_loss_that_is_not_finite_names_its_iteration_and_is_not_saved(tmp_path, monkeypatch):
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


def test_a_trial_is_the_same_alone_or_in_turn_and_nearly_so_stacked():
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
