"""How the benchmarks time, and the floor that they compare a time with.

Contenders take turns on the same threads, and medians are compared. A ratio to a peer says little
if something holds that peer back, so the floor is printed too: the matrix products that the work
cannot avoid, each at the best rate that any library reached *in this run at this shape* (XLA,
OpenBLAS through NumPy, PyTorch).

FAISS's wheel contains an OpenBLAS that takes a processor it does not know for an older one. `Told`
runs a peer in a second process whose OpenBLAS is told the processor, so that both are timed in the
same run.

Import this module before any library that computes.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from cgjax.runtime.memory import keep_freed_memory

CORE = "OPENBLAS_CORETYPE"
# These pin OpenBLAS, hence FAISS and NumPy, to kernels of an older processor.
for name in (CORE, "OPENBLAS_L2_SIZE"):
    os.environ.pop(name, None)

# As the command line does, here for every contender.
keep_freed_memory()

CORES = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
THREADS = len(CORES)  # with taskset fewer than the machine has

Call = Callable[[], Any]
Shape = tuple[int, int, int]
"""A matrix product: rows, inner dimension, columns."""

PAUSE = 0.1
"""Seconds between two contenders, and of warming up.

The last contender's threads wait for more work before they sleep: OpenBLAS's keep a core busy for
2^26 of its cycles. Afterwards a call is repeated untimed for as long: threads that slept may share
a core for some hundredths of a second, until the system separates them.
"""

LONG = 2.0
"""Seconds of a call that is timed at once: such a warm-up would change it by a few hundredths."""

_OPERATIONS = 5e8  # least operations of a timed product; a small product is repeated


def medians(calls: Mapping[str, Call], reps: int) -> dict[str, float]:
    """Return each call's median seconds; see `in_turns`."""
    return {name: statistics.median(values) for name, values in in_turns(calls, reps).items()}


def cpu_medians(calls: Mapping[str, Call], reps: int) -> dict[str, float]:
    """Return each call's median CPU seconds, in turns: other processes do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for rep in range(reps + 1):
        for name, call in calls.items():
            start = time.process_time()
            call()
            if rep:
                seconds[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def in_turns(calls: Mapping[str, Call], reps: int) -> dict[str, list[float]]:
    """Return each call's seconds; the calls take turns, so that a slow moment affects all of them.

    A call must return only when its work is done. The first round warms up and is not counted.
    A timed call follows others of its kind, as in a training loop.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for rep in range(reps + 1):
        for name, call in calls.items():
            time.sleep(PAUSE)
            start = time.perf_counter()
            took = _timed(call)
            while took < LONG and time.perf_counter() < start + PAUSE + took:
                took = _timed(call)
            if rep:
                seconds[name].append(took)
    return seconds


def _timed(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def processor() -> str:
    """Return the processor's name, its vector units and the number of threads in use."""
    info = _cpu_info()
    flags = info.get("flags", info.get("Features", "")).split()
    units = [flag for flag in ("avx2", "avx512f", "amx_tile", "asimd") if flag in flags]
    name = info.get("model name", "unknown processor")
    return f"{name} ({', '.join(units) or 'vector units unknown'}), {THREADS} threads"


def openblas_core() -> str:
    """Return OpenBLAS's name for this processor, or for the nearest one with fast kernels."""
    info = _cpu_info()
    if "avx512f" in info.get("flags", ""):
        return "SkylakeX"
    return "Zen" if "AMD" in info.get("vendor_id", "") else "Haswell"


def _cpu_info() -> dict[str, str]:
    """Return the entries of /proc/cpuinfo for the first processor; empty without that file."""
    file = Path("/proc/cpuinfo")
    text = file.read_text().split("\n\n")[0] if file.exists() else ""
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def product_rates(shapes: Iterable[Shape], reps: int) -> dict[Shape, float]:
    """Measure float32 matrix products; print every library's best rate and return the best of all.

    The best repetition counts, not the median: other work on the machine must not raise the floor.

    Returns:
        Operations a second by shape; a multiplication and an addition count as two.
    """
    rates: dict[Shape, float] = {}
    for shape in shapes:
        rows, inner, columns = shape
        operations = 2.0 * rows * inner * columns
        repeats = max(1, round(_OPERATIONS / operations))
        seconds = in_turns(_products(shape, repeats), reps)
        best = {name: operations * repeats / min(values) for name, values in seconds.items()}
        rates[shape] = max(best.values())
        text = ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in best.items())
        print(f"  product {rows} x {inner} x {columns}, 1e9 operations/s: {text}", flush=True)
    return rates


def _products(shape: Shape, repeats: int) -> dict[str, Call]:
    """Return calls that multiply random matrices `repeats` times in a row, one per library."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import torch

    rows, inner, columns = shape
    rng = np.random.default_rng(0)
    a = rng.standard_normal((rows, inner), np.float32)
    b = rng.standard_normal((inner, columns), np.float32)
    out, placed = np.empty((rows, columns), np.float32), (jnp.asarray(a), jnp.asarray(b))
    at, bt, torch_out = torch.from_numpy(a), torch.from_numpy(b), torch.empty(rows, columns)
    product = jax.jit(lambda a, b: jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST))

    def xla() -> None:
        for _ in range(repeats):
            result = product(*placed)
        result.block_until_ready()

    def openblas() -> None:
        for _ in range(repeats):
            np.matmul(a, b, out=out)

    def of_torch() -> None:
        for _ in range(repeats):
            torch.mm(at, bt, out=torch_out)

    return {"XLA": xla, "OpenBLAS": openblas, "PyTorch": of_torch}


def floor(products: Mapping[Shape, float], rates: Mapping[Shape, float]) -> float:
    """Return the seconds that the given numbers of products of each shape take at given rates."""
    return sum(
        count * 2.0 * rows * inner * columns / rates[rows, inner, columns]
        for (rows, inner, columns), count in products.items()
    )


_calls: dict[str, Call] = {}


def _begin(core: str, build: Callable[..., dict[str, Call]], args: tuple[Any, ...]) -> None:
    """Build the calls; FAISS's OpenBLAS reads the processor's name when FAISS is imported."""
    os.environ[CORE] = core
    import faiss  # noqa: F401

    _calls.update(build(*args))


def _faiss_cores() -> list[str]:
    """Return the processors that FAISS's OpenBLAS uses kernels of in this process."""
    from threadpoolctl import threadpool_info

    libraries = (library for library in threadpool_info() if "faiss" in library["filepath"])
    return [library["architecture"] for library in libraries if "architecture" in library]


def _call(name: str) -> Any:
    return _calls[name]()


class Told:
    """A second process whose FAISS is told this processor, and which runs calls on request.

    Example:
        told = Told(peers, 512)  # peers(512) returns calls by name, in either process
        medians({"faiss": peers(512)["faiss"], "faiss, told": told.call("faiss")}, reps=5)
    """

    def __init__(self, build: Callable[..., dict[str, Call]], *args: Any, core: str | None = None):
        """Start the process.

        Args:
            build: returns the calls there, by name; a top-level function of a benchmark.
            *args: arguments of `build`.
            core: OpenBLAS's name of the processor; by default the result of `openblas_core`.

        Raises:
            RuntimeError: if FAISS's OpenBLAS did not accept the name.
        """
        core = core or openblas_core()
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, context, _begin, (core, build, args))
        cores = self._pool.submit(_faiss_cores).result()
        if core not in cores:
            raise RuntimeError(f"FAISS was told {core}, but uses kernels for {cores or 'nothing'}")

    def call(self, name: str) -> Call:
        """Return a call that runs the call of that name in the process and returns its result."""
        return lambda: self._pool.submit(_call, name).result()

    def close(self) -> None:
        """End the process."""
        self._pool.shutdown()
