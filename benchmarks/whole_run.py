"""Time and memory of a whole run from a new process, stage by stage, and of sampling from it.

    python benchmarks/whole_run.py [--config.latents.num=...]

The run of `configs/dcgan_pose.py` has no peer. docs/results.md has the table. Arguments
are passed on to the command line of the run.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import timing

ROOT = Path(__file__).resolve().parents[1]


def run(*args: str) -> float:
    """Run cgjax with these arguments and return the seconds that it took."""
    start = time.monotonic()
    command = [sys.executable, "-m", "cgjax.main", *args]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if finished.returncode:
        sys.exit(finished.stderr)
    return time.monotonic() - start


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder) / "run"
        load = os.getloadavg()[0]
        wall = run("--config=configs/dcgan_pose.py", f"--workdir={workdir}", *sys.argv[1:])
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        summary = json.loads((workdir / "summary.json").read_text())
        sampling = run("--mode=sample", f"--workdir={workdir}", f"--out={folder}/samples")
    print(f"{timing.processor()}, load {load:.1f}")
    print(f"{'stage':<12}{'seconds':>10}{'peak MB':>10}")
    for name, cost in summary["stages"].items():
        print(f"{name:<12}{cost['seconds']:>10.1f}{cost['peak_rss_mb']:>10.0f}")
    print(f"{'whole run':<12}{wall:>10.1f}{peak:>10.0f}   (wall, start-up included)")
    print(f"{'64 samples':<12}{sampling:>10.1f}            (a new process, from the checkpoint)")
    print(f"shares {summary['shares']}, inertia {summary['inertia']}")
    for name, numbers in summary["samplers"].items():
        for c in range(summary["num_clusters"]):
            if numbers["frechet"][c] is None:
                print(f"{name} cluster {c}: left out")
                continue
            columns = ("membership", "frechet", "frechet_verified", "frechet_floor", "norm_ratio")
            values = ", ".join(f"{column} {numbers[column][c]:.3f}" for column in columns)
            print(f"{name} cluster {c}: {values}")


if __name__ == "__main__":
    main()
