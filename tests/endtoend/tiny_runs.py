"""Tiny training runs: their settings, and a function that runs one to its summary."""

from pathlib import Path
from typing import Any

from PIL import Image

from cgjax.config.plain import to_plain
from cgjax.run.training import open_training
from cgjax.runtime.signals import Interrupts
from cgjax.stages.endtoend import TrainingStage
from configs import scgan_faces, scgan_ring

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


def settings(**changes):
    """The tiny config; a double underscore stands for the dot of a path."""
    config = to_plain(scgan_ring.get_config())
    for path, value in (TINY | {k.replace("__", "."): v for k, v in changes.items()}).items():
        section, name = path.split(".")
        config[section][name] = value
    return config


def on_photos(photos: Path, num: int) -> dict[str, Any]:
    """Write small images into a new folder; return the config that trains on them."""
    photos.mkdir()
    for i in range(num):
        Image.new("RGB", (8, 8), (12 * i, 5, 9)).save(photos / f"{i}.png")
    config = to_plain(scgan_faces.get_config("quick"))
    config["data"] |= {"name": "folder", "path": str(photos), "size": 8}
    return config


def train(root, config, interrupts=None, **options):
    run = open_training(root, config, **options)
    return TrainingStage(run, interrupts or Interrupts()).run_all()
