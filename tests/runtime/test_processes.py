"""The launcher's variables are read, and one process needs none of them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cgjax.errors import UserError
from cgjax.runtime.address import COORDINATOR, PROCESS, PROCESSES, read_address
from cgjax.runtime.processes import Processes
from cgjax.runtime.signals import Interrupts

ROOT = Path(__file__).resolve().parents[2]
GOOD = {COORDINATOR: "node7:9876", PROCESSES: "4", PROCESS: "3"}


def test_without_the_variables_there_is_one_process():
    assert read_address({"HOME": "/root"}) is None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({COORDINATOR: ""}, f"{COORDINATOR} is not set"),
        ({PROCESS: ""}, f"{PROCESS} is not set"),
        ({COORDINATOR: "node7"}, "expected host:port"),
        ({COORDINATOR: ":9876"}, "expected host:port"),
        ({PROCESS: "4"}, "from 0 to below"),
        ({PROCESS: "-1"}, "from 0 to below"),
        ({PROCESSES: "four"}, "from 0 to below"),
        ({PROCESSES: "9" * 5000}, "from 0 to below"),
        ({PROCESS: "²"}, "from 0 to below"),
    ],
)
def test_a_launchers_mistake_names_the_variable(change, expected):
    with pytest.raises(UserError, match=expected):
        read_address({**GOOD, **change})


@pytest.mark.parametrize("num", [0, 1, 5, 8, 64])
@pytest.mark.parametrize("pieces", [0, 1, 7, 8])
def test_shares_cover_all_items_once_and_in_order(pieces, num):
    processes = [Processes(index, max(1, num)) for index in range(max(1, num))]
    shares = [list(p.share(pieces)) for p in processes]
    assert [piece for share in shares for piece in share] == list(range(pieces))
    assert max(map(len, shares)) == processes[0].largest_share(pieces)


def test_one_process_acts_on_its_own():
    one = Processes()
    assert one.is_first
    assert one.first(lambda: [1]) == [1]
    assert one.send(b"x") == b"x"
    assert one.any(True)
    assert not one.any(False)
    rows = np.ones((2, 3), np.float32)
    assert one.gather(rows) is rows
    assert not Interrupts().agreed()


def test_a_signal_while_the_launcher_starts_its_processes_ends_them_too():
    code = """
import os, signal, subprocess, sys
from types import SimpleNamespace
from cgjax.runtime.command import run_command
from launch import local
def start(num, arguments):
    os.kill(os.getpid(), signal.SIGINT)
    sleeping = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    return [SimpleNamespace(process=sleeping)]
local.start = start
sys.exit(run_command(local.main))
"""
    command = [sys.executable, "-c", code, "--processes=1", "--"]
    assert subprocess.run(command, cwd=ROOT, timeout=20, check=False).returncode == 130


def test_the_launcher_counts_the_gpus_that_cuda_shows():
    code = """
from launch.local import count_gpus
print([count_gpus({"CUDA_VISIBLE_DEVICES": shown}) for shown in ("", "-1", "0,2", "3,-1,5")])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert done.stdout == b"[0, 0, 2, 1]\n"


def test_the_slurm_script_starts_every_task_with_its_variables(tmp_path):
    for name, body in {
        # More than a pipe holds: whoever reads the first line only must not end it.
        "scontrol": "seq -f node%.0f 7 40000",
        # What srun does, for the second task of the first node.
        "srun": 'shift; SLURM_PROCID=1 SLURM_LOCALID=1 exec "$@"',
        "python": 'echo "$@"; env | grep -E "^(CGJAX|JAX_LOCAL)" | sort',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    variables = {"SLURM_JOB_NODELIST": "node[7-8]", "SLURM_JOB_ID": "20123", "SLURM_NTASKS": "16"}
    done = subprocess.run(
        ["bash", "launch/slurm.sbatch", "--config=configs/tiny.py", "--workdir=/shared/a b"],
        cwd=ROOT,
        env={**os.environ, **variables, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        "-m cgjax.main --config=configs/tiny.py --workdir=/shared/a b",
        "CGJAX_COORDINATOR=node7:20123",
        "CGJAX_PROCESS=1",
        "CGJAX_PROCESSES=16",
        "JAX_LOCAL_DEVICE_IDS=1",
    ]
