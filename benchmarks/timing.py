"""How the benchmarks time: contenders in turn, medians, the same threads, an honest environment.

Import it before any library that computes.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

# These pin OpenBLAS, hence FAISS and NumPy, to kernels of an older processor.
for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(name, None)

THREADS = os.cpu_count() or 1


def medians(calls: Mapping[str, Callable[[], Any]], reps: int) -> dict[str, float]:
    """Return each call's median seconds; they take turns, so that a slow moment meets all alike.

    A call must return only when its work is done. The first round warms up and is not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for rep in range(reps + 1):
        for name, call in calls.items():
            time.sleep(0.02)  # until the last contender's threads stop waiting for more work
            begun = time.perf_counter()
            call()
            if rep:
                seconds[name].append(time.perf_counter() - begun)
    return {name: statistics.median(values) for name, values in seconds.items()}
