"""Compiled programs are kept complete, within a size limit, where only their user can write."""

import os
import subprocess
import sys
import time
import warnings
import zlib
from pathlib import Path

import jax
import pytest

from cgjax.runtime import cache
from cgjax.runtime.cache import keep_programs

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache folder, and JAX without its own cache."""
    before = {name: jax.config.values[name] for name in SETTINGS}
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setenv("CGJAX_CACHE", str(tmp_path / "cache"))
    with warnings.catch_warnings():
        yield tmp_path / "cache"
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture
def warned(monkeypatch):
    said = []
    monkeypatch.setattr(cache.logging, "warning", lambda text, *args: said.append(text % args))
    return said


def test_programs_are_kept_in_a_folder_of_user_versions_and_processor(folder, warned):
    found = keep_programs()
    assert found.parent.parent == folder / "programs"
    assert found.parent.name.startswith("user")
    assert jax.__version__ in found.name
    assert jax.config.values["jax_compilation_cache_dir"] == str(found)
    assert found.parent.stat().st_mode & 0o077 == 0
    assert not warned


def test_a_different_processor_gets_its_own_folder(folder, monkeypatch):
    def processor(text):
        if text is None:
            monkeypatch.setattr(cache, "Path", lambda path: folder / "no such file")
        else:
            (folder.parent / "cpuinfo").write_text(text)
            monkeypatch.setattr(cache, "Path", lambda path: folder.parent / "cpuinfo")
        cache._processor.cache_clear()
        return cache._processor()

    try:
        flags = [None, "flags\t: avx avx2\n", "flags\t: avx avx2 avx512f\n", "Features\t: asimd\n"]
        assert len({processor(text) for text in flags}) == 4
        assert processor("flags\t: avx\nbogomips\t: 1\n") == processor("flags\t: avx\n\n")
    finally:
        cache._processor.cache_clear()


def test_a_cache_that_the_user_has_set_is_left_alone(folder, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "mine"))
    assert keep_programs() is None
    assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path / "mine")
    assert not folder.exists()


@pytest.mark.parametrize("kind", ["a file", "below a file", "written by others"])
def test_a_folder_that_cannot_be_used_is_one_warning(kind, folder, warned, monkeypatch):
    if kind == "written by others":
        keep_programs().parent.chmod(0o777)
        jax.config.update("jax_compilation_cache_dir", None)
    elif kind == "a file":
        folder.write_text("")
    else:
        (folder.parent / "file").write_text("")
        monkeypatch.setenv("CGJAX_CACHE", str(folder.parent / "file" / "cache"))
    assert keep_programs() is None
    assert len(warned) == 1
    assert "CGJAX_CACHE" in warned[0]
    assert jax.config.values["jax_compilation_cache_dir"] is None


def entry(path, size=100, age_s=0.0):
    path.write_bytes(zlib.compress(os.urandom(size)))
    then = time.time() - age_s
    os.utime(path, (then, then))
    return path


def again(folder):
    jax.config.update("jax_compilation_cache_dir", None)
    return keep_programs()


def test_half_written_entries_are_removed(folder):
    found = keep_programs()
    whole = entry(found / "jit_a-1-cache")
    half = entry(found / "jit_b-2-cache")
    half.write_bytes(half.read_bytes()[:50])
    empty = found / "jit_c-3-cache"
    empty.touch()
    zstandard = found / "jit_d-4-cache"
    zstandard.write_bytes(b"\x28\xb5\x2f\xfd" + b"half of one")
    again(folder)
    assert whole.exists()
    assert not any(path.exists() for path in (half, empty, zstandard))


def test_beyond_the_limit_the_least_recently_used_programs_are_removed(folder, monkeypatch):
    found = keep_programs()
    paths = [entry(found / f"jit_{i}-cache", 2**18, age_s=1000.0 - i) for i in range(8)]
    os.utime(paths[0])  # used just now
    monkeypatch.setattr(cache, "PROGRAMS_MB", 1)
    again(folder)
    assert [path.exists() for path in paths] == [True, *[False] * 5, True, True]


def test_unused_versions_are_removed(folder):
    found = keep_programs()
    for name, days in (("cgjax-old", cache.KEPT_DAYS + 1), ("cgjax-recent", 1)):
        other = found.parent / name
        other.mkdir()
        (other / cache._CHECKED).touch()
        entry(other / "jit_x-cache")
        for path in (other / cache._CHECKED, other):
            os.utime(path, (time.time() - days * 86400,) * 2)
    again(folder)
    assert sorted(path.name for path in found.parent.iterdir()) == sorted(
        [found.name, "cgjax-recent"]
    )


def test_a_version_that_another_process_removes_meanwhile_costs_nothing(
    folder, warned, monkeypatch
):
    found = keep_programs()
    other = found.parent / "cgjax-old"
    other.mkdir()
    exists = Path.exists

    def exists_for_now(path):
        is_there = exists(path)
        if path == other:
            other.rmdir()
        return is_there

    monkeypatch.setattr(Path, "exists", exists_for_now)
    again(folder)
    assert jax.config.values["jax_compilation_cache_dir"] == str(found)
    assert not warned


WORK = """
import sys, warnings
import jax
from cgjax.runtime.cache import CompileCounter, keep_programs
assert keep_programs() is not None
counter = CompileCounter()
sys.stdin.readline()
total = sum(float(jax.jit(lambda x, i=i: (x * i).sum() + i)(jax.numpy.ones(9))) for i in range(20))
print(total, *counter.counts())
"""


def test_two_processes_write_the_same_programs_at_once_and_a_third_compiles_none(tmp_path):
    names = ("JAX_COMPILATION_CACHE_DIR", "XLA_FLAGS")
    env = {name: value for name, value in os.environ.items() if name not in names}
    env |= {"CGJAX_CACHE": str(tmp_path), "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}

    def start():
        return subprocess.Popen(
            [sys.executable, "-c", WORK],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(process):
        out, err = process.communicate("go\n")
        assert process.returncode == 0, err
        assert not err
        total, compiled, loaded = out.split()
        return float(total), int(compiled), int(loaded)

    both = [start(), start()]
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    found = [end(process) for process in both]
    assert found[0][0] == found[1][0]
    assert all(compiled + loaded >= 20 for _, compiled, loaded in found)
    total, compiled, loaded = end(start())
    assert total == found[0][0]
    assert compiled == 0
    assert loaded == sum(found[0][1:])


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o720])
def test_a_folder_that_a_group_or_others_can_write_is_refused(mode, tmp_path):
    folder = tmp_path / "own"
    cache._make_private(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(mode)
    with pytest.raises(PermissionError, match="written by other users"):
        cache._make_private(folder)


@pytest.mark.parametrize("newer", [".", cache._CHECKED])
def test_a_version_is_in_use_while_either_of_its_times_is_recent(newer, tmp_path):
    version = tmp_path / "cgjax-used"
    version.mkdir()
    (version / cache._CHECKED).touch()
    for path in (version / cache._CHECKED, version):
        os.utime(path, (time.time() - 2 * cache.KEPT_DAYS * 86400,) * 2)
    os.utime(version / newer)
    cache._remove_old(tmp_path)
    assert version.exists()
