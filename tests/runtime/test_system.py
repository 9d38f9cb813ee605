"""Everything works without the features that only some systems have."""

import builtins
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cgjax.features.file import FeatureFile
from cgjax.runtime import memory
from cgjax.runtime.command import run_command
from cgjax.runtime.disk import drop_from_page_cache, open_direct, read_at, write_at
from cgjax.runtime.system import is_alive

ROOT = Path(__file__).resolve().parents[2]


def without(monkeypatch, *modules):
    """Make modules missing, as they are on another system."""
    real = builtins.__import__

    def guarded(name, *args, **kwargs):
        if name in modules:
            raise ImportError(f"no module named {name}")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", guarded)


def test_native_windows_gets_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "platform", "win32")
    code = run_command(lambda argv: pytest.fail("must not be reached"))
    monkeypatch.undo()
    err = capsys.readouterr().err
    assert code == 2
    assert err.count("\n") == 1
    assert "WSL" in err


@pytest.mark.parametrize("missing", [(), ("pwritev", "preadv"), ("O_DIRECT", "posix_fadvise")])
def test_files_are_read_and_written_without_what_macos_lacks(missing, tmp_path, monkeypatch):
    for name in missing:
        monkeypatch.delattr(os, name, raising=False)
    with open(tmp_path / "x", "w+b") as file:
        assert write_at(file.fileno(), memoryview(b"abcdef"), 3) == 6
        into = bytearray(4)
        assert read_at(file.fileno(), memoryview(into), 5) == 4
        assert bytes(into) == b"cdef"
        direct = open_direct(file.fileno())
        assert direct is None or missing[:1] != ("O_DIRECT",)
        if direct is not None:
            os.close(direct)
        drop_from_page_cache(file.fileno())
    rows = np.random.default_rng(0).normal(size=(70, 2500)).astype(np.float32)
    features = FeatureFile(tmp_path, 70, 2500, 1024)
    features.direct_io = True
    features.write_rows(0, rows)
    features.flush_and_drop()
    found = np.empty((70, 1024), np.float32)
    features.read_columns(1024, found)
    np.testing.assert_array_equal(found, rows[:, 1024:2048])
    features.close()


def test_without_proc_the_disk_is_read_through_the_page_cache(tmp_path, monkeypatch):
    real = os.open

    def guarded(path, *args, **kwargs):
        if str(path).startswith("/proc"):
            raise FileNotFoundError(2, "No such file or directory", path)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", guarded)
    with open(tmp_path / "x", "w+b") as file:
        assert open_direct(file.fileno()) is None


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 2**20)])
def test_peak_memory_without_proc_is_converted_from_the_systems_unit(platform, unit, monkeypatch):
    import resource

    monkeypatch.setattr(memory, "Path", lambda path: Path("/no/such/place"))
    monkeypatch.setattr(sys, "platform", platform)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert memory.peak_rss_mb() == pytest.approx(peak / unit, rel=0.1)
    memory.reset_peak_rss()


def test_peak_memory_without_the_resource_module_is_unknown(monkeypatch):
    monkeypatch.setattr(memory, "Path", lambda path: Path("/no/such/place"))
    without(monkeypatch, "resource")
    assert memory.peak_rss_mb() == 0.0


def test_a_system_without_glibc_does_not_keep_freed_memory(monkeypatch):
    def missing(name):
        raise OSError("no such library")

    monkeypatch.setattr(memory.ctypes, "CDLL", missing)
    memory.keep_freed_memory()


def test_freed_memory_is_neither_trimmed_nor_mapped_nor_split_in_arenas(monkeypatch):
    told = {}

    class Library:
        def __init__(self, name):
            self.mallopt = told.__setitem__

    monkeypatch.setattr(memory.ctypes, "CDLL", Library)
    memory.keep_freed_memory()
    # M_MMAP_MAX, M_TRIM_THRESHOLD and M_ARENA_MAX of malloc.h.
    assert told == {-4: 0, -1: 2**31 - 1, -8: 1}


def test_a_process_that_ended_is_not_alive():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert is_alive(os.getpid())
    assert not is_alive(child.pid)


def run_shell(command):
    return subprocess.run(
        ["sh", "-c", command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )


def test_files_never_get_the_descriptors_of_closed_streams():
    code = """
import os
from cgjax.runtime.system import open_standard_streams
open_standard_streams()
file = os.open("/dev/null", os.O_RDONLY)
print("said to nobody")
os._exit(10 + file)
"""
    for closed, lowest in (("", 13), (">&- 2>&-", 13), ("<&-", 13), ("2>&-", 13)):
        done = run_shell(f"\"$PYTHON\" -c '{code}' {closed}")
        assert done.returncode >= lowest, closed


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's full device")
def test_a_full_disk_under_stdout_is_one_line_and_exit_2():
    done = run_shell('"$PYTHON" -m cgjax.main --help > /dev/full')
    assert done.returncode == 2
    assert done.stderr == "error: cannot write to standard output: No space left on device\n"


def test_a_closed_pipe_on_stdout_causes_no_traceback():
    done = run_shell('{ "$PYTHON" -m cgjax.main --help; echo $? >&2; } | true')
    # Either all was written before the reader was gone or the system's own code for it.
    assert done.stderr in ("0\n", "141\n")


def test_closed_streams_do_not_stop_a_command():
    assert run_shell('"$PYTHON" -m cgjax.main --help >&- 2>&-').returncode == 0
