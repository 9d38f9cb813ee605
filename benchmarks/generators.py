"""Forward images per second and peak memory, beside the same operations in PyTorch.

    python benchmarks/generators.py  # PGAN-256, StyleGAN-256, StyleGAN3-t-256, BigGAN-deep-128
    python benchmarks/generators.py --only=pgan --batch=8 --reps=5
    python benchmarks/generators.py --loading            # a full-size converted folder
    python benchmarks/generators.py --loading --only=stylegan3
    python benchmarks/generators.py --gpu --batch=64     # PyTorch on the same GPU

Random weights at full size, one process each, two threads, medians. PyTorch runs the operations of
the public implementations: nearest upsampling then a 3x3 convolution on the large map, a blur by
channels, StyleGAN3's filters as convolutions by channels of a map with zeros inserted, one kernel a
row, batch norm written out; once in its own memory layout (NCHW), which the public code uses,
and once with kernels in channels_last (NHWC). `ratio` is ours over the faster of the first two; a
layer's row is the network up to it. `time` and `operations` are a layer's share of the whole
image's. On a GPU PyTorch runs in float32 as ours does, once more with TF32 and once in bfloat16.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cgjax.generators.stylegan3_filters import (
    Schedule,
    cutoffs,
    down_filter,
    plan_layers,
    up_filter,
)
from cgjax.runtime.memory import keep_freed_memory, peak_rss_mb

THREADS = 2
SIDES = ("ours", "torch", "torch_nhwc")
GPU_SIDES = ("ours", "torch", "torch_nhwc", "torch_tf32", "torch_bf16")
DEPTHS = [512, 512, 512, 512, 256, 128, 64]
BIGGAN = [
    (0, 16, 16), (1, 16, 16), (0, 16, 16), (1, 16, 8), (0, 8, 8),
    (1, 8, 4), (0, 4, 4), (1, 4, 2), (0, 2, 2), (1, 2, 1),
]  # fmt: skip

STYLEGAN3 = Schedule(256)
STYLEGAN3_WIDTHS = [round(min(16384 / c, 512)) for c in cutoffs(STYLEGAN3)]

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
    """Return the median of several timings of each, taken in turns, after a warm-up.

    A turn of a short call is 20 ms of calls, 20 at most: a single one after a whole image finds the
    threads asleep and its weights out of the caches, which is no layer's cost.
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


def run_ours(family: str, batch: int, reps: int) -> dict[str, Any]:
    """Time our networks, by layer and for "image", and count their operations."""
    import jax

    from cgjax.generators import base
    from cgjax.generators.families import build_network

    architecture, keywords, layers = CASES[family]
    gen = base.PretrainedGenerator(build_network(family, architecture))
    z = gen.sample_latents(jax.random.key(0), batch)
    calls: dict[str, Callable[[], Any]] = {
        layer: lambda layer=layer: gen.features(z, layer, **keywords).block_until_ready()
        for layer in layers
    }
    calls["image"] = lambda: gen.images(z, **keywords).block_until_ready()
    inputs = gen.network.resolve(batch, **keywords)

    def operations(walk: Callable[..., Any], **static: int) -> float:
        lowered = base._walk.lower(gen._weights, z, inputs, walk=walk, graph=gen._graph, **static)
        # A GPU's compiler counts only what it has compiled.
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
    made = {
        "pgan": torch_pgan,
        "stylegan": torch_stylegan,
        "stylegan3": torch_stylegan3,
        "biggan": torch_biggan,
    }
    forward = made[family](
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


def _weights(layout: Any) -> Callable[..., Any]:
    """Return a function that draws a weight of a shape, its kernels in a memory layout."""
    import torch

    def draw(*shape: int) -> Any:
        weight = torch.randn(*shape) * (2 / math.prod(shape[1:])) ** 0.5
        return weight.to(memory_format=layout) if len(shape) == 4 else weight

    return draw


def torch_pgan(layout: Any) -> Callable[[int, str], Any]:
    """Return the forward pass of a progressive GAN: (rows, where to stop) -> activation."""
    import torch
    import torch.nn.functional as F

    _weight = _weights(layout)
    dense, dense_bias = _weight(16 * 512, 512), torch.zeros(16 * 512)
    plan = [(0, 512, 512, False, "s0_c0")]
    for r in range(1, len(DEPTHS)):
        plan += [(r, DEPTHS[r - 1], DEPTHS[r], True, f"s{r}_c0")]
        plan += [(r, DEPTHS[r], DEPTHS[r], False, f"s{r}_c1")]
    kernels = [(_weight(o, i, 3, 3), torch.zeros(o)) for _, i, o, _, _ in plan]
    rgb = (_weight(3, DEPTHS[-1], 1, 1), torch.zeros(3))

    def norm(x: Any) -> Any:
        return x * ((x**2).mean(dim=1, keepdim=True) + 1e-8).rsqrt()

    def forward(n: int, stop: str) -> Any:
        z = torch.randn(n, 512)
        x = F.leaky_relu(F.linear(norm(z), dense, dense_bias), 0.2).view(n, 512, 4, 4)
        x = norm(x)
        if stop == "format":
            return x
        for (_, _, _, up, name), (weight, bias) in zip(plan, kernels, strict=True):
            if up:
                x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = norm(F.leaky_relu(F.conv2d(x, weight, bias, padding=1), 0.2))
            if stop == name:
                return x
        return F.conv2d(x, *rgb)

    return forward


def torch_stylegan(layout: Any) -> Callable[[int, str], Any]:
    """Return the forward pass of StyleGAN with stored noise."""
    import torch
    import torch.nn.functional as F

    _weight = _weights(layout)
    mapping = [(_weight(512, 512), torch.zeros(512)) for _ in range(8)]
    layers = []
    for r, depth in enumerate(DEPTHS):
        for c in (0, 1):
            width_in = DEPTHS[r - 1] if c == 0 and r else depth
            taps = torch.tensor([1.0, 2.0, 1.0]) / 4
            layers.append(
                {
                    "up": c == 0 and r > 0,
                    "weight": _weight(depth, width_in, 3, 3) if r or c else None,
                    "blur": torch.outer(taps, taps).expand(depth, 1, 3, 3).contiguous(),
                    "noise": torch.randn(1, 1, 4 * 2**r, 4 * 2**r),
                    "noise_weight": torch.randn(1, depth, 1, 1) * 0.1,
                    "bias": torch.zeros(1, depth, 1, 1),
                    "style": (_weight(2 * depth, 512), torch.ones(2 * depth)),
                }
            )
    const = torch.ones(1, 512, 4, 4)
    rgb = (_weight(3, DEPTHS[-1], 1, 1), torch.zeros(3))

    def forward(n: int, stop: str) -> Any:
        w = torch.randn(n, 512)
        w = w * ((w**2).mean(dim=1, keepdim=True) + 1e-8).rsqrt()
        for weight, bias in mapping:
            w = F.leaky_relu(F.linear(w, weight, bias), 0.2)
        if stop == "w":
            return w
        x = const.repeat(n, 1, 1, 1)
        for index, layer in enumerate(layers):
            if layer["up"]:
                x = F.interpolate(x, scale_factor=2, mode="nearest")
            if layer["weight"] is not None:
                x = F.conv2d(x, layer["weight"], padding=1)
            if layer["up"]:
                x = F.conv2d(x, layer["blur"], padding=1, groups=x.shape[1])
            x = F.leaky_relu(x + layer["noise"] * layer["noise_weight"] + layer["bias"], 0.2)
            x = x - x.mean(dim=(2, 3), keepdim=True)
            x = x / torch.sqrt((x**2).mean(dim=(2, 3), keepdim=True) + 1e-8)
            style = F.linear(w, *layer["style"]).view(n, 2, -1, 1, 1)
            x = x * (style[:, 0] + 1) + style[:, 1]
            if stop == f"layer{index}":
                return x
        return F.conv2d(x, *rgb)

    return forward


def torch_stylegan3(layout: Any) -> Callable[[int, str], Any]:
    """Return the forward pass of StyleGAN3, config-t, as it runs where its own kernels cannot."""
    import torch
    import torch.nn.functional as F

    _weight = _weights(layout)
    source, plan = plan_layers(STYLEGAN3)
    widths = [STYLEGAN3_WIDTHS[0], *STYLEGAN3_WIDTHS[:-1], 3]
    mapping = [(_weight(512, 512), torch.zeros(512)) for _ in range(2)]
    frequencies, mix = torch.randn(widths[0], 2), _weight(widths[0], widths[0])
    placing, start = _weight(4, 512), torch.eye(4)[0]
    layers = [
        {
            "plan": p,
            "name": f"L{i}_{p.out_size}_{widths[i + 1]}",
            "weight": torch.randn(widths[i + 1], widths[i], p.kernel, p.kernel),
            "bias": torch.zeros(widths[i + 1]),
            "style": (_weight(widths[i], 512), torch.ones(widths[i])),
            "filters": [torch.tensor(f) for f in (up_filter(p), down_filter(p))],
        }
        for i, p in enumerate(plan)
    ]

    def waves(w: Any) -> Any:
        t = F.linear(w, placing, start)
        t = t / t[:, :2].norm(dim=1, keepdim=True)
        turned = torch.stack([t[:, 0], -t[:, 1], t[:, 1], t[:, 0]], dim=1).reshape(-1, 2, 2)
        phases = -(frequencies @ turned @ t[:, 2:, None]).squeeze(2)
        rates = frequencies @ turned
        fade = (rates.norm(dim=2) - source.cutoff) / (source.rate / 2 - source.cutoff)
        line = (torch.arange(source.size) + 0.5 - source.size / 2) / source.rate
        grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1)
        x = (grid[None, :, :, None] @ rates.mT[:, None, None]).squeeze(3)
        x = (
            torch.sin(2 * math.pi * (x + phases[:, None, None]))
            * (1 - fade).clamp(0, 1)[:, None, None]
        )
        return x @ mix.T

    def filtered(x: Any, taps: Any) -> Any:
        channels = x.shape[1]
        rows = taps[None, None, :, None].expand(channels, 1, -1, 1)
        return F.conv2d(F.conv2d(x, rows, groups=channels), rows.transpose(2, 3), groups=channels)

    def nonlinear(x: Any, layer: dict[str, Any]) -> Any:
        p, (up, down) = layer["plan"], layer["filters"]
        n, c, h, w = x.shape
        x = F.pad(x.reshape(n, c, h, 1, w, 1), [0, p.up - 1, 0, 0, 0, p.up - 1])
        x = F.pad(x.reshape(n, c, h * p.up, w * p.up), [*p.padding, *p.padding])
        x = filtered(x, up * p.up) if len(up) > 1 else x
        x = (F.leaky_relu(x, 0.2) * 2**0.5).clamp(-256, 256)
        x = filtered(x, down) if len(down) > 1 else x
        return x[:, :, :: p.down, :: p.down]

    def convolve(x: Any, layer: dict[str, Any], style: Any) -> Any:
        p, weight, n = layer["plan"], layer["weight"], len(x)
        if p.is_image:
            kernels = weight[None] * style[:, None, :, None, None] / weight.shape[1] ** 0.5
        else:
            weight = weight * weight.square().mean(dim=(1, 2, 3), keepdim=True).rsqrt()
            kernels = weight[None] * (style * style.square().mean().rsqrt())[:, None, :, None, None]
            kernels = kernels * (kernels.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).rsqrt()
        kernels = kernels.reshape(-1, *weight.shape[1:]).to(memory_format=layout)
        size = x.shape[2:]
        y = F.conv2d(x.reshape(1, -1, *size), kernels, padding=p.kernel - 1, groups=n)
        return y.reshape(n, -1, *y.shape[2:]) + layer["bias"][None, :, None, None]

    def forward(n: int, stop: str) -> Any:
        w = torch.randn(n, 512)
        w = w * ((w**2).mean(dim=1, keepdim=True) + 1e-8).rsqrt()
        for weight, bias in mapping:
            w = F.leaky_relu(F.linear(w, weight, bias), 0.2) * 2**0.5
        if stop == "w":
            return w
        x = waves(w).permute(0, 3, 1, 2).contiguous(memory_format=layout)
        if stop == "input":
            return x
        for layer in layers:
            x = nonlinear(convolve(x, layer, F.linear(w, *layer["style"])), layer)
            if stop == layer["name"]:
                return x
        return x * 0.25

    return forward


def torch_biggan(layout: Any) -> Callable[[int, str], Any]:
    """Return the forward pass of BigGAN-deep-128, spectral norms baked in."""
    import torch
    import torch.nn.functional as F

    _weight = _weights(layout)

    def block(i: int, o: int) -> dict[str, Any]:
        m = i // 4
        return {
            "norms": [
                (torch.zeros(c), torch.ones(c), _weight(c, 256) * 0.1, _weight(c, 256) * 0.1)
                for c in (i, m, m, m)
            ],
            "convs": [
                (_weight(m, i, 1, 1), torch.zeros(m)),
                (_weight(m, m, 3, 3), torch.zeros(m)),
                (_weight(m, m, 3, 3), torch.zeros(m)),
                (_weight(o, m, 1, 1), torch.zeros(o)),
            ],
        }

    embedding = _weight(128, 1000)
    dense = (_weight(16 * 16 * 128, 256), torch.zeros(16 * 16 * 128))
    blocks = [(up, i * 128, o * 128, block(i * 128, o * 128)) for up, i, o in BIGGAN]
    theta, phi = _weight(32, 256, 1, 1), _weight(32, 256, 1, 1)
    g, out = _weight(128, 256, 1, 1), _weight(256, 128, 1, 1)
    rgb = (_weight(128, 128, 3, 3), torch.zeros(128))

    def attend(x: Any) -> Any:
        n, c, h, w = x.shape
        query = F.conv2d(x, theta).view(n, c // 8, h * w)
        key = F.max_pool2d(F.conv2d(x, phi), 2).view(n, c // 8, h * w // 4)
        value = F.max_pool2d(F.conv2d(x, g), 2).view(n, c // 2, h * w // 4)
        scores = torch.softmax(torch.bmm(query.permute(0, 2, 1), key), dim=-1)
        attended = torch.bmm(value, scores.permute(0, 2, 1)).view(n, c // 2, h, w)
        return x + F.conv2d(attended, out)

    def forward(n: int, stop: str) -> Any:
        classes = torch.zeros(n, 1000)
        classes[:, 207] = 1
        condition = torch.cat((torch.randn(n, 128), F.linear(classes, embedding)), dim=1)
        x = F.linear(condition, *dense)
        if stop == "gen_z":
            return x
        x = x.view(n, 4, 4, -1).permute(0, 3, 1, 2).contiguous()
        index = 0
        for b, (up, i, o, parts) in enumerate(blocks):
            if b == 8:
                x = attend(x)
                index += 1
            skipped, h = x, x
            for j in range(4):
                mean, variance, scale, offset = parts["norms"][j]
                h = (h - mean[None, :, None, None]) / torch.sqrt(variance + 1e-4)[
                    None, :, None, None
                ]
                h = h * (1 + F.linear(condition, scale))[:, :, None, None]
                h = torch.relu(h + F.linear(condition, offset)[:, :, None, None])
                if up and j == 1:
                    h = F.interpolate(h, scale_factor=2, mode="nearest")
                weight, bias = parts["convs"][j]
                h = F.conv2d(h, weight, bias, padding=weight.shape[-1] // 2)
            if i != o:
                skipped = skipped[:, : i // 2]
            if up:
                skipped = F.interpolate(skipped, scale_factor=2, mode="nearest")
            x = h + skipped
            if stop == f"layers_{index:02d}":
                return x
            index += 1
        return torch.tanh(F.conv2d(torch.relu(x), *rgb, padding=1)[:, :3])

    return forward


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
            run_ours(family, given.batch, given.reps)
            if side == "ours"
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
        for layer in ours:
            rates = [given.batch / seconds[side][layer] for side in sides]
            shares = (ours[layer] / ours["image"], operations[layer] / operations["image"])
            numbers = "".join(f"{x:12.2f}" for x in (*rates, rates[0] / max(rates[1:3])))
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
