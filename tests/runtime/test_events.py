"""The event file holds the numbers of metrics.jsonl, each once, whatever happened before."""

import importlib.util
import struct
import sys

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c

from cgjax.runtime.log import Metrics


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def points(path):
    """The (tag, step, value) of the one event file, whose checksums must be right."""
    [file] = (path.parent / "tensorboard").iterdir()
    data, found = file.read_bytes(), []
    while data:
        size, check = struct.unpack("<QI", data[:12])
        content, data = data[12 : 12 + size], data[12 + size :]
        assert check == masked_crc32c(struct.pack("<Q", size))
        assert struct.unpack("<I", data[:4]) == (masked_crc32c(content),)
        data, event = data[4:], Event.FromString(content)
        found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
    return found


def test_the_numbers_of_epochs_and_iterations_are_points(path):
    metrics = Metrics(path)
    metrics.write(stage="fit", part="flow", seconds=1.5)
    assert not (path.parent / "tensorboard").exists()
    metrics.write(stage="fit", sampler="0/1 flow", epoch=2, loss=np.array([0.5, 0.25, np.nan]))
    metrics.write(stage="score", iteration=7, trial=1, modes=3, is_good=True, feature="pca")
    assert points(path) == [
        ("fit/0_1_flow/loss/0", 2, 0.5),
        ("fit/0_1_flow/loss/1", 2, 0.25),
        ("score/1/modes", 7, 3.0),
    ]
    metrics.close()


def test_after_a_kill_every_point_is_there_once(path):
    killed = Metrics(path)
    for epoch in (1, 2, 3):
        killed.write(stage="fit", epoch=epoch, loss=float(epoch))
    with path.open("ab") as file:
        file.write(b'{"time": 1.0, "stage": "fit", "epo')
    [file] = (path.parent / "tensorboard").iterdir()
    file.write_bytes(file.read_bytes()[:-30])
    resumed = Metrics(path)
    resumed.forget(lambda line: line["epoch"] > 2)
    for epoch in (3, 4):
        resumed.write(stage="fit", epoch=epoch, loss=float(epoch))
    assert points(path) == [("fit/loss", epoch, float(epoch)) for epoch in (1, 2, 3, 4)]
    for metrics in (killed, resumed):
        metrics.close()


def test_only_its_own_event_files_are_replaced(path):
    (path.parent / "tensorboard").mkdir()
    mine = path.parent / "tensorboard" / "events.out.tfevents.123.host.mine"
    mine.write_bytes(b"mine")
    for _ in range(2):
        metrics = Metrics(path)
        metrics.write(stage="fit", epoch=1, loss=0.5)
        metrics.close()
    assert mine.read_bytes() == b"mine"
    assert len(list(mine.parent.iterdir())) == 2


@pytest.mark.parametrize("obstacle", ["a file in the way", "a broken package"])
def test_what_keeps_the_event_file_from_being_written_is_logged_once(
    obstacle, path, monkeypatch, caplog
):
    if obstacle == "a file in the way":
        (path.parent / "tensorboard").write_text("mine")
    else:
        monkeypatch.setitem(sys.modules, "tensorboardX.record_writer", None)
    metrics = Metrics(path)
    for epoch in (1, 2):
        metrics.write(stage="fit", epoch=epoch, loss=0.5)
    metrics.forget(lambda line: line["epoch"] > 1)
    metrics.write(stage="fit", epoch=2, loss=0.25)
    metrics.close()
    assert len(path.read_text().splitlines()) == 2
    [line] = caplog.messages
    assert line.startswith(f"{path.parent / 'tensorboard'} is not written any more: ")


def test_nothing_is_written_without_the_extra(path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    metrics = Metrics(path)
    metrics.write(stage="fit", epoch=1, loss=0.5)
    assert not (path.parent / "tensorboard").exists()
    metrics.close()
