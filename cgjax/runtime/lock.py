"""Locks on folders: only one process writes, and a dead process holds no lock.

Where the file system has `flock`, the kernel releases the lock of a process however that process
ends. Elsewhere a lock counts only while the process named in its file is alive, as far as this
machine can tell.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cgjax.errors import UserError
from cgjax.runtime.files import make_folder, say_os_error
from cgjax.runtime.system import is_alive

try:
    import fcntl
except ImportError:  # Windows, on which `check_system` stops every command
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = ".lock"
# The errors of flock on a file system that does not support it.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF}


class FolderLock:
    """The exclusive right to write to a folder, from `acquire` to the end of a `with` block.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as root, FolderLock(root) as lock:
        ...     lock.acquire()
        ...     lock.check()
    """

    def __init__(self, root: str | os.PathLike[str], option: str = "--workdir"):
        """Store the folder's path; nothing on the disk changes.

        Args:
            root: the folder; it need not exist.
            option: the flag that named it.
        """
        self._root, self._option = Path(root), option
        self._path = self._root / LOCK_FILE
        self._file: int | None = None

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        """Release the lock.

        Raises:
            UserError: the folder has been removed; replaces errors that this has caused.
        """
        try:
            if kind is None or issubclass(kind, Exception):
                self.check()
        finally:
            self._release()

    def refuse_if_taken(self) -> None:
        """Stop if another process is writing to the folder; change nothing.

        Raises:
            UserError: names that process.
        """
        try:
            file = os.open(self._path, os.O_RDONLY)
        except OSError:
            return
        try:
            if not _try_lock(file, exclusive=False):
                raise self._taken(file)
        finally:
            os.close(file)

    def acquire(self) -> None:
        """Acquire the lock; create the folder if it does not exist.

        Raises:
            UserError: another process holds it (the message names it), or the folder cannot be
                written.
        """
        make_folder(self._root, self._option)
        while self._file is None:
            try:
                file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            except OSError as error:
                raise UserError(f"{self._option}={self._root}: {say_os_error(error)}") from error
            if not _try_lock(file, exclusive=True, tries=5):
                try:
                    raise self._taken(file)
                finally:
                    os.close(file)
            if self._is_at_path(file):
                self._file = file
            else:  # the previous holder removed the file before we got the lock
                os.close(file)
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
        try:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, json.dumps(holder).encode(), 0)
        except OSError as error:
            raise UserError(f"{self._option}={self._root}: {say_os_error(error)}") from error

    @property
    def is_held(self) -> bool:
        """Whether this process has the lock."""
        return self._file is not None

    def check(self) -> None:
        """Stop if the folder is no longer the one that was locked; cheap.

        Raises:
            UserError: it was removed or moved.
        """
        if self._file is not None and not self._is_at_path(self._file):
            raise UserError(
                f"{self._option}={self._root} was removed or replaced while this command was "
                "writing to it; run the command again to start over"
            )

    def _is_at_path(self, file: int) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(file))
        except OSError:
            return False

    def _release(self) -> None:
        if self._file is None:
            return
        if self._is_at_path(self._file):
            self._path.unlink(missing_ok=True)  # before another process can lock it
        os.close(self._file)
        self._file = None

    def _taken(self, file: int) -> UserError:
        holder = {"pid": "?", "host": "?", "since": "?", **_holder(file)}
        who = f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
        # Not every file system notices that a process on another machine has died.
        is_here = holder["host"] == socket.gethostname()
        hint = "" if is_here else f"; if that process is gone, remove {self._path}"
        return UserError(
            f"{self._option}={self._root} is being written by another command ({who}); wait until "
            f"it ends, or name another folder{hint}"
        )


@contextlib.contextmanager
def wait_for_lock(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold a lock for the length of a block; wait while another process holds it.

    On a file system without `flock` it does not wait, since nothing would tell that a process on
    another machine has died.

    Args:
        path: the lock's file, created if it does not exist and never removed.
        on_wait: called once if another process holds the lock.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _try_lock(file, exclusive=True):
            on_wait()
            while not _try_lock(file, exclusive=True):
                time.sleep(0.2)
        yield
    finally:
        os.close(file)


def _try_lock(file: int, *, exclusive: bool, tries: int = 1) -> bool:
    """Try to lock an open file; return whether that succeeded.

    With several tries, a process that only looks (`refuse_if_taken`) does not get in the way.
    """
    for attempt in range(tries):
        if attempt:
            time.sleep(0.05)
        if _try_lock_once(file, exclusive):
            return True
    return False


def _try_lock_once(file: int, exclusive: bool) -> bool:
    try:
        if fcntl is not None:
            fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            return True
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        if error.errno not in _NO_LOCKS:
            raise
    # Two processes that try at the same instant both succeed; with flock they cannot.
    holder = _holder(file)
    if not holder or holder.get("pid") == os.getpid():
        return True
    return holder.get("host") == socket.gethostname() and not is_alive(holder["pid"])


def _holder(file: int) -> dict[str, Any]:
    """Return what a lock's file says about its holder; empty if it says nothing."""
    try:
        holder = json.loads(os.pread(file, 4096, 0))
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) and isinstance(holder.get("pid"), int) else {}
