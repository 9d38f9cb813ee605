"""The cache folder, and the compiled programs kept in it from one command to the next.

Compiling takes most of a short run's time. JAX can keep compiled programs on disk; cgjax turns that
on by default, with one folder per user, versions of cgjax, jax and jaxlib, and processor (it is
unclear whether JAX's own key covers the processor's instructions).

JAX writes an entry in place and reads it without a lock (its size limit would add one on every
access, and a package that is not among its requirements). So JAX may read a half-written entry,
which it notices and compiles instead, and a kill may leave one behind: `_remove_damaged` checks
every entry once.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import shutil
import tempfile
import time
import warnings
import zlib
from pathlib import Path
from typing import NamedTuple

from absl import logging

from cgjax.runtime.files import user_path

# The most disk space that compiled programs may take. Those of one run take a few MB.
PROGRAMS_MB = 256
# Days after which the programs of an unused version are removed.
KEPT_DAYS = 60
# The modification time of this file is when the entries beside it were last checked.
_CHECKED = ".checked"
_ZSTD = b"\x28\xb5\x2f\xfd"


def cache_folder() -> Path:
    """Return the folder of downloads and converted weights: CGJAX_CACHE, or ~/.cache/cgjax."""
    folder = os.environ.get("CGJAX_CACHE")
    return user_path(folder) if folder else Path.home() / ".cache" / "cgjax"


def keep_programs() -> Path | None:
    """Keep compiled programs from now on, and use those kept before.

    Must be called before anything is compiled. Changes nothing if the user has set a cache folder
    for JAX (`JAX_COMPILATION_CACHE_DIR`).

    Returns:
        The folder; None if programs are not kept, with one warning if the folder cannot be written.
    """
    import jax
    import jaxlib.version

    from cgjax.version import __version__

    if jax.config.values.get("jax_compilation_cache_dir") is not None:
        return None
    try:
        own = cache_folder() / "programs" / _user()
        _make_private(own)
        versions = f"cgjax-{__version__}-jax-{jax.__version__}-{jaxlib.version.__version__}"
        folder = own / f"{versions}-{_processor()}"
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        _remove_damaged(folder)
        with contextlib.suppress(FileNotFoundError):  # another process is removing the same
            _remove_old(own)
    except (OSError, RuntimeError) as error:  # RuntimeError: a user without a home folder
        logging.warning(
            "compiled programs are not kept, so every run compiles them again: %s; set CGJAX_CACHE "
            "to a folder that you can write",
            error,
        )
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # By default JAX skips programs that compile fast; hundreds of them are half of the time.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    # An entry that cannot be read or written costs its compilation, nothing else.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation")
    return folder


class Compiled(NamedTuple):
    """The numbers of programs that this process has compiled and has loaded from disk."""

    compiled: int
    loaded: int


class CompileCounter:
    """Counts the programs that are compiled or loaded after it is created.

    Example:
        >>> import jax
        >>> counter = CompileCounter()
        >>> _ = jax.jit(lambda x: 3 * x + 1)(2.0)
        >>> sum(counter.counts()) > 0
        True
    """

    def __init__(self) -> None:
        import jax

        self._asked = self._loaded = 0
        jax.monitoring.register_event_duration_secs_listener(self._on_duration)
        jax.monitoring.register_event_listener(self._on_event)

    def _on_duration(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        # This event also occurs for a program that is loaded from disk.
        self._asked += event == "/jax/core/compile/backend_compile_duration"

    def _on_event(self, event: str, **kwargs: str | int) -> None:
        self._loaded += event == "/jax/compilation_cache/cache_hits"

    def counts(self) -> Compiled:
        """Return the numbers so far."""
        return Compiled(self._asked - self._loaded, self._loaded)


def _user() -> str:
    return f"user-{os.getuid()}" if hasattr(os, "getuid") else "user"


@functools.cache
def _processor() -> str:
    """Return a hash of the processor's features, on which compiled code depends.

    If the system does not list them, the machine's name is used instead.
    """
    lines = {platform.machine()}
    try:
        names = ("vendor_id", "model name", "flags", "CPU implementer", "CPU part", "Features")
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(names):
                lines.add(line)
    except OSError:
        lines |= {platform.system(), platform.node(), platform.processor()}
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:12]


def _make_private(folder: Path) -> None:
    """Create a folder that only this user can write: anyone who can write it can run code as us."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.stat()
    if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o022):
        raise PermissionError(f"{folder} can be written by other users")


def _remove_damaged(folder: Path) -> None:
    """Remove incomplete entries, left by a kill, among those written since the last call.

    An entry that another process is writing now may be removed too; it is then compiled again.
    """
    marker = folder / _CHECKED
    checked = marker.stat().st_mtime if marker.exists() else 0.0
    start = time.time()
    for path in folder.glob("*-cache"):
        with contextlib.suppress(FileNotFoundError):  # another process has removed it
            # File times are coarse, and a file server's clock may differ from ours.
            if path.stat().st_mtime >= checked - 60 and not _is_whole(path.read_bytes()):
                path.unlink()
    marker.touch()
    os.utime(marker, (start, start))


def _is_whole(data: bytes) -> bool:
    """Return whether a file is one complete compressed stream."""
    try:
        if data.startswith(_ZSTD):
            return _is_whole_zstd(data)
        stream = zlib.decompressobj()
        stream.decompress(data)
        return stream.eof
    except zlib.error:
        return False


def _is_whole_zstd(data: bytes) -> bool:
    """As `_is_whole`, for Zstandard, which JAX uses if a package for it is installed."""
    try:
        from compression import zstd  # type: ignore[import-not-found]  # Python 3.14
    except ImportError:
        try:
            import zstandard as zstd  # type: ignore[import-not-found]
        except ImportError:
            return False  # JAX cannot read it either
    try:
        zstd.decompress(data)
    except Exception:  # the two packages' errors have no common class
        return False
    return True


def _remove_old(own: Path) -> None:
    """Remove unused versions, and the oldest programs beyond the size limit."""
    now = time.time()
    for version in own.iterdir():
        used = [p.stat().st_mtime for p in (version, version / _CHECKED) if p.exists()]
        if used and now - max(used) > KEPT_DAYS * 86400:
            shutil.rmtree(version, ignore_errors=True)
    programs = []
    for path in own.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            if path.is_file() and path.name != _CHECKED:
                programs.append((max(status.st_atime, status.st_mtime), status.st_size, path))
    size = sum(entry[1] for entry in programs)
    for _, num, path in sorted(programs):
        if size <= PROGRAMS_MB * 2**20:
            break
        path.unlink(missing_ok=True)
        size -= num
