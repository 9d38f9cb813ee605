"""Write several files into a folder: all of them or none.

The files are written and checked in a temporary folder inside the destination (the same file
system, and the only place known to be writable), then renamed into place. The last file marks the
set as complete: its old version is removed first and its new version renamed last, so it never
stands beside files of another version. A killed process leaves no last file, and the next process
replaces what it left.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from cgjax.runtime.signals import SIGNALS, on_interrupt

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

UNFINISHED = ".unfinished-"


@contextlib.contextmanager
def replacing(dst: Path, names: Sequence[str]) -> Iterator[Path]:
    """Yield a temporary folder whose files then replace those of a destination.

    Args:
        dst: the destination; created if needed.
        names: the files; the last one marks the set as complete.

    Yields:
        The folder to write them in. If the block raises, `dst` is unchanged.

    Raises:
        OSError: `dst` cannot be written.
    """
    with _unfinished_folder(dst, names) as folder:
        yield folder
        with on_interrupt(signal.SIG_IGN, SIGNALS), _locked(dst):
            (dst / names[-1]).unlink(missing_ok=True)
            for name in names:
                os.replace(folder / name, dst / name)


def is_leftover(name: str, names: Sequence[str]) -> bool:
    """Whether a killed process, of this version or an older one, left the entry with this name.

    Args:
        name: of a file or folder in the destination.
        names: of the files, as for `replacing`.
    """
    return name.startswith((UNFINISHED, *(f".{file}." for file in names)))


@contextlib.contextmanager
def _unfinished_folder(dst: Path, names: Sequence[str]) -> Iterator[Path]:
    """Yield a temporary folder inside the destination, and remove it afterwards.

    Leftovers of killed processes are removed; a folder that another process is writing is locked
    and stays.
    """
    created = [p for p in (dst, *dst.parents) if not p.exists()]
    folder = None
    try:
        dst.mkdir(parents=True, exist_ok=True)
        # Created before leftovers are removed, so that `dst` is marked as unfinished throughout.
        folder = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=dst))
        with _locked(folder):
            _remove_leftovers(dst, folder, names)
            yield folder
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        for parent in created:
            with contextlib.suppress(OSError):
                parent.rmdir()  # fails unless it is empty


def _remove_leftovers(dst: Path, current: Path, names: Sequence[str]) -> None:
    for path in dst.iterdir():
        if path == current or not is_leftover(path.name, names):
            continue
        if path.name.startswith(UNFINISHED):
            with contextlib.suppress(OSError), _locked(path, wait=False):
                shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a folder's lock, which the system releases when a process dies.

    Where there are no locks (Windows, some network file systems), `wait=True` goes on without one.

    Raises:
        OSError: if `wait` is false and another process holds the lock, or might.
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
