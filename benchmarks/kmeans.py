"""k-means beside scikit-learn and FAISS, and streamed beside in memory.

    python benchmarks/kmeans.py                          # real features, C=2 and C=8
    python benchmarks/kmeans.py --only=8 --peers=faiss --peer-reps=1
    python benchmarks/kmeans.py --only=64 [--openblas=SkylakeX]   # 100,000 x 512, FAISS
    python benchmarks/kmeans.py --streamed [--clusters=8]  # 2,000 latents at PGAN-256's s3_c1

Everything runs on the same two threads from one process; medians of repetitions with different
seeds after one that warms up. `ratio` is the peer's seconds over ours; `inertia` the relative
difference of the best objective found from the peer's, and `given` that of one restart from the
same starting rows, where all must agree. Everyone gets the same restarts, at most the same
iterations and no tolerance; who converges may stop (FAISS has no such rule).
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

THREADS = 2
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = str(THREADS)
# They name another processor where it is virtual, which slows the peers down.
for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(name, None)
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

# C -> (restarts, peers, iterations)
CASES: dict[int, tuple[int, tuple[str, ...], int]] = {
    2: (10, ("sklearn", "faiss"), 25),
    8: (10, ("sklearn", "faiss"), 25),
    64: (1, ("faiss",), 25),
}
# In memory by whatever is less work, or by the iteration; streamed from disk, or computed again.
SIDES = ("memory", "iteration", "streamed", "recompute")
LAYER, NUM_LATENTS = "s3_c1", 2000


def real_features(layer: str) -> np.ndarray:
    """Return features of 10,000 latents of the embedded generator: 8,192 each at layer1."""
    import jax

    import cgjax
    from cgjax.generators.conditioned import ConditionedGenerator

    generator = ConditionedGenerator(cgjax.load_generator("dcgan_faces"), layer, {}, 128)
    return generator.all_features(np.asarray(generator.sample_latents(jax.random.key(0), 10_000)))


def blobs(num: int = 100_000, dim: int = 512, groups: int = 256) -> np.ndarray:
    """Return overlapping groups: no partition is obvious, so nobody stops early."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((groups, dim), np.float32)
    rows = rng.standard_normal((num, dim), np.float32)
    return rows + centres[rng.integers(0, groups, num)]


def inertia(rows: np.ndarray, centroids: np.ndarray) -> float:
    """Return the objective in float64, the same way for everybody."""
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

    faiss.omp_set_num_threads(THREADS)
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


def compare(c: int, layer: str, peers: list[str], reps: int, peer_reps: int) -> None:
    """Print one line for each peer."""
    import jax

    restarts, all_peers, iters = CASES[c]
    rows = blobs() if c == 64 else real_features(layer)
    given = rows[np.random.default_rng(1).choice(len(rows), c, replace=False)]
    placed = jax.device_put(rows)  # no copy on a CPU

    # They take turns, so that a slow moment of the machine meets all alike.
    contenders: dict[str, tuple[Solver, Any]] = {"ours": (ours, placed)}
    solvers = {"sklearn": sklearn, "faiss": faiss}
    contenders |= {name: (solvers[name], rows) for name in all_peers if name in peers}
    from_given = {
        name: inertia(rows, solve(data, c, 1, iters, 0, given.copy()))
        for name, (solve, data) in contenders.items()
    }
    ours(placed, c, restarts, iters, 99, None)  # compiles
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    reached: dict[str, list[float]] = {name: [] for name in contenders}
    for seed in range(max(reps, peer_reps)):
        for name, (solve, data) in contenders.items():
            if seed >= (reps if name == "ours" else peer_reps):
                continue
            time.sleep(0.02)  # until the last contender's threads stop waiting for more work
            begun = time.perf_counter()
            centroids = solve(data, c, restarts, iters, seed, None)
            seconds[name].append(time.perf_counter() - begun)
            reached[name].append(inertia(rows, centroids))
    median = {name: statistics.median(values) for name, values in seconds.items()}
    shape = f"{len(rows)} x {rows.shape[1]}, C={c}, {restarts} restarts, {iters} iterations"
    print(f"{shape}: ours {median['ours']:.3f} s (median of {reps})", flush=True)
    for name in list(contenders)[1:]:
        print(
            f"  {name:8} {median[name]:8.3f} s (median of {peer_reps}), ratio "
            f"{median[name] / median['ours']:6.2f}, inertia "
            f"{min(reached['ours']) / min(reached[name]) - 1:+.1e}, given "
            f"{from_given['ours'] / from_given[name] - 1:+.1e}",
            flush=True,
        )


def streamed_side(
    side: str, folder: Path, restarts: int, num: int, clusters: int, reps: int
) -> None:
    """Cluster PGAN-256's features in memory, or streamed, and print a line of JSON each time."""
    import jax

    from benchmarks.generators import CASES as GENERATORS
    from cgjax.clustering import kmeans
    from cgjax.clustering.kmeans import gram
    from cgjax.features.in_memory import all_features
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
        """Return the seconds of one latent, several times."""
        found = []
        for _ in range(6):
            begun = time.perf_counter()
            jax.block_until_ready([generator.features(latents[:8])[0, 0] for _ in range(4)])
            found.append((time.perf_counter() - begun) / 32)
        return found

    def once() -> dict[str, Any]:
        marks = []

        def on_block(what: str, done: int, total: int) -> None:
            if done == total and what != "fetch":
                marks.append((what, round(time.perf_counter() - begun, 2)))

        forward = forward_pass()
        reset_peak_rss()
        before, begun = peak_rss_mb(), time.perf_counter()
        if side in ("memory", "iteration"):
            features = all_features(generator, latents, lambda rows: None)
            marks.append(("encoding", round(time.perf_counter() - begun, 2)))
            computed, storage = num, "memory"
            result = kmeans(jax.device_put(features), clusters, **options)
        else:
            with FeatureStream(generator, latents) as stream:
                if side == "streamed":
                    stream.choose_storage(folder, num_reads=4)
                result = kmeans(stream, clusters, on_block=on_block, **options)
                computed, storage = stream.num_computed, stream.storage
        jax.block_until_ready(result)
        seconds, peak = time.perf_counter() - begun, peak_rss_mb() - before
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
            for name, found in labels.items():
                print(f"{name}: {int((found != labels['memory']).sum())} labels differ from memory")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", type=int, choices=CASES, action="append")
    parser.add_argument("--peers", default="sklearn,faiss", help="which, separated by commas")
    parser.add_argument("--layer", default="layer1", help="of the embedded generator")
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--peer-reps", type=int, default=5)
    parser.add_argument("--streamed", action="store_true")
    parser.add_argument("--sides", default="memory,streamed", help="also: iteration, recompute")
    parser.add_argument("--restarts", type=int, default=10)
    parser.add_argument("--latents", type=int, default=NUM_LATENTS)
    parser.add_argument("--clusters", type=int, default=2, help="of the streamed ones")
    parser.add_argument("--openblas", help="core that the peers' OpenBLAS is told: see nearest.py")
    parser.add_argument("--folder", help="keeps the labels of each side, to compare later")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.openblas:
        os.environ["OPENBLAS_CORETYPE"] = given.openblas
    sizes = (given.restarts, given.latents, given.clusters, given.reps)
    if given.side:
        streamed_side(given.side, Path(given.folder), *sizes)
    elif given.streamed:
        streamed(given.sides.split(","), given.folder, *sizes)
    else:
        for c in given.only or (2, 8):
            compare(c, given.layer, given.peers.split(","), given.reps, given.peer_reps)


if __name__ == "__main__":
    main()
