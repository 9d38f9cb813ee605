"""How the time of each stage grows with the number of latents, their length, clusters, processes.

    python benchmarks/growth.py --part=sizes [--reps=3]
    python benchmarks/growth.py --part=processes

`sizes`: encoding with the embedded generator up to layer2, k-means on unit-normal features, and an
epoch of IMLE and of the flow. Starting from a base, each of n, d and C is doubled twice. Printed
are the median seconds beside those of the base, and the exponent p of seconds ~ size^p over the two
doublings.
`processes`: the stages of whole runs started by launch/local.py, with one process on one core, one
on two, and two on one core each.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import timing

from cgjax.clustering import kmeans
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.generators.registry import load_generator
from cgjax.samplers.base import group_members
from cgjax.samplers.flow import Flow
from cgjax.samplers.imle import Imle

ROOT = Path(__file__).resolve().parents[1]
BASE = {"n": 2048, "d": 64, "C": 2}
GROWTH = {name: [value << i for i in range(3)] for name, value in BASE.items()}


def encode(n: int, d: int, C: int) -> Callable[[], Any]:
    generator = ConditionedGenerator(load_generator("dcgan_faces"), "layer2", {}, 128)
    z = np.asarray(generator.sample_latents(jax.random.key(0), n // 4))
    return lambda: generator.all_features(z)


def cluster(n: int, d: int, C: int) -> Callable[[], Any]:
    y = jax.random.normal(jax.random.key(0), (n, 16 * d), jnp.float32)
    options = {"key": jax.random.key(1), "num_init": 10, "max_iter": 10, "tol": 0.0}
    return lambda: np.asarray(kmeans(y, C, **options).labels)


def train(sampler: Any, n: int, d: int, C: int) -> Callable[[], Any]:
    z = np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)
    members = group_members(z, np.arange(n) % C, C, margins=np.ones(n))
    state = sampler.init(jax.random.key(0), members)

    def epoch() -> None:
        nonlocal state
        state, metrics = sampler.epoch(state, members, jax.random.key(1), 0)
        jax.block_until_ready((state, metrics))

    return epoch


def imle(n: int, d: int, C: int) -> Callable[[], Any]:
    return train(Imle(d, hidden_dim=128), n, d, C)


def flow(n: int, d: int, C: int) -> Callable[[], Any]:
    return train(Flow(d, hidden_dim=256), n, d, C)


# Encoding depends on neither d, which the generator fixes, nor C.
STAGES = {"encode": (encode, "n"), "k-means": (cluster, "ndC"), "imle": (imle, "ndC")}
STAGES["flow"] = (flow, "ndC")


def sizes(reps: int) -> None:
    print(timing.processor())
    print(f"base {BASE}; encode has n/4 latents, k-means 16 d features")
    for stage, (make, axes) in STAGES.items():
        for axis in axes:
            calls = {}
            for value in GROWTH[axis]:
                calls[str(value)] = make(**{**BASE, axis: value})
            seconds = list(timing.medians(calls, reps).values())
            power = math.log2(seconds[-1] / seconds[0]) / 2
            shown = "  ".join(f"{s * 1e3:9.1f}" for s in seconds)
            print(
                f"{stage:8} {axis} = {GROWTH[axis]!s:20} ms {shown}   p = {power:.2f}", flush=True
            )


def processes() -> None:
    arguments = ["--config=configs/dcgan_pose.py:quick", "--config.latents.num=3000"]
    arguments += ["--config.cluster.num_init=10", "--config.cluster.tol=0.0"]
    arguments += ["--config.samplers.imle.num_epochs=12", "--config.samplers.flow.num_latents=3000"]
    arguments += ["--config.samplers.flow.num_epochs=12"]
    cores = sorted(os.sched_getaffinity(0))
    print(
        f"{'processes x cores':20}{'encode':>10}{'cluster':>10}{'imle epoch':>12}{'flow epoch':>12}"
    )
    for num, used in ((1, cores[:1]), (1, cores[:2]), (2, cores[:2])):
        with tempfile.TemporaryDirectory() as folder:
            os.sched_setaffinity(0, used)
            command = [sys.executable, "launch/local.py", f"--processes={num}", "--", *arguments]
            command += [f"--workdir={folder}"]
            env = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
            subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True)
            os.sched_setaffinity(0, cores)
            summary = json.loads((Path(folder) / "summary.json").read_text())
            stages = [summary["stages"][name]["seconds"] for name in ("encode", "cluster")]
            lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
            epochs = [e for e in map(json.loads, lines) if e.get("sampler")]
            each = [median_epoch(epochs, name) for name in ("imle", "flow")]
        print(
            f"{f'{num} x {len(used) // num}':20}{stages[0]:>10.2f}{stages[1]:>10.2f}"
            f"{each[0]:>12.3f}{each[1]:>12.3f}",
            flush=True,
        )


def median_epoch(lines: list[dict[str, Any]], sampler: str) -> float:
    """Return the median seconds between two epochs' lines, without the first, which compiles."""
    times = [line["time"] for line in lines if line["sampler"] == sampler and "epoch" in line]
    return float(np.median(np.diff(times)[1:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("sizes", "processes"), required=True)
    parser.add_argument("--reps", type=int, default=3)
    options = parser.parse_args()
    if options.part == "sizes":
        sizes(options.reps)
    else:
        processes()


if __name__ == "__main__":
    main()
