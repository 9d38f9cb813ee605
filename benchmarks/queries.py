"""The acceptance that is printed before a query is drawn, beside the acceptance on fresh latents.

    python benchmarks/queries.py --workdir=RUN [--fresh=20000]

RUN is a folder with a sweep. Ten queries of its clusterings are tried, with shares from about one
half down to 0.2%; some are intersections of clusters of two layers. For each, the interval printed
beforehand, which comes from the run's latents, stands beside the share of fresh latents inside it.
"""

from __future__ import annotations

import argparse
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from cgjax.generators.batching import in_batches
from cgjax.numerics.intervals import wilson_interval
from cgjax.regions.acceptance import expected_acceptance
from cgjax.run.opening import load_run
from cgjax.run.run import Run

SHARES = (0.5, 0.25, 0.12, 0.06, 0.04, 0.02, 0.01, 0.005, 0.003, 0.002)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--fresh", type=int, default=20_000)
    options = parser.parse_args()
    run = load_run(options.workdir)
    queries = choose(run)
    regions = [run.region(query) for query in queries]

    def inside(z: jax.Array) -> jax.Array:
        # Compute every layer once for all regions.
        layer = functools.cache(lambda name: run.generator.at_layer(name).features(z))
        return jnp.stack([region.contains(layer) for region in regions], axis=1)

    z = np.asarray(run.generator.sample_latents(jax.random.key(123), options.fresh))
    counts = in_batches(inside, z, run.generator.batch).sum(axis=0)
    within = touching = 0
    print(f"{'query':<34}{'expected':>9}{'interval':>20}{'seen':>9}{'interval':>20}")
    for query, region, count in zip(queries, regions, counts.tolist(), strict=True):
        expected, seen = expected_acceptance(region), count / options.fresh
        low, high = wilson_interval(count, options.fresh)
        within += expected.low <= seen <= expected.high
        touching += expected.low <= high and low <= expected.high
        print(
            f"{query:<34}{expected.share:>9.2%}{f'{expected.low:.2%} to {expected.high:.2%}':>20}"
            f"{seen:>9.2%}{f'{low:.2%} to {high:.2%}':>20}"
        )
    print(f"seen within the interval: {within} of {len(queries)}; intervals touch: {touching}")


def choose(run: Run) -> list[str]:
    """Return queries with about the shares `SHARES`: clusters, and intersections of two."""
    clusters = [
        (f"{id_}={c}", one, c) for id_, one in run.clusterings.items() for c in range(one.num)
    ]
    masks = {name: one.labels == c for name, one, c in clusters}
    shares = {name: float(mask.mean()) for name, mask in masks.items()}
    for (a, first, _), (b, second, _) in itertools.combinations(clusters, 2):
        if first.layer != second.layer:
            shares[f"{a} & {b}"] = float((masks[a] & masks[b]).mean())
    chosen = []
    for share in SHARES:
        chosen.append(min(shares, key=lambda name: abs(np.log(max(shares[name], 1e-9) / share))))
        del shares[chosen[-1]]
    return chosen


if __name__ == "__main__":
    main()
