"""Images a second and peak memory of a forward pass, beside the same operations in PyTorch.

    python benchmarks/generators.py  # PGAN-256, StyleGAN-256, StyleGAN3-t-256, BigGAN-deep-128
    python benchmarks/generators.py --only=pgan --batch=8 --reps=5
    python benchmarks/generators.py --loading            # a full-size converted folder
    python benchmarks/generators.py --loading --only=stylegan3
    python benchmarks/generators.py --gpu --batch=64     # PyTorch on the same GPU

Every network has random weights at full size and runs in a process of its own on two threads;
medians are compared. PyTorch runs the operations of the public implementations: nearest upsampling
and then a 3x3 convolution on the large map, a blur by channels, StyleGAN3's filters as convolutions
by channels of a map with zeros inserted, one kernel a row, and batch norm written out. It runs once
in its own memory layout (NCHW), as the public code does, and once with kernels in channels_last
(NHWC). `ratio` is our rate over the better of these two. A layer's row is the network up to that
layer; `time` and `operations` are its shares of the whole image's. On a GPU both sides run in
float32 and with TF32, and PyTorch once in bfloat16.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch_networks import BIGGAN, DEPTHS, NETWORKS, STYLEGAN3, STYLEGAN3_WIDTHS

from cgjax.runtime.memory import keep_freed_memory, peak_rss_mb

THREADS = 2
OURS = {"ours": "float32", "ours_tf32": "tf32"}
SIDES = ("ours", "torch", "torch_nhwc")
GPU_SIDES = ("ours", "ours_tf32", "torch", "torch_nhwc", "torch_tf32", "torch_bf16")

# family -> (architecture, keywords, layers to time)
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "pgan": (
        {"form": "zoo", "latent_dim": 512, "depths": DEPTHS},
        {},
        ["format", "s0_c0", "s1_c0", "s1_c1", "s2_c0", "s2_c1", "s3_c1"],
    ),
    "stylegan": (
        {
            "form": "genforce",
            "latent_dim": 512,
            "style_dim": 512,
            "mapping_widths": [512] * 8,
            "depths": DEPTHS,
        },
        {},
        ["w", "layer0", "layer1", "layer2", "layer3", "layer5", "layer7"],
    ),
    "stylegan3": (
        {
            "latent_dim": 512,
            "style_dim": 512,
            "mapping_widths": [512] * 2,
            "widths": [STYLEGAN3_WIDTHS[0], *STYLEGAN3_WIDTHS[:-1]],
            "schedule": STYLEGAN3._asdict(),
        },
        {},
        ["w", "input", "L0_36_512", "L2_36_512", "L3_52_512", "L5_84_512", "L8_148_512"],
    ),
    "biggan": (
        {
            "latent_dim": 128,
            "num_classes": 1000,
            "width": 128,
            "blocks": [[u, i * 128, o * 128] for u, i, o in BIGGAN],
            "attention": 8,
        },
        {"condition": 207, "truncation": 0.4},
        ["gen_z", "layers_00", "layers_01", "layers_02", "layers_04", "layers_06"],
    ),
}


def median_seconds(functions: dict[str, Callable[[], Any]], reps: int) -> dict[str, float]:
    """Return each function's median seconds, timed in turns after a warm-up.

    A short call repeats for 20 ms, at most 20 times: a single call after a whole image would find
    the threads asleep and its weights out of the caches, which is not part of a layer's cost.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    counts: dict[str, int] = {}
    for name, function in functions.items():
        function()
        counts[name] = max(min(int(0.02 / _mean_seconds(function, 1)), 20), 1)
    for _ in range(reps):
        for name, function in functions.items():
            seconds[name].append(_mean_seconds(function, counts[name]))
    return {name: statistics.median(values) for name, values in seconds.items()}


def _mean_seconds(function: Callable[[], Any], count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        function()
    return (time.perf_counter() - start) / count


def run_ours(family: str, batch: int, reps: int, precision: str) -> dict[str, Any]:
    """Time our networks, by layer and for "image", and count their operations."""
    import jax

    from cgjax.generators import base
    from cgjax.generators.families import build_network

    architecture, keywords, layers = CASES[family]
    network = build_network(family, architecture)
    gen = base.PretrainedGenerator(network).with_precision(precision)
    z = gen.sample_latents(jax.random.key(0), batch)
    calls: dict[str, Callable[[], Any]] = {
        layer: lambda layer=layer: gen.features(z, layer, **keywords).block_until_ready()
        for layer in layers
    }
    calls["image"] = lambda: gen.images(z, **keywords).block_until_ready()
    inputs = gen.network.resolve(batch, **keywords)

    def operations(walk: Callable[..., Any], **static: int) -> float:
        settings = {"graph": gen._graph, "precision": precision}
        lowered = base._walk.lower(gen._weights, z, inputs, walk=walk, **settings, **static)
        # On a GPU, the operations are known only after compiling.
        return float((lowered.cost_analysis() or lowered.compile().cost_analysis())["flops"])

    flops = {layer: operations(base.features_, index=gen.layers.index(layer)) for layer in layers}
    flops["image"] = operations(base.images_)
    return {"seconds": median_seconds(calls, reps), "operations": flops}


def run_torch(
    family: str, batch: int, reps: int, layout: str, *, is_gpu: bool = False
) -> dict[str, Any]:
    """Time PyTorch's operations in the same order, in one memory layout."""
    import torch

    torch.set_num_threads(THREADS)
    if is_gpu:
        torch.set_default_device("cuda")
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = layout == "torch_tf32"
        torch.backends.cuda.matmul.allow_tf32 = layout == "torch_tf32"
    torch.manual_seed(0)
    _, _, layers = CASES[family]
    forward = NETWORKS[family](
        torch.contiguous_format if layout in ("torch", "torch_tf32") else torch.channels_last
    )

    def run(name: str) -> None:
        with torch.autocast("cuda", torch.bfloat16, enabled=layout == "torch_bf16"):
            forward(batch, name)
        if is_gpu:
            torch.cuda.synchronize()

    calls: dict[str, Callable[[], Any]] = {
        name: lambda name=name: run(name) for name in [*layers, "image"]
    }
    with torch.no_grad():
        return {"seconds": median_seconds(calls, reps)}


def loading(family: str) -> None:
    """Write a full-size random folder and time loading it in a fresh process."""
    import numpy as np

    from cgjax.generators.families import build_network
    from cgjax.generators.weights import named_arrays, save_generator

    architecture = CASES[family][0]
    arrays = named_arrays(build_network(family, architecture))
    with tempfile.TemporaryDirectory() as folder:
        save_generator(
            folder,
            family,
            architecture,
            {name: np.asarray(value) for name, value in arrays.items()},
            source={"name": "random", "sha256": ""},
            licence="none",
        )
        script = (
            "import sys, time, jax, jax.numpy as jnp\n"
            f"import cgjax, cgjax.generators.{family}\n"
            "jnp.zeros(1).block_until_ready()\n"
            "from cgjax.runtime.memory import peak_rss_mb, reset_peak_rss\n"
            "reset_peak_rss()\n"
            "before, start = peak_rss_mb(), time.perf_counter()\n"
            "gen = cgjax.load_generator(sys.argv[1])\n"
            "print(time.perf_counter() - start, peak_rss_mb() - before)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, folder], capture_output=True, text=True, check=True
        )
        size = (Path(folder) / "weights.safetensors").stat().st_size / 2**20
    seconds, memory = map(float, done.stdout.split())
    print(
        f"loading {family} from a folder: {seconds:.2f} s, peak memory {memory:.0f} MB over the "
        f"imports, {memory / size:.2f} times the weights' {size:.0f} MB"
    )


def main() -> None:
    """Run every case in processes of its own and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", choices=CASES, action="append")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--loading", action="store_true")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        keep_freed_memory()  # as the command line does; for PyTorch too
        side, family = given.worker
        result = (
            run_ours(family, given.batch, given.reps, OURS[side])
            if side in OURS
            else run_torch(family, given.batch, given.reps, side, is_gpu=given.gpu)
        )
        print(json.dumps({**result, "peak_mb": peak_rss_mb()}))
        return
    if given.loading:
        for family in given.only or ["pgan"]:
            loading(family)
        return
    sides = GPU_SIDES if given.gpu else SIDES
    where = "on a GPU" if given.gpu else f"{THREADS} threads"
    print(f"batch {given.batch}, medians of {given.reps}, {where}; images per second")
    columns = (*sides, "ratio", "time", "operations")
    print(f"{'network':10}{'up to':12}" + "".join(f"{c:>12}" for c in columns))
    for family in given.only or CASES:
        results = {
            side: _measure(side, family, given.batch, given.reps, given.gpu) for side in sides
        }
        seconds = {side: result["seconds"] for side, result in results.items()}
        operations, ours = results["ours"]["operations"], seconds["ours"]
        plain = [sides.index(side) for side in ("torch", "torch_nhwc")]
        for layer in ours:
            rates = [given.batch / seconds[side][layer] for side in sides]
            shares = (ours[layer] / ours["image"], operations[layer] / operations["image"])
            numbers = "".join(
                f"{x:12.2f}" for x in (*rates, rates[0] / max(rates[i] for i in plain))
            )
            print(f"{family:10}{layer:12}{numbers}" + "".join(f"{x:12.4f}" for x in shares))
        peaks = "".join(f"{results[side]['peak_mb']:12.0f}" for side in sides)
        print(f"{family:10}{'peak MB':12}{peaks}", flush=True)


def _measure(side: str, family: str, batch: int, reps: int, is_gpu: bool) -> dict[str, Any]:
    command = [sys.executable, __file__, "--worker", side, family]
    command += [f"--batch={batch}", f"--reps={reps}", *(["--gpu"] if is_gpu else [])]
    root = str(Path(__file__).resolve().parent.parent)
    environment = {**os.environ, "OMP_NUM_THREADS": str(THREADS), "PYTHONPATH": root}
    environment.pop("OPENBLAS_CORETYPE", None)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{side} {family}: {done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


if __name__ == "__main__":
    main()
