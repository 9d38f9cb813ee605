"""metrics.jsonl holds complete lines, each epoch once."""

import errno
import json
import os

import numpy as np
import pytest

from cgjax.errors import UserError
from cgjax.runtime import log
from cgjax.runtime.log import Metrics


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def epochs(path, sampler="flow"):
    return [line["epoch"] for line in lines(path) if line.get("sampler") == sampler]


def test_a_written_line_is_readable_at_once(path):
    metrics = Metrics(path)
    metrics.write(stage="fit", loss=np.array([1.0, 2.0]))
    assert lines(path)[0]["loss"] == [1.0, 2.0]
    metrics.close()
    metrics.close()


def test_epochs_that_are_trained_again_appear_once(path):
    metrics = Metrics(path)
    for sampler in ("flow", "imle"):
        for epoch in range(1, 6):
            metrics.write(stage="fit", sampler=sampler, epoch=epoch)
    metrics.close()
    metrics = Metrics(path)  # a resumed run, whose newest checkpoint is of epoch 3
    metrics.forget(lambda line: line.get("sampler") == "flow" and line["epoch"] > 3)
    for epoch in (4, 5):
        metrics.write(stage="fit", sampler="flow", epoch=epoch)
    assert epochs(path) == [1, 2, 3, 4, 5]
    assert epochs(path, "imle") == [1, 2, 3, 4, 5]
    metrics.close()


@pytest.mark.parametrize("rest", ['{"time": 3, "sta', '{"time', "\x00\x00", "[1, 2"])
def test_a_half_written_line_is_dropped(rest, path):
    path.write_text('{"time": 1, "epoch": 1}\n{"time": 2, "epoch": 2}\n' + rest)
    metrics = Metrics(path)
    metrics.write(epoch=3)
    assert [line["epoch"] for line in lines(path)] == [1, 2, 3]
    metrics.close()


def test_a_whole_line_without_its_end_is_kept(path):
    path.write_text('{"epoch": 1}')
    metrics = Metrics(path)
    metrics.write(epoch=2)
    assert [line["epoch"] for line in lines(path)] == [1, 2]
    metrics.close()


def test_nothing_to_forget_leaves_the_file_as_it_is(path):
    Metrics(path).write(epoch=1)
    before = path.stat()
    metrics = Metrics(path)
    metrics.forget(lambda line: line["epoch"] > 1)
    assert path.stat().st_ino == before.st_ino
    metrics.close()


def test_the_null_device_accepts_every_call():
    metrics = Metrics(os.devnull)
    metrics.write(epoch=1)
    metrics.forget(lambda line: True)
    metrics.close()


def test_a_full_disk_is_a_user_error_and_the_next_run_repairs_the_line(path, monkeypatch):
    metrics = Metrics(path)
    metrics.write(epoch=1)
    write = os.write

    def nearly_full(file, data):
        if len(data) <= 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data[: len(data) - 10])

    monkeypatch.setattr(log.os, "write", nearly_full)
    with pytest.raises(UserError, match=f"cannot write {path}: No space left"):
        metrics.write(epoch=2)
    monkeypatch.undo()
    metrics.close()
    metrics = Metrics(path)
    metrics.write(epoch=2)
    assert [line["epoch"] for line in lines(path)] == [1, 2]
    metrics.close()


def test_a_folder_in_place_of_the_file_is_a_user_error(path):
    path.mkdir()
    with pytest.raises(UserError, match="cannot write"):
        Metrics(path)
