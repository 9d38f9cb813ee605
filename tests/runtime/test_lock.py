"""Only one command writes to a folder; a dead one blocks nobody."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cgjax.errors import Interrupted, UserError
from cgjax.runtime import lock as locks
from cgjax.runtime.lock import LOCK_FILE, FolderLock, wait_for_lock

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import sys
from cgjax.runtime import lock as locks
if sys.argv[2] == "no flock":
    locks.fcntl = None
with locks.FolderLock(sys.argv[1]) as lock:
    lock.acquire()
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=["flock", "no flock"])
def kind(request, monkeypatch):
    """Run with the system's locks and without them."""
    if request.param == "no flock":
        monkeypatch.setattr(locks, "fcntl", None)
    return request.param


@pytest.fixture
def other(kind, tmp_path):
    """Another process that holds the lock of `tmp_path`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path), kind],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_command_names_the_writer_in_one_line(other, tmp_path):
    with FolderLock(tmp_path) as lock:
        for refused in (lock.refuse_if_taken, lock.acquire):
            with pytest.raises(UserError) as error:
                refused()
            text = str(error.value)
            assert f"--workdir={tmp_path} is being written by another command" in text
            assert f"process {other.pid} on {socket.gethostname()}, since 20" in text
            assert "\n" not in text
    assert other.poll() is None
    assert (tmp_path / LOCK_FILE).exists(), "it is the other's"


def test_a_killed_process_blocks_nobody(other, tmp_path):
    other.send_signal(signal.SIGKILL)
    other.wait()
    with FolderLock(tmp_path) as lock:
        lock.refuse_if_taken()
        lock.acquire()
        lock.check()
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_a_normal_exit_leaves_no_lock_file(other, tmp_path):
    other.communicate("")
    assert other.returncode == 0
    assert not list(tmp_path.iterdir())
    with FolderLock(tmp_path) as lock:
        lock.acquire()
    with FolderLock(tmp_path) as lock:
        lock.acquire()


def test_a_holder_on_another_machine_is_named_as_such(monkeypatch, tmp_path):
    monkeypatch.setattr(locks, "fcntl", None)
    holder = {"pid": 7, "host": "node9", "since": "2026-01-01 00:00:00"}
    (tmp_path / LOCK_FILE).write_text(json.dumps(holder))
    with FolderLock(tmp_path) as lock, pytest.raises(UserError) as error:
        lock.acquire()
    assert "process 7 on node9" in str(error.value)
    assert f"remove {tmp_path / LOCK_FILE}" in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[1]", b'{"pid": "x"}'])
def test_a_damaged_lock_file_blocks_nobody(content, kind, tmp_path):
    (tmp_path / LOCK_FILE).write_bytes(content)
    with FolderLock(tmp_path) as lock:
        lock.acquire()


def test_a_folder_that_was_never_locked_is_not_touched(tmp_path):
    with FolderLock(tmp_path / "new") as lock:
        lock.refuse_if_taken()
        lock.check()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_created_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("")
    with FolderLock(tmp_path / "file" / "run") as lock, pytest.raises(UserError, match="--workdir"):
        lock.acquire()


@pytest.mark.parametrize("ending", [None, OSError("gone"), Interrupted("saved"), UserError("x")])
@pytest.mark.parametrize("again", [False, True], ids=["gone", "made again"])
def test_a_removed_folder_is_reported_in_place_of_later_errors(ending, again, tmp_path):
    root = tmp_path / "run"

    def work():
        with FolderLock(root) as lock:
            lock.acquire()
            shutil.rmtree(root)
            if again:
                (root / "samples").mkdir(parents=True)
            with pytest.raises(UserError, match="was removed"):
                lock.check()
            if ending is not None:
                raise ending

    with pytest.raises(UserError, match=f"--workdir={root} was removed or replaced"):
        work()


def test_waiting_for_a_lock_says_so_once_and_ends(tmp_path):
    path, said = tmp_path / "x.lock", []
    with wait_for_lock(path, lambda: said.append("waiting")):
        pass
    assert not said
    code = HOLD.replace("locks.FolderLock(sys.argv[1]) as lock", "locks.wait_for_lock(path, print)")
    code = code.replace("    lock.acquire()\n", "").replace("with ", "path = sys.argv[1]\nwith ")
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path), "flock"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"

    def end_the_other():
        said.append("waiting")
        process.kill()
        process.communicate()

    with wait_for_lock(path, end_the_other):
        pass
    assert said == ["waiting"]
