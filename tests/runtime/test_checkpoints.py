"""A checkpoint is restored exactly or refused, and an interrupted step is ignored."""

import json
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from cgjax.errors import UserError
from cgjax.runtime import checkpoints
from cgjax.runtime.address import COORDINATOR, PROCESS, PROCESSES
from cgjax.runtime.checkpoints import Checkpoints

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tree():
    return {"a": jnp.arange(2000, dtype=jnp.float32), "b": [jnp.ones((3, 2), jnp.int32)]}


def test_what_is_restored_is_what_was_saved(tmp_path, tree):
    saved = Checkpoints(tmp_path / "c")
    saved.save(7, tree, {"note": "x"})
    assert saved.steps() == [(7, {"note": "x"})]
    restored = saved.restore(7, tree)
    np.testing.assert_array_equal(restored["a"], tree["a"])
    np.testing.assert_array_equal(restored["b"][0], tree["b"][0])


def test_only_the_last_two_steps_are_kept(tmp_path, tree):
    saved = Checkpoints(tmp_path / "c")
    for number in (1, 2, 3):
        saved.save(number, tree, {})
    assert [step.number for step in saved.steps()] == [2, 3]
    assert not (tmp_path / "c" / "1").exists()


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_a_damaged_step_is_named_and_refused(tmp_path, tree, damage):
    saved = Checkpoints(tmp_path / "c")
    saved.save(1, tree, {})
    files = [p for p in (tmp_path / "c" / "1").rglob("*") if p.is_file()]
    victim = max(files, key=lambda p: p.stat().st_size)
    content = bytearray(victim.read_bytes())
    if damage == "truncate":
        victim.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        content[len(content) // 2] ^= 1
        victim.write_bytes(content)
    else:
        victim.unlink()
    with pytest.raises(UserError, match=victim.name):
        saved.restore(1, tree)


def test_a_step_without_its_record_is_ignored(tmp_path, tree):
    saved = Checkpoints(tmp_path / "c")
    saved.save(1, tree, {})
    (tmp_path / "c" / "1.json").unlink()
    assert saved.steps() == []
    saved.save(1, tree, {})
    assert len(saved.steps()) == 1
    (tmp_path / "c" / "1.json").write_text(json.dumps({"half": 1})[:5])
    assert saved.steps() == []


def test_leftovers_of_a_kill_are_removed_before_the_next_step(tmp_path, tree):
    saved = Checkpoints(tmp_path / "c")
    saved.save(1, tree, {})
    for name in ("2.orbax-checkpoint-tmp", "2.orbax-checkpoint-tmp-1234", "2"):
        (tmp_path / "c" / name).mkdir()
        (tmp_path / "c" / name / "part").write_text("half")
    saved.save(3, tree, {})
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == [
        "1", "1.json", "3", "3.json",
    ]  # fmt: skip


def test_a_full_disk_is_one_line_without_a_log_and_leaves_nothing(tmp_path, capfd, caplog):
    resource = pytest.importorskip("resource")
    saved = Checkpoints(tmp_path / "c")
    saved.save(1, {"a": jnp.ones(10)}, {})
    numbers = np.random.default_rng(0).normal(size=300_000).astype(np.float32)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A file may not grow beyond this: writing fails as on a full disk, but on any disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        with pytest.raises(UserError) as error:
            saved.save(2, {"a": jnp.asarray(numbers)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    text = str(error.value)
    assert text.startswith(f"cannot write the checkpoint {tmp_path / 'c' / '2'} (")
    assert os.strerror(27) in text
    assert "\n" not in text
    assert capfd.readouterr().err == ""
    logging.getLogger("absl").error("not orbax's")  # which another test may have sent to stderr
    assert [record.getMessage() for record in caplog.records] == ["not orbax's"]
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["1", "1.json"]
    assert [step.number for step in saved.steps()] == [1]


@pytest.mark.parametrize(
    ("error", "is_users"),
    [
        (OSError(28, "No space left on device"), True),
        (ValueError("RESOURCE_EXHAUSTED: write [os_error_code='28']"), True),
        (ValueError("a bug"), False),
        (KeyError("a bug"), False),
    ],
)
def test_orbax_messages_are_logged_unless_the_error_covers_them(
    error, is_users, tmp_path, tree, monkeypatch, caplog
):
    def save(*args, **kwargs):
        logging.getLogger("absl").warning("two hundred lines")
        raise error

    monkeypatch.setattr(checkpoints.ocp, "save", save)
    with pytest.raises(UserError if is_users else type(error)):
        Checkpoints(tmp_path / "c").save(1, tree, {})
    assert [record.getMessage() for record in caplog.records] == (
        [] if is_users else ["two hundred lines"]
    )


def test_orbax_warnings_are_logged_after_success(tmp_path, tree, monkeypatch, caplog):
    save = checkpoints.ocp.save

    def warn(*args, **kwargs):
        logging.getLogger("absl").warning("the disk is slow")
        return save(*args, **kwargs)

    monkeypatch.setattr(checkpoints.ocp, "save", warn)
    Checkpoints(tmp_path / "c").save(1, tree, {})
    assert "the disk is slow" in caplog.text


@pytest.mark.parametrize("content", ["[]", "1", '{"metadata": 3, "sha256": {}}', "{}"])
def test_a_json_file_that_is_not_a_record_is_not_used(content, tmp_path, tree):
    saved = Checkpoints(tmp_path / "c")
    saved.save(1, tree, {})
    (tmp_path / "c" / "1.json").write_text(content)
    assert saved.steps() == []
    (tmp_path / "c" / "1.json").write_text('{"metadata": {}, "sha256": [1]}')
    with pytest.raises(UserError, match="missing or damaged"):
        saved.restore(1, tree)


PROCESS_OF_TWO = """
import os, sys
from pathlib import Path
from cgjax.runtime.processes import start_processes
processes = start_processes(os.environ)
import jax.numpy as jnp
from cgjax.runtime.checkpoints import Checkpoints
saved, tree = Checkpoints(Path(sys.argv[1])), {"a": jnp.arange(5.0)}
for number in (1, 2, 3):
    saved.save(number, tree, {})
    processes.first(lambda: saved.restore(number, tree)["a"].tolist())
assert processes.first(lambda: [step.number for step in saved.steps()]) == [2, 3]
"""


def test_one_of_two_processes_may_restore_between_two_steps(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{probe.getsockname()[1]}"
    env = {**os.environ, "PYTHONPATH": str(ROOT), COORDINATOR: coordinator, PROCESSES: "2"}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS_OF_TWO, str(tmp_path / "c")],
            env={**env, PROCESS: str(index)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    for process in both:
        _, err = process.communicate(timeout=600)  # only so that a test that hangs ends
        assert process.returncode == 0, err
