"""A file is hashed once, and again whenever it may have changed."""

import hashlib
import os
import time

import pytest

from cgjax.run import hashes
from cgjax.run.hashes import FileHashes


@pytest.fixture
def hashed(monkeypatch):
    """The files that were hashed so far."""
    paths = []

    def sha256_of_open(file):
        paths.append(os.path.basename(file.name))
        return hashlib.sha256(file.read()).hexdigest()

    monkeypatch.setattr(hashes, "sha256_of_open", sha256_of_open)
    return paths


def settle(monkeypatch):
    later = time.time_ns() + 2 * hashes.SETTLED_NS
    monkeypatch.setattr(hashes.time, "time_ns", lambda: later)


def test_a_file_that_stays_as_it_is_is_hashed_once(tmp_path, hashed, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    settle(monkeypatch)
    known = FileHashes()
    assert known.of(path) == known.of(path) == hashlib.sha256(b"content").hexdigest()
    assert hashed == ["file"]


def test_a_file_that_was_written_just_now_is_hashed_again(tmp_path, hashed):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    known = FileHashes()
    assert known.of(path) == known.of(path)
    assert hashed == ["file", "file"]


def test_a_file_that_was_written_just_before_a_long_reading_is_hashed_again(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    now = [path.stat().st_mtime_ns]
    read = hashes.sha256_of_open

    def read_for_long(file):
        content = read(file)
        now[0] += 2 * hashes.SETTLED_NS
        return content

    monkeypatch.setattr(hashes.time, "time_ns", lambda: now[0])
    monkeypatch.setattr(hashes, "sha256_of_open", read_for_long)
    known, times = FileHashes(), path.stat()
    known.of(path)
    # Written in the same tick of the clock: every time of the file is as it was.
    path.write_bytes(b"CONTENT")
    monkeypatch.setattr(hashes, "_stamp", lambda _: stamp_of(times))
    assert known.of(path) == hashlib.sha256(b"CONTENT").hexdigest()


def test_the_times_are_those_of_the_opened_file(tmp_path, monkeypatch):
    """A network file system may answer for a closed file from a cache."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    settle(monkeypatch)
    known, cached = FileHashes(), path.stat()
    known.of(path)
    time.sleep(0.02)
    path.write_bytes(b"CONTENT")
    with monkeypatch.context() as patch:
        patch.setattr(hashes.os, "stat", lambda *args, **options: cached)
        assert known.of(path) == hashlib.sha256(b"CONTENT").hexdigest()


def stamp_of(stat):
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def replace(path):
    other = path.with_name("other")
    other.write_bytes(b"CONTENT")
    os.replace(other, path)


def edit(path):
    path.write_bytes(b"CONTENT")


def edit_and_restore_its_time(path):
    stat = path.stat()
    path.write_bytes(b"CONTENT")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("change", [replace, edit, edit_and_restore_its_time])
def test_a_changed_file_of_the_same_size_has_another_hash(change, tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    settle(monkeypatch)
    known = FileHashes()
    before = known.of(path)
    time.sleep(0.02)  # more than a tick of the file system's clock
    change(path)
    assert known.of(path) == hashlib.sha256(b"CONTENT").hexdigest() != before


def test_a_file_that_is_gone_is_an_error(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    settle(monkeypatch)
    known = FileHashes()
    known.of(path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        known.of(path)
