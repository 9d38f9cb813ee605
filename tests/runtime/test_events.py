"""The event file holds the numbers of metrics.jsonl, each once, whatever happened before."""

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


def test_nothing_is_written_without_the_extra(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    metrics = Metrics(path)
    metrics.write(stage="fit", epoch=1, loss=0.5)
    assert not (path.parent / "tensorboard").exists()
    metrics.close()
