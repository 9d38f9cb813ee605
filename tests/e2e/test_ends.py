"""Commands that meet another: two at once, a removed folder, kept programs."""

import shutil
import signal
import time

import pytest

from cgjax.runtime.lock import LOCK_FILE
from tests.e2e.command import cgjax, environment, errors, start

SMALL = (
    "--config=configs/tiny.py:quick",
    "--config.latents.num=200",
    "--config.sample.num=2",
    "--config.evaluate.num=16",
    "--config.evaluate.components=4",
    "--config.evaluate.prior_images=32",
    "--config.samplers.flow.fit=false",
    "--config.sample.sampler=imle",
)


def wait_until(is_so, process):
    while not is_so():
        if process.poll() is not None:
            pytest.fail(f"ended before: {process.communicate()[1]}")
        time.sleep(0.02)


def test_the_second_of_two_commands_in_one_folder_names_the_first_which_resumes_after_a_kill(
    tmp_path,
):
    workdir = tmp_path / "run"
    first = start(*SMALL, f"--workdir={workdir}")
    wait_until((workdir / LOCK_FILE).is_file, first)
    wait_until((workdir / "config.json").is_file, first)
    first.send_signal(signal.SIGSTOP)  # so that it does not end while the second looks
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    second = cgjax(*SMALL, f"--workdir={workdir}")
    assert second.returncode == 2
    (line,) = errors(second.stderr)
    assert f"being written by another command (process {first.pid} on " in line
    assert before == {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    first.send_signal(signal.SIGKILL)
    first.communicate()
    third = cgjax(*SMALL, f"--workdir={workdir}")
    assert third.returncode == 0, third.stderr
    assert not (workdir / LOCK_FILE).exists()


def test_removing_the_folder_during_a_run_is_one_line_and_exit_2(tmp_path):
    workdir = tmp_path / "run"
    process = start(*SMALL, f"--workdir={workdir}")
    wait_until((workdir / "config.json").is_file, process)
    process.send_signal(signal.SIGSTOP)
    shutil.rmtree(workdir)
    process.send_signal(signal.SIGCONT)
    _, err = process.communicate()
    assert process.returncode == 2
    (line,) = errors(err)
    assert line.startswith(f"error: --workdir={workdir} was removed or replaced")


def test_the_second_command_compiles_nothing_and_makes_the_same_bytes(tmp_path):
    env = environment()
    for name in [name for name in env if name.startswith("JAX_") or name == "XLA_FLAGS"]:
        del env[name]
    env |= {"JAX_PLATFORMS": "cpu", "CGJAX_CACHE": str(tmp_path / "cache")}
    ends = {}
    commands = {
        "first": (*SMALL, f"--workdir={tmp_path / 'first'}"),
        "second": (*SMALL, f"--workdir={tmp_path / 'second'}"),
        "none": (*SMALL, "--mode=check", "--nocompilation_cache"),
    }
    for name, arguments in commands.items():
        done = cgjax(*arguments, env=env)
        assert done.returncode == 0, done.stderr
        ends[name] = next(line for line in done.stderr.splitlines() if "programs compiled" in line)
    assert " 0 loaded" in ends["first"]
    assert " 0 programs compiled" in ends["second"]
    assert " 0 loaded" not in ends["second"]
    assert " 0 loaded" in ends["none"]
    assert " 0 programs compiled" not in ends["none"]

    def content(name):
        paths = [tmp_path / name / "clusters.npz", *(tmp_path / name / "samples").rglob("*.*")]
        return {str(path.relative_to(tmp_path / name)): path.read_bytes() for path in paths}

    assert content("first") == content("second")
