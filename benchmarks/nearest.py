"""Seconds of the nearest-code search, beside FAISS, and beside the matrix product it cannot avoid.

    python benchmarks/nearest.py [--reps=7]   # beside FAISS
    python benchmarks/nearest.py --gpu        # beside PyTorch on the same GPU

On a CPU: 5,000 queries against 10,000 rows, exact float32, medians. The floor is the product alone,
whole or in blocks of 512 queries, at the best rate that any library reached in this run. FAISS is
timed without building its index, as installed and told its processor (see timing.py).

On a GPU: in blocks and in one block, each with its share of the card's float32 product in the same
run; and PyTorch's search, if its CUDA build is installed.
"""

from __future__ import annotations

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import timing

from cgjax.kernels.distance import nearest

QUERIES, BASE, BLOCK = 5_000, 10_000, 512
HIGHEST = jax.lax.Precision.HIGHEST


def data(num_queries: int, num_base: int, dim: int) -> tuple[jax.Array, jax.Array]:
    """Return members (queries) and generated latents (base), both unit normal."""
    key_q, key_b = jax.random.split(jax.random.key(0))
    queries = jax.random.normal(key_q, (num_queries, dim), jnp.float32)
    return queries, jax.random.normal(key_b, (num_base, dim), jnp.float32)


def check(ours: Any, theirs: Any, queries: Any, base: Any, name: str) -> None:
    """Exit unless both chose the same rows; rows at nearly equal distances may be swapped."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    rows = np.flatnonzero(ours != theirs)
    q, b = np.asarray(queries, np.float64)[rows], np.asarray(base, np.float64)
    gap = ((q - b[ours[rows]]) ** 2).sum(1) / ((q - b[theirs[rows]]) ** 2).sum(1) - 1
    if len(rows) > len(ours) // 1000 or np.abs(gap).max(initial=0.0) > 1e-5:
        raise SystemExit(f"{name} chose other rows in {len(rows)} of {len(ours)} cases")


def faiss_search(dim: int) -> dict[str, timing.Call]:
    """Return FAISS's search of the same data, for this or another process."""
    import faiss

    faiss.omp_set_num_threads(timing.THREADS)
    queries, base = (np.asarray(rows) for rows in data(QUERIES, BASE, dim))
    index = faiss.IndexFlatL2(dim)
    index.add(base)
    check(index.search(queries, 1)[1][:, 0], nearest(queries, base)[0], queries, base, "faiss")
    return {"faiss": lambda: index.search(queries, 1)}


def on_cpu(reps: int) -> None:
    print(f"{timing.processor()}\n{QUERIES} queries, {BASE} rows, medians of {reps}")
    for dim in (512, 100):
        queries, base = data(QUERIES, BASE, dim)
        told = timing.Told(faiss_search, dim)
        calls = {
            "cgjax": lambda q=queries, b=base: jax.block_until_ready(nearest(q, b)),
            "FAISS as installed": faiss_search(dim)["faiss"],
            f"FAISS told {timing.openblas_core()}": told.call("faiss"),
        }
        seconds = timing.medians(calls, reps)
        told.close()
        whole, block = (QUERIES, dim, BASE), (BLOCK, dim, BASE)
        rates = timing.product_rates((whole, block), reps)
        floor = timing.floor({whole: 1}, {whole: max(rates.values())})
        for name, s in seconds.items():
            peer = "" if name == "cgjax" else f", {s / seconds['cgjax']:.2f}x"
            print(f"{dim:>5} {name:<20}{1e3 * s:>8.1f} ms, {floor / s:>4.0%} of the floor{peer}")


def on_gpu(reps: int) -> None:
    if jax.default_backend() != "gpu":
        raise SystemExit("--gpu: JAX sees no GPU here; install jax[cuda12] on a machine with one")
    print(f"{jax.devices()[0].device_kind}, {QUERIES} queries, {BASE} rows, median of {reps}")
    for dim in (512, 100):
        queries, base = data(QUERIES, BASE, dim)
        searches = {
            "blocks": lambda q, b: nearest(q, b),
            "one block": lambda q, b: nearest(q, b, block=QUERIES),
        }
        expected = searches["blocks"](queries, base)[0]
        for name, search in searches.items():
            check(search(queries, base)[0], expected, queries, base, name)
        calls = {
            name: lambda s=search, q=queries, b=base: jax.block_until_ready(s(q, b))
            for name, search in searches.items()
        }
        product = jax.jit(lambda q, b: jnp.matmul(q, b.T, precision=HIGHEST))
        calls["product"] = lambda q=queries, b=base, p=product: p(q, b).block_until_ready()
        calls |= on_torch(queries, base, expected)
        seconds = timing.medians(calls, reps)
        for name, s in seconds.items():
            rate, share = 2e-12 * QUERIES * BASE * dim / s, seconds["product"] / s
            row = f"{1e3 * s:>9.3f} ms {rate:>7.1f} Tflop/s {share:>6.0%} of the product"
            print(f"{dim:>5} {name:<15}{row}")


def on_torch(queries: jax.Array, base: jax.Array, expected: jax.Array) -> dict[str, Any]:
    """Return the checked searches of PyTorch and, if installed, FlashLib on the same GPU.

    Empty if PyTorch has no CUDA.
    """
    try:
        import torch
    except ImportError:
        return {}
    if not torch.cuda.is_available():
        return {}
    q, b = (torch.tensor(np.asarray(x), device="cuda") for x in (queries, base))
    chosen = torch.cdist(q, b).argmin(1).cpu().numpy()
    check(chosen, expected, queries, base, "torch.cdist")

    def cdist() -> None:
        torch.cdist(q, b).argmin(1)
        torch.cuda.synchronize()

    try:
        import flashlib
    except ImportError:
        return {"torch.cdist": cdist}
    picked = flashlib.flash_knn(q, b, 1, return_distances=False)[:, 0].cpu().numpy()
    wrong = np.count_nonzero(picked != np.asarray(expected))
    print(f"FlashLib {flashlib.__version__} chose other rows in {wrong} of {len(q)} cases")

    def flash() -> None:
        flashlib.flash_knn(q, b, 1, return_distances=False)
        torch.cuda.synchronize()

    return {"torch.cdist": cdist, "FlashLib": flash}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--reps", type=int, default=7)
    parser.add_argument("--gpu", action="store_true")
    args = parser.parse_args()
    (on_gpu if args.gpu else on_cpu)(args.reps)


if __name__ == "__main__":
    main()
