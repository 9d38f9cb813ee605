"""Milliseconds of drawing latents, beside making their images, for every fitted sampler of a run.

    python benchmarks/samplers.py runs/dcgan_pose [--num=2048] [--reps=5]

Medians of several repetitions, after a first one that compiles, of unverified draws, of verified
draws (the membership check runs the generator up to the layer), and of images.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax

import cgjax


def median_ms(call: Callable[[jax.Array], Any], num: int, reps: int) -> float:
    """Return the median milliseconds an image over repetitions with different keys."""
    call(jax.random.key(0))
    seconds = []
    for rep in range(reps):
        start = time.perf_counter()
        call(jax.random.key(1 + rep))
        seconds.append(time.perf_counter() - start)
    return 1e3 * statistics.median(seconds) / num


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--num", type=int, default=2048)
    parser.add_argument("--reps", type=int, default=5)
    args = parser.parse_args()
    run, num, reps = cgjax.load_run(args.run), args.num, args.reps

    def latents(name: str, verify: bool, key: jax.Array) -> Any:
        return run.draw(key, run.region(0), num, sampler=name, verify=verify)[0]

    first = run.sampler_names[0]
    z = latents(first, True, jax.random.key(0))
    images = median_ms(lambda _: run.generator.images(z), num, reps)
    print(f"{jax.devices()[0].device_kind}, {run.generator.layer}, images {images:.3f} ms each")
    print(f"{'sampler':<16}{'latents ms':>12}{'of images':>11}{'verified ms':>13}{'of images':>11}")
    for name in run.sampler_names:
        plain = median_ms(lambda k, n=name: latents(n, False, k), num, reps)
        checked = median_ms(lambda k, n=name: latents(n, True, k), num, reps)
        shares = f"{plain:>12.4f}{plain / images:>11.1%}{checked:>13.4f}{checked / images:>11.1%}"
        print(f"{name:<16}{shares}")


if __name__ == "__main__":
    main()
