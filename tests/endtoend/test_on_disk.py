"""Images that do not fit in memory: training is the same as with images that do."""

import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cgjax.config.plain import to_plain
from cgjax.endtoend import trainer
from cgjax.endtoend.data import folder as data
from cgjax.endtoend.data.folder import FolderImages, contents_of
from cgjax.endtoend.data.on_disk import RowsOnDisk
from cgjax.endtoend.experiment import Experiment, check_data
from cgjax.endtoend.fixed_features import AUTOENCODER, FixedFeatures
from cgjax.errors import UserError
from cgjax.runtime.log import Progress
from configs import scgan_faces

KEY = jax.random.key(0)


@pytest.fixture
def photos(tmp_path):
    """A folder of 40 images of several sizes, some in a folder inside it."""
    rng = np.random.default_rng(0)
    (tmp_path / "more").mkdir()
    for i in range(40):
        pixels = rng.integers(0, 256, (10 + i % 3, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / ("more" if i % 2 else "") / f"{i}.png")
    yield tmp_path
    contents_of.cache_clear()


def folder(photos, memory_mb):
    return FolderImages(str(photos), size=8, memory_mb=memory_mb)


def test_rows_on_disk_equal_those_in_memory(photos):
    held, there = folder(photos, 1), folder(photos, 0)
    assert not held.is_on_disk
    assert there.is_on_disk
    assert there.identity() == held.identity()
    assert there.available(50) == held.available(50) == 40
    held, there = held.draw(KEY, 30), there.draw(KEY, 30)
    assert isinstance(there.rows, RowsOnDisk)
    assert there.rows.shape == held.rows.shape == (30, 8, 8, 3)
    np.testing.assert_array_equal(there.rows[:], held.rows)
    np.testing.assert_array_equal(there.rows[5:9], held.rows[5:9])
    which = np.array([[3, 3, 29], [0, 7, 1]])
    np.testing.assert_array_equal(there.rows[which], held.rows[jnp.asarray(which)])
    np.testing.assert_array_equal(there.classes, held.classes)


def config_of(photos, memory_mb, **changes):
    config = to_plain(scgan_faces.get_config("quick"))
    config["data"] |= {"name": "folder", "path": str(photos), "size": 8, "memory_mb": memory_mb}
    config["data"] |= {"flip": True, "num": 36}
    config["labels"] |= {"num": 36, "num_clusters": 2, "every": 4}
    config["network"] |= {"width": 4}
    config["train"] |= {"batch": 8}
    for path, value in changes.items():
        section, name = path.split(".")
        config[section][name] = value
    return config


CLUSTERGAN = {
    "train.method": "clustergan",
    "network.name": "encoding_dcgan",
    "clustergan.critic_steps": 2,
}


@pytest.mark.parametrize(
    "changes",
    [{}, CLUSTERGAN],
    ids=["scgan", "clustergan"],
)
def test_training_from_disk_equals_training_from_memory_in_any_chunks(photos, changes, monkeypatch):
    # Two iterations' rows a chunk, so that five are cut in three.
    monkeypatch.setattr(trainer, "CHUNK", 2 * 8 * 8 * 8 * 3)
    found = []
    for memory_mb in (1, 0):
        experiment = Experiment(config_of(photos, memory_mb, **changes))
        states, losses = experiment.init(), []
        for begin, end in ((0, 4), (4, 9)):
            states, made = experiment.advance(states, begin, end)
            losses.append(made)
        found.append((states, losses))
    for held, there in zip(*map(jax.tree.leaves, found), strict=True):
        # Two programs, which round otherwise.
        np.testing.assert_allclose(there, held, rtol=1e-4, atol=1e-6)


def test_an_autoencoder_trains_on_rows_on_disk(photos):
    networks = Experiment(config_of(photos, 1)).trainer.networks
    found = []
    for memory_mb in (1, 0):
        data = folder(photos, memory_mb)
        features = FixedFeatures(AUTOENCODER, networks, data.prepare, steps=3, batch=4)
        rows = data.draw(KEY, 12).rows
        found.append(features.fit(KEY, rows)(rows[:5]))
    np.testing.assert_allclose(*found, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("is_image", [True, False])
def test_a_file_that_changes_during_training_is_refused_in_one_line(photos, is_image):
    data = folder(photos, 0)
    before, rows = data.identity(), data.draw(KEY, 40).rows
    if is_image:
        Image.new("RGB", (12, 12), "red").save(photos / "4.png")
    else:
        (photos / "4.png").write_bytes(b"no image any more")
    said = r"--config.data.path: .*4.png has changed since it was found; run again"
    with pytest.raises(UserError, match=said):
        rows[:]
    assert data.identity() == before  # of what is learnt from


@pytest.mark.parametrize("memory_mb", [0, 1])
def test_a_file_that_is_no_image_or_damaged_is_refused_before_anything_is_computed(
    photos, memory_mb
):
    path = photos / "4.png"
    whole = path.read_bytes()
    for content in (b"no image at all", whole[: len(whole) // 2]):
        path.write_bytes(content)
        contents_of.cache_clear()
        with pytest.raises(UserError, match=r"--config.data.path: .*4.png cannot be read as an im"):
            check_data(config_of(photos, memory_mb))


def test_ctrl_c_while_a_folder_is_read_does_not_wait_for_its_other_files(photos, monkeypatch):
    tried, is_stopped = [], threading.Event()

    def digest(path, option):
        tried.append(path)
        if path.name != "0.png":
            is_stopped.wait()
            time.sleep(0.02)
        return ""

    def interrupt(progress, done):
        is_stopped.set()
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "file_digest", digest)
    monkeypatch.setattr(Progress, "update", interrupt)
    with pytest.raises(KeyboardInterrupt):
        folder(photos, 0).identity()
    assert len(tried) < 40


def test_a_missing_grain_is_refused_with_what_to_install(photos, monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(UserError, match=r"memory_mb.*pip install 'cgjax\[stream\]'"):
        check_data(config_of(photos, 0))
    check_data(config_of(photos, 1))


def test_trials_together_need_images_in_memory(photos):
    changes = {"train.together": True, "train.trials": 2}
    check_data(config_of(photos, 1, **changes))
    with pytest.raises(UserError, match=r"--config.train.together=true: expected images that fit"):
        check_data(config_of(photos, 0, **changes))
