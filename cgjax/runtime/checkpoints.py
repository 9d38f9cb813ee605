"""Saving and restoring samplers with orbax; the only module that imports it.

A step is a folder written by orbax, and beside it a small JSON file with the SHA-256 of every file
in the folder. The JSON is written last: a folder without it is not a step, and a step whose files
differ from it is refused, since orbax does not notice every damaged byte.

With several processes, all must call `save` (orbax synchronises them) and the first one writes;
`steps`, `restore` and `remove` are called by one process. All processes save the same content, so
that a step can be restored onto any number of processes.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from logging import Filter, LogRecord
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from orbax.checkpoint import v1 as ocp

from cgjax.errors import UserError
from cgjax.runtime.files import make_folder, read_sealed, sha256_of, write_sealed

KEEP = 2


class Step(NamedTuple):
    """A saved step: its number and the metadata it was saved with."""

    number: int
    metadata: dict[str, Any]


class Checkpoints:
    """The steps of one sampler in `folder`: `<number>/` and `<number>.json`."""

    def __init__(self, folder: Path):
        self.folder = Path(folder).absolute()

    def steps(self) -> list[Step]:
        """Return the completely saved steps, oldest first."""
        steps = []
        for path in self.folder.glob("*.json"):
            try:
                metadata = (read_sealed(path) or {})["metadata"]
                steps.append(Step(int(path.stem), dict(metadata)))
            except (ValueError, KeyError, TypeError):
                logging.warning("%s is damaged; this checkpoint is not used", path)
        return sorted(steps)

    def last(self, number: int, is_own: Callable[[Step], bool]) -> Step | None:
        """Return the newest step, if it has this number and belongs to the current training."""
        newest = next(reversed(self.steps()), None)
        return newest if newest and newest.number == number and is_own(newest) else None

    def save(self, number: int, tree: Any, metadata: dict[str, Any]) -> None:
        """Save a step and drop all but the last two.

        Args:
            number: of the step; a step of the same number is replaced.
            tree: a pytree of arrays, the same in every process.
            metadata: a JSON object, returned by `steps`.

        Raises:
            UserError: it cannot be written, for example because the disk is full; earlier steps
                stay.
        """
        path = self.folder / str(number)
        is_first = jax.process_index() == 0
        if jax.process_count() > 1:
            # As NumPy arrays: orbax refuses arrays that are on the devices of one process only.
            tree = jax.tree.map(np.asarray, tree)
        if is_first:
            self.remove(number)
            self._remove_leftovers()
            make_folder(self.folder)
        try:
            with _quiet(is_disk_error):
                ocp.save(str(path), tree, overwrite=True)
        except Exception as error:
            if not is_disk_error(error):
                raise
            if is_first:
                shutil.rmtree(path, ignore_errors=True)
                for _ in range(5):  # a thread of orbax may still be writing
                    self._remove_leftovers()
                    time.sleep(0.1)
            raise UserError(
                f"cannot write the checkpoint {path} ({_reason(error)}); free some space and run "
                "the same command again to resume"
            ) from error
        if not is_first:
            return
        content = {"metadata": metadata, "sha256": _hashes(path)}
        write_sealed(path.with_suffix(".json"), content)
        for step in self.steps()[:-KEEP]:
            self.remove(step.number)

    def restore(self, number: int, abstract: Any) -> Any:
        """Restore a step onto this process's first device, whichever devices it was saved from.

        Args:
            number: of the step.
            abstract: a pytree of shapes and dtypes, or of arrays; None for those that were saved.

        Returns:
            The pytree of arrays.

        Raises:
            UserError: a file is missing or differs from what was saved.
        """
        path = self.folder / str(number)
        self.check(number)
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        with _quiet(), _alone():
            if abstract is None:
                abstract = ocp.metadata(str(path)).metadata
            target = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), abstract
            )
            return ocp.load(str(path), target)

    def check(self, number: int) -> None:
        """Check that the files of a step are as they were saved.

        Raises:
            UserError: a file is missing or differs.
        """
        path = self.folder / str(number)
        try:
            content = read_sealed(path.with_suffix(".json")) or {}
            expected: dict[str, str] = dict(content["sha256"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path.with_suffix('.json')} is missing or damaged") from error
        actual = _hashes(path)
        # Additional files are ignored.
        bad = sorted(name for name, sha256 in expected.items() if sha256 != actual.get(name))
        if bad:
            raise UserError(
                f"checkpoint {path} is damaged ({path / bad[0]} is not what was saved); run "
                "again to train from the step before it"
            )

    def is_whole(self, number: int) -> bool:
        """Whether the files of a step are as they were saved."""
        try:
            self.check(number)
        except UserError:
            return False
        return True

    def restore_newest(
        self, abstract: Any, is_own: Callable[[Step], bool]
    ) -> tuple[Step, Any] | None:
        """Restore the newest usable step; remove newer ones that are foreign or damaged.

        Args:
            abstract: as in `restore`.
            is_own: whether a step belongs to the current training.

        Returns:
            The step and its pytree, or None if there is no usable step.
        """
        for step in reversed(self.steps()):
            if not is_own(step):
                self.remove(step.number)
                continue
            try:
                return step, self.restore(step.number, abstract)
            except UserError as error:
                logging.warning("%s; using the checkpoint before it", error)
                self.remove(step.number)
        return None

    def remove(self, number: int) -> None:
        """Remove a step, its JSON first, so that an interruption never leaves half a step."""
        path = self.folder / str(number)
        path.with_suffix(".json").unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)

    def _remove_leftovers(self) -> None:
        """Remove what a kill or a full disk has left: orbax's temporary folders, unfinished steps.

        Called only by the process that writes, before it writes.
        """
        for path in self.folder.glob("*"):
            is_step = path.name.isdigit() and not path.with_suffix(".json").exists()
            if is_step or ".orbax-checkpoint-tmp" in path.name:
                shutil.rmtree(path, ignore_errors=True)


def is_disk_error(error: BaseException) -> bool:
    """Return whether an error of orbax, or one of its causes, comes from the disk.

    Python raises OSError; the library that writes the arrays raises ValueError with the system's
    error number in its text.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if isinstance(current, OSError) and current.errno is not None:
            return True
        if "os_error_code=" in str(current) or "RESOURCE_EXHAUSTED" in str(current):
            return True
        current = current.__cause__ or current.__context__
    return False


def _reason(error: BaseException) -> str:
    """Return the system's message from orbax's, which is long."""
    text = " ".join(str(error).split())
    code = re.search(r"os_error_code='?(\d+)", text)
    if code:
        return os.strerror(int(code[1]))
    return (isinstance(error, OSError) and error.strerror) or text[:100]


@contextlib.contextmanager
def _quiet(is_reported: Callable[[Exception], bool] = lambda error: False) -> Iterator[None]:
    """Keep orbax's twenty lines per step out of the log; its warnings and errors are logged last.

    Args:
        is_reported: whether the caller reports an error itself, so that nothing need be logged.
    """
    held = _Held()
    logger, before = logging.get_absl_logger(), logging.get_verbosity()
    logging.set_verbosity(min(before, logging.WARNING))
    logger.addFilter(held)
    try:
        yield
    except Exception as error:
        _join_threads()
        held.is_dropping = is_reported(error)
        raise
    finally:
        logging.set_verbosity(before)
        if not held.is_dropping:
            logger.removeFilter(held)
            for record in held.records:
                logger.handle(record)


def _join_threads() -> None:
    """Wait for orbax's threads: after an error in one, the others go on writing and complain."""
    joined: set[threading.Thread] = set()
    while threads := {t for t in threading.enumerate() if _is_of_orbax(t)} - joined:
        for thread in threads:
            with contextlib.suppress(Exception):  # join raises the error that ended the thread
                thread.join(timeout=60)
        joined |= threads  # one may have started another


def _is_of_orbax(thread: threading.Thread) -> bool:
    return type(thread).__module__.startswith("orbax.")


class _Held(Filter):
    """Holds back what is logged, from every thread.

    Attributes:
        records: what was held back.
        is_dropping: whether to drop the messages of orbax and let all others pass. The filter then
            stays for good: a thread of orbax may complain at any later time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.records: list[LogRecord] = []
        self.is_dropping = False

    def filter(self, record: LogRecord) -> bool:
        if self.is_dropping:
            return "orbax" not in record.pathname
        self.records.append(record)
        return False


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Let this process read without the others.

    Orbax numbers its barriers by the calls of each process. A process that counted this call, which
    the others do not make, would wait at the next barrier for ever.
    """
    if jax.process_count() == 1:
        yield
        return
    from orbax.checkpoint._src.futures.synchronization import OperationIdGenerator

    index, number = jax.process_index(), int(OperationIdGenerator.get_current_operation_id())
    context = ocp.Context()
    context.multiprocessing.primary_host = index
    context.multiprocessing.active_processes = {index}
    context.multiprocessing.barrier_sync_key_prefix = f"process_{index}"
    try:
        with context:
            yield
    finally:
        OperationIdGenerator._operation_id = number
        OperationIdGenerator._operation_id_counter = itertools.count(number + 1)


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): sha256_of(p) for p in files}
