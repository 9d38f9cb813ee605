"""Scores in the plane of the project's flow, trained without labels, beside a perfect sampler's.

    python benchmarks/plane_flow.py [--data=grid] [--points=100000] [--epochs=60] [--trials=3]

The points and scores are those of `--config=configs/scgan_grid.py`. A flow is not a GAN and cannot
collapse, so it shows what the scores look like when only precision remains to be gained.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np

from cgjax.endtoend.data import make_data
from cgjax.runtime.keys import named_key
from cgjax.samplers.base import group_members
from cgjax.samplers.flow import Flow

SCORED, REPEATS = 50_000, 100


def main() -> None:
    """Train, sample, score."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="grid", choices=("ring", "grid", "grid100"))
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--trials", type=int, default=3)
    given = parser.parse_args()
    data = make_data({"name": given.data, "radius": 2.0})
    flow = Flow(2, num_epochs=given.epochs, num_steps=given.steps)
    all_scores = []
    for trial in range(given.trials):
        key = named_key(jax.random.key(0), "trial", trial)
        rows = np.asarray(data.draw(named_key(key, "points"), given.points).rows)
        labels = np.zeros(len(rows), np.int32)
        members = group_members(rows, labels, 1, margins=np.zeros(len(rows), np.float32))
        started = time.monotonic()
        state = flow.init(named_key(key, "init"), members)
        for epoch in range(given.epochs):
            state, metrics = flow.epoch(state, members, named_key(key, "epoch", epoch), epoch)
        seconds = time.monotonic() - started
        points = np.asarray(flow.sample(state, named_key(key, "score"), 0, SCORED))
        scores = data.scores(points)
        all_scores.append(scores)
        print(f"trial {trial}: {seconds:.0f} s, loss {float(metrics['loss'][0]):.4f}", scores)
    perfect = data.perfect(jax.random.key(0), SCORED, REPEATS)
    for name, expected in perfect.items():
        mean = np.mean([scores[name] for scores in all_scores])
        low, high = expected.interval
        print(f"{name:<20}{mean:>10.5g}   perfect {expected.mean:.5g} ({low:.5g} to {high:.5g})")


if __name__ == "__main__":
    main()
