"""Start a run as several processes on this machine, on its CPU cores or its GPUs.

    python launch/local.py --processes=2 -- --config=configs/dcgan_pose.py --workdir=runs/x

The arguments after `--` go to `python -m cgjax.main`. Only the output of the first process is
shown, and the last lines of one that fails. Ctrl-C and SIGTERM go to all processes: they save and
exit 130. If a process fails, the others are ended and a message names it.
"""

from __future__ import annotations

import collections
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import IO

from cgjax.runtime.signals import SIGNALS, quit_on_signals

if __name__ == "__main__":
    quit_on_signals()

from absl import flags

from cgjax.errors import UserError
from cgjax.runtime.address import COORDINATOR, PROCESS, PROCESSES
from cgjax.runtime.command import run_command

# Seconds that the others have to end by themselves after one has failed, and then after SIGTERM.
GRACE_S = 8.0

ABORTED = -signal.SIGABRT

_PROCESSES = flags.DEFINE_integer("processes", None, "Number of processes to start, at least 1.")


class Child:
    """One of the processes, and the last lines that it wrote to stderr."""

    def __init__(self, index: int, arguments: Sequence[str], environment: dict[str, str]):
        self.index = index
        is_first = index == 0
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cgjax.main", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=None if is_first else subprocess.DEVNULL,
            stderr=None if is_first else subprocess.PIPE,
            # Ctrl-C in a terminal then reaches only us, and the process does not get it twice.
            start_new_session=True,
        )
        self.lines: collections.deque[str] = collections.deque(maxlen=40)
        self._reader: threading.Thread | None = None
        if self.process.stderr is not None:
            stream = self.process.stderr
            self._reader = threading.Thread(target=self._read, args=(stream,), daemon=True)
            self._reader.start()

    def _read(self, stream: IO[bytes]) -> None:
        for line in stream:
            self.lines.append(line.decode(errors="replace").rstrip())

    def last_words(self) -> list[str]:
        """Return the last lines it wrote to stderr, unless they were shown already."""
        if self._reader is not None:
            self._reader.join(timeout=1.0)
        return list(self.lines)


def start(num: int, arguments: Sequence[str]) -> Iterator[Child]:
    """Start the processes in turn, each with its share of the cores or GPUs.

    Raises:
        UserError: there are fewer GPUs, or the system starts no more processes.
    """
    address = f"127.0.0.1:{free_port()}"
    environment = {**os.environ, COORDINATOR: address, PROCESSES: str(num)}
    num_gpus = count_gpus(environment)
    if 0 < num_gpus < num:
        raise UserError(
            f"--processes={num}: expected at most one per GPU ({num_gpus}); to use the CPU "
            "instead, put JAX_PLATFORMS=cpu in front"
        )
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    for index in range(num):
        own = {**environment, PROCESS: str(index)}
        if num_gpus:
            own["JAX_LOCAL_DEVICE_IDS"] = ",".join(str(g) for g in range(num_gpus)[index::num])
        elif len(cores) >= num:
            os.sched_setaffinity(0, cores[index::num])  # the process that is started next inherits
        try:
            child = Child(index, arguments, own)
        except OSError as error:
            raise UserError(
                f"--processes={num}: process {index} cannot be started ({error.strerror or error})"
                "; give fewer"
            ) from error
        yield child
    if cores:
        os.sched_setaffinity(0, cores)


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def count_gpus(environment: dict[str, str]) -> int:
    """Return the number of NVIDIA GPUs that JAX would use."""
    if environment.get("JAX_PLATFORMS", "cuda").split(",")[0] not in ("cuda", "gpu", ""):
        return 0
    if "CUDA_VISIBLE_DEVICES" in environment:
        shown = environment["CUDA_VISIBLE_DEVICES"].split(",")
        return len(list(itertools.takewhile(lambda g: g not in ("", "-1"), shown)))  # as CUDA does
    if shutil.which("nvidia-smi") is None:
        return 0
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def wait(children: Sequence[Child]) -> Child | None:
    """Wait until all have ended; if one fails, end the others. Return the failed one, if any."""
    failed: list[Child] = []  # without a signal from us, in order
    deadline, number = 0.0, signal.SIGTERM
    while True:
        running = [c for c in children if c.process.poll() is None]
        if number == signal.SIGTERM:
            failed += [c for c in children if c.process.returncode and c not in failed]
        if not running:
            break
        if failed and not deadline:
            deadline = time.monotonic() + GRACE_S
        if deadline and time.monotonic() > deadline:
            for child in running:
                child.process.send_signal(number)
            deadline, number = time.monotonic() + GRACE_S, signal.SIGKILL
        time.sleep(0.02)
    # A killed process is the cause, even if others were seen to end before it: JAX aborts a process
    # when another one is gone.
    killed = [c for c in failed if c.process.returncode < 0 and c.process.returncode != ABORTED]
    return next(iter(killed + failed), None)


def report(failed: Child | None, first: Child, was_stopped: bool) -> int:
    """Name the failed process, unless the first has explained its end; return the exit code."""
    if failed is None:
        return 0
    if was_stopped or first.process.returncode in (2, 130):
        return 130 if was_stopped else first.process.returncode
    code = failed.process.returncode
    for line in failed.last_words():
        print(f"[process {failed.index}] {line}", file=sys.stderr)
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit {code}"
    print(
        f"error: process {failed.index} {how} and the others were ended; once that is fixed, run "
        "the same command again to resume",
        file=sys.stderr,
    )
    return 2 if code == 2 else 1


def main(argv: Sequence[str]) -> None:
    """Start the processes, wait for them, and exit as they did."""
    num = _PROCESSES.value
    if num is None or num < 1:
        raise UserError(
            f"--processes={num}: expected at least 1; for example: python launch/local.py "
            "--processes=2 -- --config=configs/dcgan_pose.py"
        )
    was_stopped = False
    children: list[Child] = []

    def forward(number: int, frame: FrameType | None) -> None:
        nonlocal was_stopped
        was_stopped = True
        for child in children:
            child.process.send_signal(number)

    for number in SIGNALS:
        signal.signal(number, forward)
    try:
        for child in start(num, argv[1:]):
            children.append(child)  # at once, so that it is ended if another one cannot be started
        if was_stopped:  # before they were all there
            forward(signal.SIGTERM, None)
        failed = wait(children)
    finally:
        for child in children:
            if child.process.poll() is None:
                child.process.kill()
    sys.exit(report(failed, children[0], was_stopped))


if __name__ == "__main__":
    sys.exit(run_command(main))
