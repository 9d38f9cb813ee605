"""Putting files into a folder: all of them or none.

They are written and checked in a folder inside the destination (the same file system, and the only
place that is sure to be writable) and renamed into place, the last one last and its older version
gone first: at no moment does it stand beside another version of the others. What a killed process
leaves has no last file, and the next one takes the folder over.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from cgjax.runtime.signals import on_interrupt

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

UNFINISHED = ".unfinished-"


@contextlib.contextmanager
def replacing(dst: Path, names: Sequence[str]) -> Iterator[Path]:
    """Make a folder for the length of a block, from which files are then put into another one.

    Args:
        dst: where they go, made if need be.
        names: the files; the last is the one that says that all are there.

    Yields:
        The folder to write them in. If the block raises, `dst` is as it was.

    Raises:
        OSError: `dst` cannot be written.
    """
    with _unfinished_folder(dst, names) as folder:
        yield folder
        with on_interrupt(signal.SIG_IGN), _locked(dst):
            (dst / names[-1]).unlink(missing_ok=True)
            for name in names:
                os.replace(folder / name, dst / name)


def is_leftover(name: str, names: Sequence[str]) -> bool:
    """Whether a name is that of what a killed process has left, this version's or an older one's.

    Args:
        name: of a file or folder in the destination.
        names: of the files, as for `replacing`.
    """
    return name.startswith((UNFINISHED, *(f".{each}." for each in names)))


@contextlib.contextmanager
def _unfinished_folder(dst: Path, names: Sequence[str]) -> Iterator[Path]:
    """Make a folder inside the destination for the length of a block.

    What killed processes left is removed; a folder that another process is writing is locked, and
    stays.
    """
    parents = [p for p in (dst, *dst.parents) if not p.exists()]
    folder = None
    try:
        dst.mkdir(parents=True, exist_ok=True)
        # Before the others go: at every moment something shows that the folder is unfinished.
        folder = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=dst))
        with _locked(folder):
            _remove_leftovers(dst, folder, names)
            yield folder
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        for parent in parents:
            with contextlib.suppress(OSError):
                parent.rmdir()  # only if it is empty


def _remove_leftovers(dst: Path, own: Path, names: Sequence[str]) -> None:
    for left in dst.iterdir():
        if left == own or not is_leftover(left.name, names):
            continue
        if left.name.startswith(UNFINISHED):
            with contextlib.suppress(OSError), _locked(left, wait=False):
                shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a folder's lock, which a dead process does not keep.

    Where there are no locks (Windows, some network file systems), waiting is doing without one.

    Raises:
        OSError: if `wait` is false and another process holds it, or may.
    """
    if fcntl is None:
        if not wait:
            raise OSError("no locks on this system")
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError) if wait else contextlib.nullcontext():
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)
