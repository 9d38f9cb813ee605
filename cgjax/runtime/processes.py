"""Several processes of one run, on JAX's own runtime: how they start, keep in step, and end.

Every process runs the same program. What must be decided or written once is done by the first
process while the others wait for the result. All communication is by JAX's collectives, and JAX's
runtime detects that a process is gone.

A launcher sets three variables (`address`; `launch/` has launchers for one machine, Slurm and
Kubernetes). Without them a run is one process, and nothing here has any effect.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Mapping
from logging import ERROR, getLogger
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, runtime_checkable

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from cgjax.errors import ForeignError, Interrupted, UserError
from cgjax.runtime.address import COORDINATOR, read_address

# Seconds: without a heartbeat, until a process counts as dead and the others end; that the first
# process waits for all to start; that a finished process waits for the others.
HEARTBEAT_S = 20
START_S = 300
SHUTDOWN_S = 30

# XLA gives up on a CPU collective after half an hour, but the others may wait for hours while the
# first process evaluates. A dead process is detected by its heartbeat instead.
_PATIENCE = "--xla_cpu_collective_timeout_seconds=604800"

# Bytes sent at a time.
CHUNK = 2**26

# The errors of the first process that are raised in the others too.
_SENT = (UserError, Interrupted, ForeignError)

Value = TypeVar("Value")
Tree = TypeVar("Tree")


class Processes:
    """The processes of a run and what they do together; one process by default.

    Every process must call these methods in the same order. Inside a function that `first` runs,
    and in a run of one process, they act on this process alone, without waiting.

    Attributes:
        index: the number of this process, from 0.
        num: the number of processes.
    """

    def __init__(self, index: int = 0, num: int = 1):
        self.index, self.num = index, num
        self._is_alone = num == 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes the run's files."""
        return self.index == 0

    def first(self, function: Callable[[], Value]) -> Value:
        """Run a function in the first process only, and return its result in all of them.

        Args:
            function: its result must be JSON-able; in a run of one process it may be anything.

        Raises:
            UserError, Interrupted, ForeignError: in every process, if the function raised it in
                the first; only there does it have its cause.
        """
        if self._is_alone:
            return function()
        outcome: dict[str, Any] = {}
        raised: Exception | None = None
        if self.is_first:
            self._is_alone = True
            try:
                outcome["value"] = function()
            except _SENT as error:
                kind = next(kind for kind in _SENT if isinstance(error, kind))
                outcome[kind.__name__], raised = str(error), error
            finally:
                self._is_alone = False
        outcome = json.loads(self.send(json.dumps(outcome).encode()))
        if raised is not None:
            raise raised
        for kind in _SENT:
            if kind.__name__ in outcome:
                raise kind(outcome[kind.__name__])
        value: Value = outcome["value"]
        return value

    def send(self, data: bytes) -> bytes:
        """Return the first process's bytes in all of them; the others' own are ignored."""
        if self._is_alone:
            return data
        # As two numbers of 30 bits, since JAX has no 64-bit integers by default.
        parts = np.array(divmod(len(data), 2**30), np.int32)
        high, low = multihost_utils.broadcast_one_to_all(parts).tolist()
        length, sent = high * 2**30 + low, bytearray()
        while len(sent) < length:
            size = min(CHUNK, length - len(sent))
            # Lengths are rounded up to a power of two, so that few shapes are compiled.
            chunk = np.zeros(1 << max(10, (size - 1).bit_length()), np.uint8)
            if self.is_first:
                chunk[:size] = np.frombuffer(data, np.uint8, size, len(sent))
            sent += np.asarray(multihost_utils.broadcast_one_to_all(chunk))[:size].tobytes()
        return bytes(sent)

    def send_tree(self, tree: Tree) -> Tree:
        """Return the first process's arrays in all of them, bit for bit, as NumPy arrays.

        Args:
            tree: a pytree of arrays; in the other processes only shapes and dtypes matter.
        """
        if self._is_alone:
            return tree
        leaves, structure = jax.tree.flatten(tree)
        arrays = [np.asarray(leaf) for leaf in leaves]
        data = self.send(b"".join(a.tobytes() for a in arrays))
        sent, begin = [], 0
        for a in arrays:
            part = np.frombuffer(data, a.dtype, a.size, begin)
            sent.append(part.reshape(a.shape))
            begin += a.nbytes
        return jax.tree.unflatten(structure, sent)

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process."""
        if self._is_alone:
            return flag
        return bool(multihost_utils.process_allgather(np.int32(flag)).any())

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows of all processes, in their order; each has the same number of rows."""
        if self._is_alone:
            return rows
        return np.asarray(multihost_utils.process_allgather(rows, tiled=True))

    def share(self, num: int) -> range:
        """Return this process's part of `num` work items, in order.

        Example:
            >>> [list(Processes(index, 2).share(5)) for index in range(2)]
            [[0, 1, 2], [3, 4]]
        """
        if self._is_alone:
            return range(num)
        size = self.largest_share(num)
        return range(min(num, self.index * size), min(num, (self.index + 1) * size))

    def largest_share(self, num: int) -> int:
        """Return the number of work items of the first process, which has the most."""
        return num if self._is_alone else -(-num // self.num)


ALONE = Processes()
"""The processes of a run that has only this one."""


def start_jax() -> None:
    """Fix the random number generator, whatever the environment says, and find the devices.

    Raises:
        UserError: JAX_PLATFORMS names devices that do not exist here.
    """
    jax.config.update("jax_default_prng_impl", "threefry2x32")
    jax.config.update("jax_threefry_partitionable", True)
    platforms = os.environ.get("JAX_PLATFORMS")
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        if not platforms:
            raise
        raise UserError(
            f"JAX_PLATFORMS={platforms}: JAX finds no such devices here; unset it, or install JAX "
            "for them: pip install 'cgjax[cuda]'"
        ) from error


def start_processes(environment: Mapping[str, str]) -> Processes:
    """Connect to the other processes, if a launcher has started any.

    Must be called before JAX is used. Only the first process logs more than warnings.

    Raises:
        UserError: the launcher's variables are invalid, or the others do not start in time.
    """
    address = read_address(environment)
    if address is None:
        return ALONE
    os.environ["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {_PATIENCE}".strip()
    # It would handle SIGTERM in our place; the processes agree on when to stop by themselves.
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # JAX's own messages add nothing to ours, and warn about proxies.
    getLogger("jax._src.distributed").setLevel(ERROR)
    if address.process:
        logging.set_verbosity(logging.WARNING)
    logging.info("process %d of %d, first at %s", address.process, address.num, address.coordinator)
    host, _, port = address.coordinator.rpartition(":")
    is_local = host in ("127.0.0.1", "localhost")
    # gRPC would go through an http_proxy to reach the first process.
    direct = environment.get("no_grpc_proxy") or environment.get("no_proxy", "")
    os.environ["no_grpc_proxy"] = f"{direct},{host}".strip(",")  # noqa: SIM112  (gRPC reads it in lower case)
    try:
        jax.distributed.initialize(
            coordinator_address=address.coordinator,
            num_processes=address.num,
            process_id=address.process,
            cluster_detection_method="deactivate",
            initialization_timeout=START_S,
            heartbeat_timeout_seconds=HEARTBEAT_S,
            shutdown_timeout_seconds=SHUTDOWN_S,
            coordinator_bind_address=f"127.0.0.1:{port}" if is_local else None,
        )
    except RuntimeError as error:
        raise UserError(
            f"process {address.process} of {address.num} could not connect to the coordinator at "
            f"{address.coordinator} within {START_S} s ({str(error).splitlines()[0][:200]}); start "
            f"all processes, with a {COORDINATOR} that each of them can reach"
        ) from error
    return Processes(address.process, address.num)


@runtime_checkable
class _HasProcesses(Protocol):
    processes: Processes


_Self = TypeVar("_Self", bound=_HasProcesses)
_Arguments = ParamSpec("_Arguments")


def by_the_first(
    method: Callable[Concatenate[_Self, _Arguments], Value],
) -> Callable[Concatenate[_Self, _Arguments], Value]:
    """Let the first process run a method while the others wait for its result.

    The object must have an attribute `processes`.
    """

    @functools.wraps(method)
    def run_by_the_first(
        self: _Self, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> Value:
        return self.processes.first(lambda: method(self, *args, **kwargs))

    return run_by_the_first
