"""How many clusters: on planted data beside the usual criteria, its cost, and real features.

    python benchmarks/selection.py --trials=100 --peer-trials=8            # d = 64
    python benchmarks/selection.py --dim=8192 --trials=20 --peer-trials=2
    python benchmarks/selection.py --hard --trials=20 --peer-trials=0     # closer, or worse shapes
    python benchmarks/selection.py --cost                                  # beside one clustering
    python benchmarks/selection.py --embedded [--layers=layer1,layer2]     # the face generator

Planted: Gaussian clusters with centres in random directions of 64 strong ones, so far apart that
the nearest true centre gets 99% of the rows right. Beyond 64 features the strong directions lie at
random angles and every feature carries noise of standard deviation 0.1. Trials take turns among the
kinds: of several clusters "round" (unit variance, equal shares), "round 1:10" (shares from 1 to 10,
geometric) and "long" (each with standard deviation 3 in a direction of its own, equal shares); of
one cluster "round", "long" (10) and "tapering" (10, 10/2, 10/3, ...). `--hard` has the nearest
centre right in 95%, and long clusters with shares 1:10, which k-means cuts before it tells two
apart. Rows: 10,000 a trial.

Peers see the same rows in the same span of 64 components, the first `--peer-trials` trials of each
number only, since they take a minute each: scikit-learn's silhouette (its maximum) and the elbow
(farthest below the chord) of its KMeans on 2,000 rows, the gap statistic (20 references in the box
along the principal axes, 1,000 rows) and its GaussianMixture on 4,000 rows with the least BIC over
four covariances, all for 1 to 16 clusters.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

if "--cost" not in sys.argv:  # one thread for each of several processes
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import numpy as np

from benchmarks.timing import medians

NUMBERS, MOST, ROWS = (1, 2, 3, 5, 8, 16), 16, 10_000
ONE = {"round": {}, "long": {"shape": "long"}, "tapering": {"shape": "tapering"}}
SEVERAL = {"round": {}, "round 1:10": {"ratio": 10.0}, "long": {"shape": "long"}}
HARD = {
    "round, 95%": {"accuracy": 0.95},
    "round 1:10, 95%": {"accuracy": 0.95, "ratio": 10.0},
    "long 1:10": {"shape": "long", "ratio": 10.0},
}
PEERS = ("silhouette", "elbow", "gap", "BIC")


def planted(number: int, dim: int, kind: dict[str, Any], seed: int) -> np.ndarray:
    from cgjax.testing.clouds import make_clouds

    return make_clouds(number, dim, seed=seed, **kind).draw(
        np.random.default_rng(10_000 + seed), ROWS
    )[0]


def trial(job: tuple[int, int, str, dict[str, Any], int, bool]) -> tuple[Any, ...]:
    """Return what everybody chooses, and our seconds."""
    import jax

    from cgjax.clustering.selection import select_number

    number, dim, kind, settings, seed, with_peers = job
    rows = planted(number, dim, settings, seed)
    begun = time.perf_counter()
    chosen = {"ours": select_number(rows, MOST, key=jax.random.key(seed)).number}
    seconds = time.perf_counter() - begun
    if with_peers:
        chosen |= peers(rows, seed)
    return number, kind, chosen, seconds


def peers(rows: np.ndarray, seed: int) -> dict[str, int]:
    """Return what the usual criteria choose, in the span of 64 components."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score
    from sklearn.mixture import GaussianMixture

    from cgjax.clustering.selection.criteria import elbow, gap_choice
    from cgjax.numerics.pca import fit_pca

    rows = fit_pca(rows[:2000], 64).project(rows)
    rng = np.random.default_rng(seed)

    def inertias(part: np.ndarray) -> np.ndarray:
        fits = [KMeans(k, n_init=1, random_state=seed).fit(part) for k in range(1, MOST + 1)]
        return np.array([fit.inertia_ for fit in fits])

    part = rows[:2000]
    fits = [KMeans(k, n_init=3, random_state=seed).fit(part) for k in range(1, MOST + 1)]
    widths = [silhouette_score(part, fit.labels_) for fit in fits[1:]]
    few = rows[:1000]
    low, high = few.min(axis=0), few.max(axis=0)
    logs = [np.log(inertias(rng.uniform(low, high, few.shape))) for _ in range(20)]
    gaps = np.mean(logs, axis=0) - np.log(inertias(few))
    spread = np.std(logs, axis=0) * np.sqrt(1 + 1 / 20)
    bic = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not converged
        for kind in ("spherical", "diag", "tied", "full"):
            for k in range(1, MOST + 1):
                mixture = GaussianMixture(k, covariance_type=kind, max_iter=50, random_state=seed)
                bic[kind, k] = mixture.fit(rows[:4000]).bic(rows[:4000])
    return {
        "silhouette": 2 + int(np.argmax(widths)),
        "elbow": elbow([fit.inertia_ for fit in fits]),
        "gap": gap_choice(list(zip(gaps.tolist(), spread.tolist(), strict=True))),
        "BIC": min(bic, key=lambda case: bic[case])[1],
    }


def compare(dim: int, trials: int, peer_trials: int, hard: bool, processes: int) -> None:
    """Print for each true number and kind how often everybody is right."""
    jobs = []
    for number in NUMBERS:
        kinds = ONE if number == 1 else HARD if hard else SEVERAL
        if hard and number == 1:
            continue
        for seed in range(trials):
            kind, settings = list(kinds.items())[seed % len(kinds)]
            jobs.append((number, dim, kind, settings, seed, seed < peer_trials))
    with get_context("spawn").Pool(processes) as pool:
        results = []
        for done in pool.imap_unordered(trial, jobs):
            results.append(done)
            if len(results) % 20 == 0:
                print(f"{len(results)} of {len(jobs)}", file=sys.stderr, flush=True)
    print(f"d = {dim}, {ROWS:,} rows, right number of trials (with what was chosen instead)")
    for number in NUMBERS:
        for kind in dict.fromkeys(job[2] for job in jobs if job[0] == number):
            print_line(
                f"k = {number:>2} {kind}", number, [r for r in results if r[:2] == (number, kind)]
            )
    for number in NUMBERS:
        print_line(f"k = {number:>2}, all kinds", number, [r for r in results if r[0] == number])
    right = [(name, r[2][name] == r[0]) for r in results for name in r[2]]
    for name in ("ours", *PEERS):
        own = [is_right for other, is_right in right if other == name]
        if own:
            print(f"{name}: {sum(own)} of {len(own)} ({sum(own) / len(own):.1%})")
    paired = [r for r in results if len(r[2]) > 1]
    if paired:
        same = sum(r[2]["ours"] == r[0] for r in paired)
        print(f"ours, on the peers' trials only: {same} of {len(paired)}")
    print(f"median seconds of a choice: {np.median([r[3] for r in results]):.2f}")


def print_line(title: str, number: int, results: list[tuple[Any, ...]]) -> None:
    cells = []
    for name in ("ours", *PEERS):
        chosen = [r[2][name] for r in results if name in r[2]]
        if chosen:
            wrong = Counter(value for value in chosen if value != number)
            others = " ".join(f"{k}x{times}" for k, times in sorted(wrong.items()))
            cells.append(
                f"{name} {len(chosen) - wrong.total()}/{len(chosen)}"
                + (f" ({others})" if others else "")
            )
    if cells:
        print(f"{title:<24} {', '.join(cells)}")


def cost(reps: int) -> None:
    """Print the seconds of choosing and of one clustering with 16 clusters and ten restarts."""
    import jax

    from cgjax.clustering import kmeans
    from cgjax.clustering.selection import select_number

    for dim, kind in ((64, {"ratio": 10.0}), (8192, {"ratio": 10.0})):
        rows = planted(MOST, dim, kind, 0)
        placed = jax.device_put(rows)
        keys = iter(jax.random.split(jax.random.key(0), 100))

        def cluster(placed: Any = placed, keys: Any = keys) -> None:
            kmeans(placed, MOST, key=next(keys)).labels.block_until_ready()

        def choose(rows: np.ndarray = rows, keys: Any = keys) -> None:
            select_number(rows, MOST, key=next(keys))

        calls: dict[str, Callable[[], Any]] = {"cluster": cluster, "choose": choose}
        seconds = medians(calls, reps)
        print(
            f"{ROWS:,} x {dim}: choosing among 1 to {MOST} {seconds['choose']:.2f} s, one "
            f"clustering into {MOST} with ten restarts {seconds['cluster']:.2f} s, ratio "
            f"{seconds['choose'] / seconds['cluster']:.2f}",
            flush=True,
        )


def embedded(layers: list[str], num: int, most: int) -> None:
    """Print what the embedded generator's layers hold, from fresh draws."""
    import jax

    import cgjax
    from cgjax.clustering.selection import SelectionOptions, select_number
    from cgjax.clustering.selection.words import table_text, tree_text

    gen = cgjax.load_generator("dcgan_faces")
    options = SelectionOptions(num_fit=3 * num // 10, num_third=num - 2 * (3 * num // 10))
    for layer in layers:

        def draw(key: Any, count: int, layer: str = layer) -> np.ndarray:
            latents = gen.sample_latents(key, count)
            parts = [gen.features(latents[i : i + 128], layer) for i in range(0, count, 128)]
            return np.concatenate([np.asarray(part).reshape(len(part), -1) for part in parts])

        found = select_number(draw, most, key=jax.random.key(0), options=options)
        print(f"{layer}: {found.reason}\n{found.basis}\n{table_text(found)}")
        print(f"{tree_text(found.tree)}\n{found.alternatives}\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--peer-trials", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--hard", action="store_true")
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--embedded", action="store_true")
    parser.add_argument("--layers", default="layer1,layer2,layer3,layer4")
    parser.add_argument("--latents", type=int, default=5000)
    parser.add_argument("--most", type=int, default=8)
    args = parser.parse_args()
    if args.cost:
        cost(args.reps)
    elif args.embedded:
        embedded(args.layers.split(","), args.latents, args.most)
    else:
        compare(args.dim, args.trials, args.peer_trials, args.hard, args.processes)


if __name__ == "__main__":
    main()
