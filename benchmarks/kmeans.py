"""Seconds and objective of k-means, beside its peers; and of streamed k-means beside in memory.

    python benchmarks/kmeans.py                          # real features, C=2 and C=8
    python benchmarks/kmeans.py --only=100 --only=1000 --reps=3    # many clusters, synthetic groups
    python benchmarks/kmeans.py --only=1000 --random     # ours from random rows, as FAISS's
    python benchmarks/kmeans.py --only=8 --peers=faiss,ott --peer-reps=1
    python benchmarks/kmeans.py --streamed [--clusters=8]  # 2,000 latents at PGAN-256's s3_c1

The peers are scikit-learn, FAISS, SuperKMeans and OTT-JAX; install them with
pip install scikit-learn faiss-cpu superkmeans ott-jax. All run on the same threads and take turns;
medians are over repetitions with different seeds, after one that warms up. FAISS runs as installed
and told its processor (see timing.py). The ratio in a line is the peer's seconds over ours;
`objective` is the relative difference of our best objective from the peer's; `given` is that of one
restart from the same starting rows, where all exact methods must agree.

All have the same number of restarts, the same limit of iterations and no tolerance; a method that
converges may stop. FAISS starts at random rows. SuperKMeans uses all of the rows and prunes by
probability; it runs once for each restart, and the best by its own objective counts. OTT-JAX runs
its restarts in turn.

The floor is the time of plain Lloyd's two products an iteration at the best rate that any library
reached in this run; the time of one read of the rows is printed too.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import timing

# In memory by the cheaper method or by iterations; streamed from disk, or recomputed.
SIDES = ("memory", "iteration", "streamed", "recompute")
LAYER, NUM_LATENTS = "s3_c1", 2000
ITERATIONS = 25


def real_features(layer: str = "layer1") -> np.ndarray:
    """Return features of 10,000 latents of the embedded generator: 8,192 each at layer1."""
    import jax

    import cgjax
    from cgjax.generators.conditioned import ConditionedGenerator

    generator = ConditionedGenerator(cgjax.load_generator("dcgan_faces"), layer, {}, 128)
    return generator.all_features(np.asarray(generator.sample_latents(jax.random.key(0), 10_000)))


def blobs(num: int, dim: int, groups: int) -> np.ndarray:
    """Return overlapping groups: no partition is obvious, so no method stops early."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((groups, dim), np.float32)
    rows = rng.standard_normal((num, dim), np.float32)
    return rows + centres[rng.integers(0, groups, num)]


class Case(NamedTuple):
    """Rows to cluster, the number of clusters and of restarts, and the peers."""

    rows: Callable[[], np.ndarray]
    clusters: int
    restarts: int
    peers: tuple[str, ...]


ALL = ("sklearn", "faiss", "ott", "superkmeans")
CASES = {
    2: Case(real_features, 2, 10, ("sklearn", "faiss", "ott")),
    8: Case(real_features, 8, 10, ("sklearn", "faiss", "ott")),
    64: Case(functools.partial(blobs, 100_000, 512, 256), 64, 1, ("faiss", "superkmeans")),
    100: Case(
        functools.partial(blobs, 25_000, 2_048, 256), 100, 10, ("sklearn", "faiss", "superkmeans")
    ),
    1000: Case(
        functools.partial(blobs, 200_000, 512, 4_000), 1_000, 1, ("sklearn", "faiss", "superkmeans")
    ),
}


def inertia(rows: np.ndarray, centroids: np.ndarray) -> float:
    """Return the objective in float64, computed in the same way for every method."""
    total = 0.0
    for begin in range(0, len(rows), 1000):
        part = rows[begin : begin + 1000].astype(np.float64)
        squares = (part**2).sum(1)[:, None] + (centroids.astype(np.float64) ** 2).sum(1)[None]
        total += (squares - 2 * part @ centroids.astype(np.float64).T).min(1).sum()
    return total


Solver = Callable[[np.ndarray, int, int, int, int, "np.ndarray | None"], np.ndarray]


def ours(rows: np.ndarray, c: int, restarts: int, iters: int, seed: int, init: Any) -> np.ndarray:
    import jax

    from cgjax.clustering import kmeans

    start = {} if init is None else {"init": init}
    key = jax.random.key(seed)
    result = kmeans(rows, c, key=key, num_init=restarts, max_iter=iters, tol=0.0, **start)
    return np.asarray(result.centroids)


def sklearn(
    rows: np.ndarray, c: int, restarts: int, iters: int, seed: int, init: Any
) -> np.ndarray:
    import warnings

    from sklearn.cluster import KMeans

    start, restarts = ("k-means++", restarts) if init is None else (init, 1)
    solver = KMeans(
        c,
        init=start,
        n_init=restarts,
        max_iter=iters,
        tol=0.0,
        random_state=seed,
        algorithm="lloyd",
        copy_x=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return solver.fit(rows).cluster_centers_


def faiss(rows: np.ndarray, c: int, restarts: int, iters: int, seed: int, init: Any) -> np.ndarray:
    import faiss

    faiss.omp_set_num_threads(timing.THREADS)
    solver = faiss.Kmeans(
        rows.shape[1],
        c,
        niter=iters,
        nredo=restarts if init is None else 1,
        seed=seed + 1,
        max_points_per_centroid=len(rows),
        min_points_per_centroid=1,
    )
    solver.train(rows, init_centroids=init)
    return solver.centroids


def ott(rows: np.ndarray, c: int, restarts: int, iters: int, seed: int, init: Any) -> np.ndarray:
    import jax
    import jax.numpy as jnp
    from ott.tools.k_means import k_means

    start = {} if init is None else {"init": lambda *_: jnp.asarray(init)}
    keys = jax.random.split(jax.random.key(seed), restarts)
    # One after the other: all at once, its default, do not fit in 24 GB.
    results = [
        k_means(rows, c, n_init=1, tol=0.0, max_iterations=iters, rng=key, **start) for key in keys
    ]
    return np.asarray(min(results, key=lambda result: float(result.error)).centroids)


def superkmeans(
    rows: np.ndarray, c: int, restarts: int, iters: int, seed: int, init: Any
) -> np.ndarray | None:
    from superkmeans import SuperKMeans

    if init is not None:
        return None  # it cannot start from given centroids
    best = None
    for restart in range(restarts):
        solver = SuperKMeans(
            c,
            rows.shape[1],
            hierarchical=False,
            iters=iters,
            sampling_fraction=1.0,
            max_points_per_cluster=len(rows),
            n_threads=timing.THREADS,
            seed=restarts * seed + restart,
            tol=0.0,
            early_termination=False,
        )
        centroids = solver.train(rows)
        objective = solver.iteration_stats[-1].objective
        if best is None or objective < best[0]:
            best = objective, centroids
    return best[1]


def from_random_rows(
    rows: np.ndarray, c: int, restarts: int, iters: int, seed: int, init: Any
) -> np.ndarray:
    return ours(rows, c, restarts, iters, seed, "random" if init is None else init)


SOLVERS: dict[str, Solver] = {
    "cgjax": ours,
    "sklearn": sklearn,
    "faiss": faiss,
    "ott": ott,
    "superkmeans": superkmeans,
}


def calls_of(number: int, names: tuple[str, ...]) -> dict[str, timing.Call]:
    """Return the solvers on a case's rows, for this or another process; each call has a new seed.

    `NAME, given` runs one restart from starting rows that are the same for every method.
    """
    import jax

    case = CASES[number]
    rows = case.rows()
    given = rows[np.random.default_rng(1).choice(len(rows), case.clusters, replace=False)]
    calls: dict[str, timing.Call] = {}
    for name in names:
        data = jax.device_put(rows) if name in ("cgjax", "ott") else rows  # no copy on a CPU
        solve = functools.partial(SOLVERS[name], data, case.clusters)
        seeds = itertools.count()
        calls[name] = lambda s=solve, n=seeds: s(case.restarts, ITERATIONS, next(n), None)
        calls[f"{name}, given"] = lambda s=solve: s(1, ITERATIONS, 0, given.copy())
    return calls


def compare(number: int, peers: list[str], reps: int, peer_reps: int) -> None:
    """Print the seconds of a case for us, its peers, and plain Lloyd's products."""
    case = CASES[number]
    names = ("cgjax", *(name for name in case.peers if name in peers))
    rows = case.rows()
    calls, told = calls_of(number, names), None
    if "faiss" in names:
        told = timing.Told(calls_of, number, ("faiss",))
        for end in ("", ", given"):
            calls[f"faiss told {timing.openblas_core()}{end}"] = told.call(f"faiss{end}")
    contenders = [name for name in calls if not name.endswith("given")]
    fits = {name: calls[f"{name}, given"]() for name in contenders}
    from_given = {name: inertia(rows, fit) for name, fit in fits.items() if fit is not None}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    reached: dict[str, list[float]] = {name: [] for name in contenders}
    calls["cgjax"]()  # compiles
    if "ott" in contenders:
        calls["ott"]()
    # In turns, so that a slow moment of the machine affects all of them.
    for rep in range(max(reps, peer_reps)):
        for name in contenders:
            if rep >= (reps if name == "cgjax" else peer_reps):
                continue
            time.sleep(timing.PAUSE)
            start = time.perf_counter()
            centroids = calls[name]()
            seconds[name].append(time.perf_counter() - start)
            reached[name].append(inertia(rows, centroids))
    if told is not None:
        told.close()
    num, dim = rows.shape
    print(f"{num} x {dim}, C={case.clusters}, {case.restarts} restarts, {ITERATIONS} iterations")
    median = {name: statistics.median(values) for name, values in seconds.items()}
    for name in contenders:
        line = f"  {name:22} {median[name]:8.3f} s (median of {len(seconds[name])})"
        if name != "cgjax":
            line += f", {median[name] / median['cgjax']:6.2f}x, objective "
            line += f"{min(reached['cgjax']) / min(reached[name]) - 1:+.1e}"
        if name != "cgjax" and name in from_given:
            line += f", given {from_given['cgjax'] / from_given[name] - 1:+.1e}"
        print(line, flush=True)
    show_floors(rows, case, median["cgjax"])


def show_floors(rows: np.ndarray, case: Case, seconds: float) -> None:
    """Print the time of plain Lloyd's products, a block of rows at a time, and of one read."""
    import torch

    num, dim = rows.shape
    block, columns = min(num, 10_000), case.restarts * case.clusters
    distances, sums = (block, dim, columns), (columns, block, dim)
    products = dict.fromkeys((distances, sums), ITERATIONS * num / block)
    lloyd = timing.floor(products, timing.product_rates(products, 3))
    read = timing.medians({"read": lambda: torch.from_numpy(rows).sum()}, 5)["read"]
    print(f"  plain Lloyd's products: {lloyd:.3f} s, {lloyd / seconds:.2f}x ours", flush=True)
    print(f"  one read of the rows: {read:.3f} s, ours takes {seconds / read:.1f} of them")


def streamed_side(
    side: str, folder: Path, restarts: int, num: int, clusters: int, reps: int
) -> None:
    """Cluster PGAN-256's features in memory or streamed, and print a line of JSON each time."""
    import jax
    from generators import CASES as GENERATORS

    from cgjax.clustering import kmeans
    from cgjax.clustering.kmeans import gram
    from cgjax.features.in_memory import features_in
    from cgjax.features.stream import FeatureStream
    from cgjax.generators.base import PretrainedGenerator
    from cgjax.generators.conditioned import ConditionedGenerator
    from cgjax.generators.families import build_network
    from cgjax.runtime.memory import keep_freed_memory, peak_rss_mb, reset_peak_rss

    keep_freed_memory()
    if side == "iteration":
        gram.is_cheaper_in_memory = lambda *_: False
    gen = PretrainedGenerator(build_network("pgan", GENERATORS["pgan"][0]))
    generator = ConditionedGenerator(gen, LAYER, {}, batch=8)
    latents = np.asarray(generator.sample_latents(jax.random.key(0), num))
    options = {"key": jax.random.key(1), "num_init": restarts, "max_iter": 25, "tol": 0.0}
    jax.block_until_ready(generator.features(latents[:8]))

    def forward_pass() -> list[float]:
        """Return the forward seconds of one latent, measured several times."""
        seconds = []
        for _ in range(6):
            start = time.perf_counter()
            jax.block_until_ready([generator.features(latents[:8])[0, 0] for _ in range(4)])
            seconds.append((time.perf_counter() - start) / 32)
        return seconds

    def once() -> dict[str, Any]:
        marks = []

        def on_block(what: str, done: int, total: int) -> None:
            if done == total and what != "fetch":
                marks.append((what, round(time.perf_counter() - start, 2)))

        forward = forward_pass()
        reset_peak_rss()
        before, start = peak_rss_mb(), time.perf_counter()
        if side in ("memory", "iteration"):
            features = features_in(generator, latents)
            marks.append(("encoding", round(time.perf_counter() - start, 2)))
            computed, storage = num, "memory"
            result = kmeans(jax.device_put(features), clusters, **options)
        else:
            with FeatureStream(generator, latents) as stream:
                if side == "streamed":
                    stream.choose_storage(folder, num_reads=4)
                result = kmeans(stream, clusters, on_block=on_block, **options)
                computed, storage = stream.num_computed, stream.storage
        jax.block_until_ready(result)
        seconds, peak = time.perf_counter() - start, peak_rss_mb() - before
        forward += forward_pass()
        np.save(folder / f"{side}.npy", np.asarray(result.labels))
        return {
            "storage": storage,
            "seconds": round(seconds, 2),
            "forward": round(statistics.median(forward) * computed, 2),
            "rows computed": computed,
            "iterations": int(result.num_iter),
            "inertia": float(result.inertia),
            "peak MB over the weights": round(peak),
            "passes": marks,
        }

    for _ in range(1 + reps):
        print(json.dumps(once()), flush=True)


def streamed(
    sides: list[str], folder: str | None, restarts: int, num: int, clusters: int, reps: int
) -> None:
    """Run each side in a process of its own and compare their labels."""
    with tempfile.TemporaryDirectory() as temporary:
        where = Path(folder or temporary)
        for side in sides:
            command = [sys.executable, __file__, f"--side={side}", f"--folder={where}"]
            command += [f"--restarts={restarts}", f"--latents={num}"]
            command += [f"--clusters={clusters}", f"--reps={reps}"]
            ratios, peaks = [], []
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                for line in process.stdout:
                    numbers = json.loads(line)
                    ratios.append(numbers["seconds"] / numbers["forward"])
                    peaks.append(numbers["peak MB over the weights"])
                    print(f"{side}: {ratios[-1]:.3f} times its forward passes, {line}", end="")
            if process.returncode or not ratios:
                raise SystemExit(f"{side}: ended with {process.returncode}")
            first, *others = ratios
            if others:
                print(
                    f"{side}: median {statistics.median(others):.2f} of {len(others)} after the "
                    f"first, {first:.2f}, which compiles; peak {max(peaks)} MB over the weights",
                    flush=True,
                )
        files = [where / f"{side}.npy" for side in SIDES]
        labels = {file.stem: np.load(file) for file in files if file.exists()}
        if "memory" in labels:
            for name, own in labels.items():
                print(f"{name}: {int((own != labels['memory']).sum())} labels differ from memory")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", type=int, choices=CASES, action="append")
    parser.add_argument("--peers", default=",".join(ALL), help="separated by commas")
    parser.add_argument("--random", action="store_true", help="start ours at random rows")
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--peer-reps", type=int, default=5)
    parser.add_argument("--streamed", action="store_true")
    parser.add_argument("--sides", default="memory,streamed", help="also: iteration, recompute")
    parser.add_argument("--restarts", type=int, default=10)
    parser.add_argument("--latents", type=int, default=NUM_LATENTS)
    parser.add_argument(
        "--clusters", type=int, default=2, help="number of clusters with --streamed"
    )
    parser.add_argument("--folder", help="where to keep the labels of each side, to compare later")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    given = parser.parse_args()
    sizes = (given.restarts, given.latents, given.clusters, given.reps)
    if given.side:
        streamed_side(given.side, Path(given.folder), *sizes)
    elif given.streamed:
        streamed(given.sides.split(","), given.folder, *sizes)
    else:
        print(timing.processor())
        if given.random:
            SOLVERS["cgjax"] = from_random_rows
        for number in given.only or (2, 8):
            compare(number, given.peers.split(","), given.reps, given.peer_reps)


if __name__ == "__main__":
    main()
