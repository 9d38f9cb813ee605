"""How the benchmarks time, and what they hold a time against.

Contenders take turns and medians are compared, on the same threads, in an honest environment. A
ratio to a peer says little if that peer is held back, so beside it stands the floor: the matrix
products that the work cannot do without, each at the best rate that any library reached *in this
run at this shape* (XLA, OpenBLAS through NumPy, PyTorch).

FAISS's wheel brings an OpenBLAS that takes a processor it does not know for an older one. `Told`
runs a peer in a second process whose OpenBLAS is told, so that both are timed in the same run.

Import it before any library that computes.
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

# As the command line does; for every contender.
keep_freed_memory()

THREADS = os.cpu_count() or 1

Call = Callable[[], Any]
# A product's rows, the inner dimension, and its columns.
Shape = tuple[int, int, int]

# Seconds until the last contender's threads have stopped waiting for more work: OpenBLAS's keep a
# core busy for 2^26 of its cycles. After them a call that is shorter goes on for as long untimed:
# threads that slept may share a core for some hundredths of a second, until the system parts them.
PAUSE = 0.1

# A call of a product lasts at least so many operations: a small one is repeated inside it.
_OPERATIONS = 5e8


def medians(calls: Mapping[str, Call], reps: int) -> dict[str, float]:
    """Return each call's median seconds; see `in_turns`."""
    return {name: statistics.median(each) for name, each in in_turns(calls, reps).items()}


def in_turns(calls: Mapping[str, Call], reps: int) -> dict[str, list[float]]:
    """Return each call's seconds; they take turns, so that a slow moment meets all alike.

    A call must return only when its work is done. The first round warms up and is not counted.
    What is timed is one call of many in a row, as in a training.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for rep in range(reps + 1):
        for name, call in calls.items():
            time.sleep(PAUSE)
            took, until = _timed(call), time.perf_counter() + PAUSE
            while took < PAUSE and time.perf_counter() < until:
                took = _timed(call)
            if rep:
                seconds[name].append(took)
    return seconds


def _timed(call: Call) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def processor() -> str:
    """Return the processor's name, its vector units and the threads that everybody uses."""
    info = _cpu_info()
    flags = info.get("flags", info.get("Features", "")).split()
    units = [flag for flag in ("avx2", "avx512f", "amx_tile", "asimd") if flag in flags]
    name = info.get("model name", "unknown processor")
    return f"{name} ({', '.join(units) or 'vector units unknown'}), {THREADS} threads"


def openblas_core() -> str:
    """Return what OpenBLAS calls this processor, or the nearest that it has fast kernels for."""
    info = _cpu_info()
    if "avx512f" in info.get("flags", ""):
        return "SkylakeX"
    return "Zen" if "AMD" in info.get("vendor_id", "") else "Haswell"


def _cpu_info() -> dict[str, str]:
    """Return what the system says of its first processor; nothing where it has no such file."""
    file = Path("/proc/cpuinfo")
    text = file.read_text().split("\n\n")[0] if file.exists() else ""
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def product_rates(shapes: Iterable[Shape], reps: int) -> dict[Shape, float]:
    """Measure float32 matrix products; print every library's best rate and return the best of all.

    The best repetition counts, not the median: a floor that other work on the machine has raised
    would be none.

    Returns:
        Operations a second, by shape; a multiplication and an addition are two.
    """
    rates: dict[Shape, float] = {}
    for shape in shapes:
        rows, inner, columns = shape
        operations = 2.0 * rows * inner * columns
        repeats = max(1, round(_OPERATIONS / operations))
        seconds = in_turns(_products(shape, repeats), reps)
        found = {name: operations * repeats / min(each) for name, each in seconds.items()}
        rates[shape] = max(found.values())
        text = ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in found.items())
        print(f"  product {rows} x {inner} x {columns}, 1e9 operations/s: {text}", flush=True)
    return rates


def _products(shape: Shape, repeats: int) -> dict[str, Call]:
    """Return the product of random matrices by every library, so many times in a row."""
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
    """Return the seconds of so many products of each shape, at given rates."""
    return sum(
        count * 2.0 * rows * inner * columns / rates[rows, inner, columns]
        for (rows, inner, columns), count in products.items()
    )


_calls: dict[str, Call] = {}


def _begin(core: str, build: Callable[..., dict[str, Call]], args: tuple[Any, ...]) -> None:
    """Make the calls; FAISS's OpenBLAS reads the processor's name when FAISS is imported."""
    os.environ[CORE] = core
    import faiss  # noqa: F401

    _calls.update(build(*args))


def _faiss_cores() -> list[str]:
    """Return the processors for which FAISS's OpenBLAS computes in this process."""
    from threadpoolctl import threadpool_info

    libraries = (each for each in threadpool_info() if "faiss" in each["filepath"])
    return [each["architecture"] for each in libraries if "architecture" in each]


def _call(name: str) -> Any:
    return _calls[name]()


class Told:
    """A second process, whose FAISS is told this processor; it runs calls when asked.

    Example:
        told = Told(peers, 512)  # peers(512) returns calls by name, here and there
        medians({"faiss": peers(512)["faiss"], "faiss, told": told.call("faiss")}, reps=5)
    """

    def __init__(self, build: Callable[..., dict[str, Call]], *args: Any, core: str | None = None):
        """Start it.

        Args:
            build: makes the calls there, by name; a function of a benchmark's module.
            *args: of `build`.
            core: OpenBLAS's name of the processor; the one that fits by default.

        Raises:
            RuntimeError: FAISS's OpenBLAS did not take the name.
        """
        core = core or openblas_core()
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, context, _begin, (core, build, args))
        found = self._pool.submit(_faiss_cores).result()
        if core not in found:
            raise RuntimeError(f"FAISS was told {core} and computes for {found or 'none'}")

    def call(self, name: str) -> Call:
        """Return a call here that runs the one of that name there and returns what it does."""
        return lambda: self._pool.submit(_call, name).result()

    def close(self) -> None:
        """End it."""
        self._pool.shutdown()
