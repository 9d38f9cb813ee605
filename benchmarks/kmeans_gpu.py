"""Seconds of k-means of a million latents on one GPU, beside PyTorch, and beside one read of them.

    python benchmarks/kmeans_gpu.py [--rows=1000000] [--clusters=2] [--reps=3] [--no-peer]

The rows are features of the embedded generator's `layer1` (8,192 each, 33 GB for a million), made
on the GPU. Ten restarts, no tolerance. Whole runs of 25 and of 5 iterations are timed after
compiling; the time of an iteration is their difference over 20. `of the read` is the time in which
the card sums the features once, over that of an iteration: an iteration that reads only some of the
rows can pass 100%.

The peers start from the same rows: Lloyd's iteration in PyTorch, float32, with all restarts in one
product; and flash-kmeans where it is installed, ten times in turn, whose products Triton computes
as TF32. XLA's tuner copies the operands of the kernels that it tries: where two sets of features
hardly fit, as on 80 GB, give all memory to JAX with XLA_PYTHON_CLIENT_PREALLOCATE=true
XLA_PYTHON_CLIENT_MEM_FRACTION=0.95 and --no-peer.
"""

from __future__ import annotations

import argparse
import functools
import os
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import jax.numpy as jnp
import numpy as np
import timing

import cgjax
from cgjax.kernels.products import HIGHEST, float32_product

RESTARTS, LAYER = 10, "layer1"


def features_on_device(num: int, batch: int = 10_000) -> jax.Array:
    """Return (num, 8192) features, written in place batch by batch."""
    generator = cgjax.load_generator("dcgan_faces")

    @functools.partial(jax.jit, donate_argnums=0)
    def put(rows: jax.Array, part: jax.Array, begin: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice(rows, part, (begin, 0))

    rows = jnp.zeros((num, 8192), jnp.float32)
    for begin in range(0, num, batch):
        z = generator.sample_latents(jax.random.key(begin), min(batch, num - begin))
        part = jnp.asarray(generator.features(z, LAYER)).reshape(len(z), -1)
        rows = put(rows, part, jnp.int32(begin))
    return rows.block_until_ready()


def seconds_of(call: Callable[[], Any], reps: int) -> float:
    return timing.medians({"call": call}, reps)["call"]


def torch_lloyd(rows: Any, starts: Any, num_iter: int) -> float:
    """Run Lloyd's iteration for all restarts at once; return the best objective."""
    import torch

    r, k, f = starts.shape
    centroids, squares = starts.clone(), torch.linalg.vector_norm(rows, dim=1).square()
    for _ in range(num_iter):
        distances = (rows @ centroids.reshape(r * k, f).T).view(-1, r, k).mul_(-2.0)
        distances += centroids.square().sum(2)
        nearest, label = distances.min(2)
        member = torch.nn.functional.one_hot(label, k).to(torch.float32).view(-1, r * k)
        sums = (member.T @ rows).view(r, k, f)
        centroids = sums / member.sum(0).view(r, k, 1).clamp(min=1.0)
    return float((nearest + squares[:, None]).sum(0).min())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--clusters", type=int, default=2)
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--no-peer", action="store_true")
    args = parser.parse_args()
    start = time.perf_counter()
    rows = features_on_device(args.rows)
    print(f"{jax.devices()[0].device_kind}: {rows.shape}, C={args.clusters}, {RESTARTS} restarts")
    print(f"features made in {time.perf_counter() - start:.1f} s")
    total = jax.jit(lambda x: jnp.sum(x, axis=1))
    read = seconds_of(lambda: total(rows).block_until_ready(), 5)
    print(f"one read {1e3 * read:.1f} ms, {rows.nbytes / read / 1e12:.2f} TB/s", flush=True)

    columns = jax.random.normal(jax.random.key(3), (RESTARTS * args.clusters, 8192)).T
    plain = jax.jit(lambda x, c: jnp.matmul(x, c, precision=HIGHEST))
    exact = np.asarray(rows[:2000], np.float64) @ np.asarray(columns, np.float64)
    for name, function in {"float32": plain, "ours": jax.jit(float32_product)}.items():
        took = seconds_of(lambda f=function: f(rows, columns).block_until_ready(), 5)
        error = np.abs(np.asarray(function(rows[:2000], columns)) - exact).max()
        print(f"product, {name}: {1e3 * took:.1f} ms, error {error / np.abs(exact).max():.1e}")

    seconds: dict[int, float] = {}
    for num_iter in (5, 25):

        def fit(num_iter: int = num_iter) -> Any:
            key = jax.random.key(1)
            result = cgjax.kmeans(
                rows, args.clusters, key=key, num_init=RESTARTS, max_iter=num_iter, tol=0.0
            )
            return jax.block_until_ready(result)

        seconds[num_iter] = seconds_of(fit, args.reps)
        result = fit()
        print(f"ours, {num_iter} iterations: {seconds[num_iter]:.3f} s, {result.inertia:.7g}")
    step = (seconds[25] - seconds[5]) / 20
    print(
        f"an iteration {1e3 * step:.2f} ms, {read / step:.0%} of the read; "
        f"mean of 25 with seeding and assignment {40 * seconds[25]:.2f} ms",
        flush=True,
    )
    if args.no_peer:
        return
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    theirs = torch.from_dlpack(rows)
    picked = np.random.default_rng(0).integers(len(rows), size=RESTARTS * args.clusters)
    starts = theirs[torch.tensor(picked, device="cuda")].reshape(RESTARTS, args.clusters, -1)

    def peer() -> float:
        found = torch_lloyd(theirs, starts, 25)
        torch.cuda.synchronize()
        return found

    theirs_s = seconds_of(peer, 1)
    print(f"PyTorch, 25 iterations: {theirs_s:.3f} s = {theirs_s / seconds[25]:.1f}x, {peer():.7g}")
    try:
        import flash_kmeans
        from triton.errors import TritonError
    except ImportError:
        return

    def flash() -> None:
        for start in starts:
            flash_kmeans.batch_kmeans_Euclid(
                theirs[None], args.clusters, max_iters=25, tol=-1.0, init_centroids=start[None]
            )
        torch.cuda.synchronize()

    name = f"flash-kmeans {flash_kmeans.__version__}"
    try:
        theirs_s = seconds_of(flash, 1)
    except TritonError as error:
        print(f"{name} has no kernel for {theirs.shape[1]} features: {str(error).splitlines()[-1]}")
        return
    print(f"{name}, ten times 25 iterations: {theirs_s:.3f} s = {theirs_s / seconds[25]:.1f}x")


if __name__ == "__main__":
    main()
