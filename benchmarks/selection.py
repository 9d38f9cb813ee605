"""How often the number of clusters is chosen right, beside the usual criteria, and its cost.

    python benchmarks/selection.py planted --dim=64 --trials=100 --peer-trials=10
    python benchmarks/selection.py planted --dim=8192 --trials=20 --peer-trials=2
    python benchmarks/selection.py planted --hard --trials=20     # closer, or worse shapes
    python benchmarks/selection.py table [--hard]                 # of the finished trials
    python benchmarks/selection.py cost                           # beside one clustering
    python benchmarks/selection.py embedded [--layers=layer1,layer2]    # the face generator

Planted: Gaussian clusters with centres in random directions of 64 strong ones, so far apart that
99% of the rows are nearest to their own true centre. Beyond 64 features the strong directions lie
at random angles and every feature carries noise of standard deviation 0.1. Trials alternate between
kinds: of several clusters "round" (unit variance, equal shares), "round 1:10" (shares from 1 to 10,
geometric) and "long" (each with standard deviation 3 in a direction of its own, equal shares); of
one cluster "round", "long" (10) and "tapering" (10, 10/2, 10/3, ...). `--hard` has 95%
instead, and long clusters with shares 1:10, which k-means cuts before it separates two clusters.
Rows: 10,000 a trial. Each trial is a line of `--out`; finished trials are not repeated, so the same
command resumes after an interruption.

The seeds of the table in docs/experiments.md start at 500,000 (`--first-seed`). The method was
developed with the seeds from 0 on; the others were unseen until it was final.

The peers get the same rows in the same span of 64 components, but only in the first
`--peer-trials` trials of each number, since they take most of a minute: scikit-learn's silhouette
(its maximum) and the elbow (farthest below the chord) of its KMeans on 2,000 rows, the gap
statistic (20 references in the box along the principal axes, 1,000 rows) and its GaussianMixture on
4,000 rows with the least BIC over four covariances, all for 1 to 16 clusters.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if "planted" in sys.argv:  # long runs leave the other cores alone
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
import numpy as np
from timing import medians

NUMBERS, MOST, ROWS = (1, 2, 3, 5, 8, 16), 16, 10_000
ONE = {"round": {}, "long": {"shape": "long"}, "tapering": {"shape": "tapering"}}
SEVERAL = {"round": {}, "round 1:10": {"ratio": 10.0}, "long": {"shape": "long"}}
HARD = {
    "round, 95%": {"accuracy": 0.95},
    "round 1:10, 95%": {"accuracy": 0.95, "ratio": 10.0},
    "long 1:10": {"shape": "long", "ratio": 10.0},
}
PEERS = ("silhouette", "elbow", "gap", "BIC")
WHICH = ("dim", "number", "kind", "seed")
COLUMNS = (*WHICH, "ours", "seconds", *PEERS)


def planted(number: int, dim: int, kind: str, seed: int) -> np.ndarray:
    """Return one trial's rows."""
    from cgjax.testing.clouds import make_clouds

    settings: dict[str, Any] = {**SEVERAL, **HARD, **(ONE if number == 1 else {})}[kind]
    clouds = make_clouds(number, dim, seed=seed, **settings)
    return clouds.draw(np.random.default_rng((seed, number, dim)), ROWS)[0]


def run_planted(args: argparse.Namespace) -> None:
    """Run the unfinished trials, all numbers in turn, and append each to the file."""
    import jax

    from cgjax.clustering.selection import choose_num_clusters

    done = {tuple(line[name] for name in WHICH) for line in read(args.out)}
    is_new = not args.out.exists()
    with args.out.open("a", newline="") as file:
        lines = csv.DictWriter(file, COLUMNS)
        if is_new:
            lines.writeheader()
        for trial, number in itertools.product(range(args.trials), NUMBERS):
            kinds = ONE if number == 1 else HARD if args.hard else SEVERAL
            kind, seed = list(kinds)[trial % len(kinds)], args.first_seed + trial
            which = dict(zip(WHICH, (args.dim, number, kind, seed), strict=True))
            if tuple(map(str, which.values())) in done or (args.hard and number == 1):
                continue
            rows = planted(number, args.dim, kind, seed)
            start = time.perf_counter()
            chosen = choose_num_clusters(rows, MOST, key=jax.random.key(seed)).num_clusters
            seconds = f"{time.perf_counter() - start:.2f}"
            others = peers(rows, seed) if trial < args.peer_trials else {}
            lines.writerow({**which, "ours": chosen, "seconds": seconds, **others})
            file.flush()


def read(path: Path) -> list[dict[str, str]]:
    """Return the trials in a file."""
    return list(csv.DictReader(path.open(newline=""))) if path.exists() else []


def elbow(inertias: Sequence[float]) -> int:
    """Return the number whose W_k lies farthest below the chord of the curve, from k = 1."""
    values = np.asarray(inertias)
    height = (values - values[-1]) / (values[0] - values[-1])
    return 1 + int(np.argmax(1.0 - np.linspace(0.0, 1.0, len(values)) - height))


def peers(rows: np.ndarray, seed: int) -> dict[str, int]:
    """Return the numbers that the usual criteria choose in the span of 64 components."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score
    from sklearn.mixture import GaussianMixture

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
    is_enough = np.append(gaps[:-1] >= gaps[1:] - spread[1:], True)
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
        "gap": 1 + int(np.argmax(is_enough)),
        "BIC": min(bic, key=lambda case: bic[case])[1],
    }


def run_table(args: argparse.Namespace) -> None:
    """Print how often each method is right, by dimension, true number and kind."""
    trials = [
        line
        for line in read(args.out)
        if int(line["seed"]) >= args.first_seed and (line["kind"] in HARD) == args.hard
    ]
    for dim in sorted({int(line["dim"]) for line in trials}):
        own = [line for line in trials if int(line["dim"]) == dim]
        print(f"d = {dim}, {ROWS:,} rows, right number of trials (with what was chosen instead)")
        for number in NUMBERS:
            same = [line for line in own if int(line["number"]) == number]
            for kind in dict.fromkeys(line["kind"] for line in same):
                print_line(f"k = {number:>2} {kind}", [t for t in same if t["kind"] == kind])
            print_line(f"k = {number:>2}, all kinds", same)
        print_line("all", own)
        print_line("all that peers saw", [line for line in own if line["BIC"]])
        seconds = np.median([float(line["seconds"]) for line in own])
        print(f"median seconds of a choice: {seconds:.2f}")


def print_line(title: str, trials: list[dict[str, str]]) -> None:
    cells = []
    for name in ("ours", *PEERS):
        seen = [line for line in trials if line[name]]
        if seen:
            wrong = Counter(int(t[name]) for t in seen if t[name] != t["number"])
            others = " ".join(f"{k}x{times}" for k, times in sorted(wrong.items()))
            cells.append(
                f"{name} {len(seen) - wrong.total()}/{len(seen)}"
                + (f" ({others})" if others and "all" not in title else "")
            )
    if cells:
        print(f"{title:<24} {', '.join(cells)}")


def run_cost(args: argparse.Namespace) -> None:
    """Print the seconds of choosing and of one clustering with 16 clusters and ten restarts."""
    import jax

    from cgjax.clustering import kmeans
    from cgjax.clustering.selection import choose_num_clusters

    for dim in (64, 8192):
        rows = planted(MOST, dim, "round 1:10", 0)
        placed = jax.device_put(rows)
        keys = iter(jax.random.split(jax.random.key(0), 100))

        def cluster(placed: Any = placed, keys: Any = keys) -> None:
            kmeans(placed, MOST, key=next(keys)).labels.block_until_ready()

        def choose(rows: np.ndarray = rows, keys: Any = keys) -> None:
            choose_num_clusters(rows, MOST, key=next(keys))

        calls: dict[str, Callable[[], Any]] = {"cluster": cluster, "choose": choose}
        seconds = medians(calls, args.reps)
        print(
            f"{ROWS:,} x {dim}: choosing among 1 to {MOST} {seconds['choose']:.2f} s, one "
            f"clustering into {MOST} with ten restarts {seconds['cluster']:.2f} s, ratio "
            f"{seconds['choose'] / seconds['cluster']:.2f}",
            flush=True,
        )


def run_embedded(args: argparse.Namespace) -> None:
    """Print the number chosen for the embedded generator's layers, on fresh draws, several keys."""
    import jax

    import cgjax
    from cgjax.clustering.selection import choose_num_clusters
    from cgjax.clustering.selection.words import table_text, tree_text

    gen = cgjax.load_generator("dcgan_faces")
    for layer in args.layers.split(","):

        def draw(key: Any, count: int, layer: str = layer) -> np.ndarray:
            latents = gen.sample_latents(key, count)
            parts = [gen.features(latents[i : i + 128], layer) for i in range(0, count, 128)]
            return np.concatenate([np.asarray(part).reshape(len(part), -1) for part in parts])

        for seed in range(args.keys):
            choice = choose_num_clusters(
                draw, args.most, key=jax.random.key(seed), num_rows=args.latents
            )
            print(f"{layer}, key {seed}: {choice.reason}", flush=True)
        print(f"{choice.basis}\n{table_text(choice)}\n{tree_text(choice)}\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    runs = {
        "planted": run_planted,
        "table": run_table,
        "cost": run_cost,
        "embedded": run_embedded,
    }
    parser.add_argument("run", choices=runs)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--peer-trials", type=int, default=0)
    parser.add_argument("--first-seed", type=int, default=500_000)
    parser.add_argument("--hard", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("selection.csv"))
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--layers", default="layer1,layer2,layer3,layer4")
    parser.add_argument("--keys", type=int, default=5)
    parser.add_argument("--latents", type=int, default=10_000)
    parser.add_argument("--most", type=int, default=8)
    args = parser.parse_args()
    runs[args.run](args)


if __name__ == "__main__":
    main()
