"""What a training whose config or whose own code has changed keeps, and what is made anew."""

import errno
import json
import shutil
import sys
import types

import pytest

from cgjax.config.plain import to_plain
from cgjax.endtoend.experiment import Experiment
from cgjax.errors import UserError
from cgjax.run.folder import Provenance, RunFolder, save_config
from cgjax.run.training import open_training
from configs import scgan_faces
from tests.endtoend.tiny_runs import settings, train
from tests.generators.objects import Good
from tests.killing import Killed


@pytest.fixture
def finished(whole, tmp_path):
    """A copy of a finished training."""
    return shutil.copytree(whole[0], tmp_path / "finished")


@pytest.fixture
def untrainable(monkeypatch):
    """Let every iteration fail."""
    monkeypatch.setattr(Experiment, "advance", None)


def as_of_earlier_version(root):
    """Remove from a folder what earlier versions did not write."""
    config = json.loads((root / "config.json").read_text())
    save_config(RunFolder(root), config["config"], Provenance(config["weights_sha256"]))


def lines_of(root, stage):
    lines = map(json.loads, (root / "metrics.jsonl").read_text().splitlines())
    return [line | {"time": 0} for line in lines if line["stage"] == stage]


@pytest.mark.usefixtures("untrainable")
def test_a_finished_training_is_scored_otherwise_and_back_without_training(whole, finished):
    as_of_earlier_version(finished)
    other = settings(score__num=40, score__repeats=3)
    with pytest.raises(UserError, match=r"score\.num: 30 -> 40.*recompute what depends on it"):
        train(finished, other)
    assert train(finished, settings()) == whole[1]
    as_of_earlier_version(finished)
    again = train(finished, other, allow_change=True)
    assert again["num_points"] == 40
    assert again["scores"] != whole[1]["scores"]
    assert train(finished, None) == again
    back = train(finished, settings(), allow_change=True)
    assert back | {"seconds": 0} == whole[1] | {"seconds": 0}
    for stage in ("train", "score"):
        assert lines_of(finished, stage) == lines_of(whole[0], stage)


def test_scores_along_the_way_stay_unless_they_are_measured_otherwise(finished):
    before = lines_of(finished, "score")
    open_training(finished, settings(score__repeats=3, score__every=4), allow_change=True)
    assert lines_of(finished, "score") == before
    open_training(finished, settings(score__num=40), allow_change=True)
    assert not lines_of(finished, "score")


@pytest.mark.slow
@pytest.mark.usefixtures("untrainable")
def test_killed_while_it_is_scored_otherwise_it_ends_with_the_same_bytes(
    finished, tmp_path, kill_at
):
    other, cut = settings(score__num=40), shutil.copytree(finished, tmp_path / "cut")
    train(finished, other, allow_change=True)
    for changes in (1, 2, 3, 5, 8, 12):  # of the folder before the kill
        kill_at(changes)
        with pytest.raises(Killed):
            train(cut, other, allow_change=True)
    kill_at(0)
    train(cut, other, allow_change=True)
    for name in ("samples.npz", "figures/samples.png", "summary.json"):
        assert (cut / name).read_bytes() == (finished / name).read_bytes(), name
    for stage in ("train", "score"):
        assert lines_of(cut, stage) == lines_of(finished, stage)


def test_settings_that_a_training_does_not_read_leave_its_steps(tmp_path):
    def key(**changes):
        config = settings(train__method="gan", **changes)
        return open_training(tmp_path, config, allow_change=True).key

    began = key()
    assert key(labels__every=7) == key(labels__num_clusters=5, score__num=9) == began
    assert key(train__batch=11) != began


def test_an_edited_config_does_not_pass_for_the_training_of_another(finished):
    path, other = finished / "config.json", settings() | {"seed": 1}
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(UserError, match=r"config\.json was edited; put it back"):
        open_training(finished, other)
    assert (finished / "summary.json").is_file()
    run = open_training(finished, other, allow_change=True)
    assert not any(map(run.is_own, run.steps.steps()))


def test_an_edited_config_does_not_cost_a_training_unasked(finished):
    other = settings(score__num=40)
    began = open_training(finished, other, allow_change=True).key
    path = finished / "config.json"
    saved = path.read_text()
    path.write_text(saved.replace('"typed": []', '"typed": ["--config=mine.py"]'))
    with pytest.raises(UserError, match=r"config\.json was edited; put it back"):
        open_training(finished, other)
    path.write_text(saved)
    run = open_training(finished, other)
    assert run.key == began
    assert all(map(run.is_own, run.steps.steps()))


@pytest.mark.parametrize("section", ["data", "labels", "score", "train"])
def test_an_edited_config_that_lacks_a_section_is_replaced_if_that_is_allowed(finished, section):
    path = finished / "config.json"
    content = json.loads(path.read_text())
    del content["config"][section]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="was made with another config"):
        open_training(finished, settings())
    run = open_training(finished, settings(), allow_change=True)
    assert all(map(run.is_own, run.steps.steps()))


def test_a_config_that_may_not_be_read_is_not_called_damaged(finished, monkeypatch):
    def refuse(path, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("cgjax.run.folder.Path.read_text", refuse)
    with pytest.raises(UserError, match=r"config\.json: Permission denied; make it readable"):
        open_training(finished, settings())


def test_a_config_of_a_later_version_is_another_training(finished):
    config = settings()
    config["train"]["invented"] = 1
    save_config(RunFolder(finished), config, Provenance(""))
    with pytest.raises(UserError, match=r"train\.invented: 1 -> None"):
        open_training(finished, settings())
    assert open_training(finished, settings(), allow_change=True).config == settings()


@pytest.mark.parametrize("has_steps", [True, False])
def test_a_cooldown_before_the_end_of_what_is_trained_is_refused(whole, finished, has_steps):
    if not has_steps:
        shutil.rmtree(finished / "checkpoints")
    saved = (finished / "config.json").read_bytes()
    for iterations in (12, 14):
        cooled = settings(train__iterations=iterations, train__cooldown=3)
        words = rf"at iteration {iterations - 3}, but 12 .* --config\.train\.iterations=15, or"
        with pytest.raises(UserError, match=words):
            train(finished, cooled, allow_change=True)
    assert (finished / "config.json").read_bytes() == saved
    assert train(finished, None) == whole[1]
    open_training(finished, settings(train__iterations=15, train__cooldown=3), allow_change=True)
    assert json.loads((finished / "summary.json").read_text()) == whole[1]


def test_an_edited_generator_of_the_data_is_another_training(tmp_path, monkeypatch):
    own = types.ModuleType("mine")
    monkeypatch.setitem(sys.modules, "mine", own)
    root, config = tmp_path / "run", to_plain(scgan_faces.get_config("quick"))
    config["data"]["path"] = "mine:Mine"

    def key(scale, **options):
        own.Mine = type("Mine", (Good,), {"images": lambda self, z: scale * Good.images(self, z)})
        return open_training(root, config, **options).key

    new = key(0.5)
    assert key(0.5 + 1e-6) == new  # within rounding
    with pytest.raises(UserError, match=r"when --config\.data\.path=mine:Mine returned something"):
        key(0.6)
    edited = key(0.6, allow_change=True)
    assert key(0.6) == edited != new
    as_of_earlier_version(root)  # which kept no trace
    assert key(0.6) == key(0.7)
