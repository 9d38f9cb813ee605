"""Several real processes on this machine give the result of one, and end together."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import cgjax as library
from cgjax.errors import UserError
from cgjax.run.run import Run
from cgjax.runtime.signals import SIGNALS, on_interrupt
from launch import local
from tests.e2e.command import ROOT, cgjax, environment, untrained
from tests.xla_flags import FOUR_DEVICES, QUICK

ARGUMENTS = (
    "--config=configs/tiny.py:quick",
    "--config.latents.num=333",
    "--config.cluster.max_samples=299",  # divides by nothing, and the other 34 are assigned
    "--config.sample.num=2",
    "--config.evaluate.num=16",
    "--config.evaluate.components=4",
    "--config.evaluate.prior_images=32",
)


# Only so that a test that hangs ends: nothing is expected within it.
HANGS_S = 600


def launch(workdir: Path, *more: str, num: int = 2) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable,
            "launch/local.py",
            f"--processes={num}",
            "--",
            *ARGUMENTS,
            *more,
            f"--workdir={workdir}",
        ],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("one") / "run"
    done = cgjax(*ARGUMENTS, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    return workdir


def wait_for_training(workdir: Path, process: subprocess.Popen[str]) -> None:
    metrics = workdir / "metrics.jsonl"
    while process.poll() is None:
        if metrics.is_file() and '"epoch": ' in metrics.read_text():
            return
        time.sleep(0.02)
    pytest.fail(f"ended before it trained: {process.communicate()[1]}")


def process_of(launcher: subprocess.Popen[str], index: int) -> int:
    """Return the process id of one of the launcher's processes."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            variables = (folder / "environ").read_bytes().split(b"\0")
            if int(parent) == launcher.pid and f"CGJAX_PROCESS={index}".encode() in variables:
                return int(folder.name)
    raise AssertionError(f"no process {index}")


def assert_same_clusters(a: Run, b: Run) -> None:
    """Check for equal labels, and for equal numbers up to the rounding of reordered sums."""
    np.testing.assert_array_equal(a.latents, b.latents)
    for field in ("labels", "shares"):
        np.testing.assert_array_equal(getattr(a.clustering, field), getattr(b.clustering, field))
    for field in ("centroids", "margins"):
        np.testing.assert_allclose(
            getattr(a.clustering, field), getattr(b.clustering, field), rtol=1e-5, atol=1e-6
        )


def assert_same_run(found: Path, expected: Path) -> None:
    """Check for the same clusters, samplers and files."""
    a, b = (library.load_run(path) for path in (found, expected))
    assert_same_clusters(a, b)
    for name in ("imle", "flow"):
        states = [jax.tree.leaves(run.samplers.fitted(name).state) for run in (a, b)]
        for x, y in zip(*states, strict=True):
            # Adam divides by the root of tiny moments, which magnifies the rounding of near-zero
            # gradients to a small part of a step of 1e-3: as in tests/samplers/test_devices.py.
            np.testing.assert_allclose(x, y, atol=1e-4)
    names = [
        sorted(
            str(p.relative_to(path))
            for p in path.rglob("*.*")
            # The names of their files are new for every process.
            if not {"checkpoints", "tensorboard"} & set(p.parts)
        )
        for path in (found, expected)
    ]
    assert names[0] == names[1]


def test_two_processes_give_the_result_of_one(one, tmp_path):
    process = launch(tmp_path / "run", "--config.cluster.memory_mb=0")
    out, err = process.communicate(timeout=HANGS_S)
    assert process.returncode == 0, err
    assert "do not fit" in err
    assert "process 0 of 2" in err
    assert err.count("encode: started") == 1
    assert out.count("report: ") == 1
    assert_same_run(tmp_path / "run", one)


def test_two_processes_cluster_in_memory_as_one_does(one, tmp_path):
    # What follows does not know how the clusters were found.
    unlearnt = [f"--config.samplers.{name}.fit=false" for name in ("imle", "flow")]
    process = launch(tmp_path / "run", *unlearnt, "--config.sample.sampler=rejection")
    out, err = process.communicate(timeout=HANGS_S)
    assert process.returncode == 0, err
    assert "do not fit" not in err
    assert err.count("encode: started") == 1
    assert out.count("report: ") == 1
    assert_same_clusters(*(library.load_run(path) for path in (tmp_path / "run", one)))


def test_three_devices_give_the_result_of_one(one, tmp_path):
    workdir = untrained(one, tmp_path / "run")
    (workdir / "stages" / "cluster.json").unlink()
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "cgjax.main",
            *ARGUMENTS,
            "--devices=3",
            f"--workdir={workdir}",
        ],
        cwd=ROOT,
        env={**environment(), "XLA_FLAGS": f"{QUICK} {FOUR_DEVICES}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "encode: started" in done.stderr
    assert_same_run(workdir, one)


def test_killing_one_of_two_ends_the_other_and_one_process_takes_over(one, tmp_path):
    workdir = untrained(one, tmp_path / "run")
    process = launch(workdir)
    wait_for_training(workdir, process)
    os.kill(process_of(process, 1), signal.SIGKILL)
    _, err = process.communicate(timeout=HANGS_S)
    assert process.returncode == 1
    assert "error: process 1 was killed by SIGKILL and the others were ended" in err
    assert "fit: started" in err
    assert "evaluate: started" not in err
    done = cgjax(*ARGUMENTS, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    assert "encode: started" not in done.stderr
    assert_same_run(workdir, one)


def test_sigterm_to_the_launcher_saves_at_the_same_epoch_everywhere_and_exits_130(one, tmp_path):
    workdir = untrained(one, tmp_path / "run")
    process = launch(workdir)
    wait_for_training(workdir, process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=HANGS_S)
    assert process.returncode == 130, err
    assert "is saved at epoch" in err
    assert "encode: started" not in err
    assert list((workdir / "checkpoints").glob("*/*.json"))


def test_a_users_mistake_is_the_same_one_line_as_in_one_process(tmp_path):
    process = launch(tmp_path)
    (tmp_path / "thesis.tex").write_text("years of work")
    _, err = process.communicate(timeout=HANGS_S)
    assert process.returncode == 2
    assert [line for line in err.splitlines() if line.startswith("error: ")] == [
        f"error: --workdir={tmp_path} exists and is not a cgjax run folder; name another one"
    ]
    assert "Traceback" not in err


@pytest.mark.parametrize("arguments", [[], ["--processes=0"], ["--processes=many"]])
def test_a_launcher_without_a_number_of_processes_says_so_in_one_line(arguments):
    done = subprocess.run(
        [sys.executable, "launch/local.py", *arguments],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "processes" in done.stderr


def test_if_a_process_cannot_be_started_those_before_it_are_ended(monkeypatch):
    monkeypatch.setattr(local, "_PROCESSES", SimpleNamespace(value=3))
    started = []

    class Child(local.Child):
        def __init__(self, index, *_):
            if index == 2:
                raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
            self.process = subprocess.Popen(["sleep", str(HANGS_S)])
            started.append(self.process)

    monkeypatch.setattr(local, "Child", Child)
    with (
        on_interrupt(signal.SIG_DFL, SIGNALS),  # puts back what the launcher replaces
        pytest.raises(UserError, match=r"processes=3: process 2 cannot be started \(Resource"),
    ):
        local.main(["local.py"])
    assert [process.wait() for process in started] == [-signal.SIGKILL] * 2
