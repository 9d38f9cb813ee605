"""The cache folder, and the compiled programs that are kept in it from one command to the next.

Compiling takes most of a short run's time. JAX can keep what it compiled on disk; here that is on
by default, in a folder of one user, one version of cgjax, jax and jaxlib, and one kind of
processor, on whose instructions JAX's own key leaves us in doubt.

JAX writes an entry in place and reads it without a lock (its size limit would bring one, on every
access, and a package that is not among its requirements). So an entry can be read half-written,
which JAX notices and compiles instead, and can stay half-written after a kill: `_remove_damaged`
looks at every entry once.
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

# What compiled programs may take of the disk. A run's take a few MB.
PROGRAMS_MB = 256
# Days after which the programs of a version that is no longer used are removed.
KEPT_DAYS = 60
# Its time says when the entries beside it were last checked.
_CHECKED = ".checked"
_ZSTD = b"\x28\xb5\x2f\xfd"


def cache_folder() -> Path:
    """Return where downloads and converted weights are kept: CGJAX_CACHE, or ~/.cache/cgjax."""
    given = os.environ.get("CGJAX_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "cgjax"


def keep_programs() -> Path | None:
    """Keep compiled programs from now on, and use those that are there.

    To be called before anything is compiled. Leaves everything as it is where the user has a cache
    of JAX's own (`JAX_COMPILATION_CACHE_DIR`).

    Returns:
        The folder; None if programs are not kept, after one warning if that is because it cannot be
        written.
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
        _remove_old(own)
    except (OSError, RuntimeError) as error:  # RuntimeError: a user without a home
        logging.warning(
            "compiled programs are not kept, so that every run compiles them again: %s; set "
            "CGJAX_CACHE to a folder of yours",
            error,
        )
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # Hundreds of small programs are half of the time.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    # An entry that cannot be read or written costs its compilation, nothing else.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation")
    return folder


class Compiled(NamedTuple):
    """How many programs this process has compiled, and how many it has loaded instead."""

    compiled: int
    loaded: int


class CompileCounter:
    """Counts programs from its making on.

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
        # Also of a program that is found on disk.
        self._asked += event == "/jax/core/compile/backend_compile_duration"

    def _on_event(self, event: str, **kwargs: str | int) -> None:
        self._loaded += event == "/jax/compilation_cache/cache_hits"

    def counts(self) -> Compiled:
        """Return what was counted so far."""
        return Compiled(self._asked - self._loaded, self._loaded)


def _user() -> str:
    return f"user-{os.getuid()}" if hasattr(os, "getuid") else "user"


@functools.cache
def _processor() -> str:
    """Return a hash of what this machine's compiled code may contain.

    Where the system does not list its processor's features the machine's name stands for them.
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
    """Make a folder that nobody else can write: whoever can makes us run what he put there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.stat()
    if hasattr(os, "getuid") and (found.st_uid != os.getuid() or found.st_mode & 0o022):
        raise PermissionError(f"{folder} can be written by other users")


def _remove_damaged(folder: Path) -> None:
    """Remove the entries written since the last call that a kill has left incomplete.

    One that another process is writing just now may go with them; it is compiled once more.
    """
    marker = folder / _CHECKED
    checked = marker.stat().st_mtime if marker.exists() else 0.0
    begun = time.time()
    for path in folder.glob("*-cache"):
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            # Clocks of file systems are coarse, and a server's may differ from ours.
            if path.stat().st_mtime >= checked - 60 and not _is_whole(path.read_bytes()):
                path.unlink()
    marker.touch()
    os.utime(marker, (begun, begun))


def _is_whole(data: bytes) -> bool:
    """Return whether a file is one compressed stream from its beginning to its end."""
    try:
        if data.startswith(_ZSTD):
            return _is_whole_zstd(data)
        stream = zlib.decompressobj()
        stream.decompress(data)
        return stream.eof
    except zlib.error:
        return False


def _is_whole_zstd(data: bytes) -> bool:
    """As `_is_whole`, for what JAX writes where there is a package for it."""
    try:
        from compression import zstd  # type: ignore[import-not-found]  # Python 3.14
    except ImportError:
        try:
            import zstandard as zstd  # type: ignore[import-not-found]
        except ImportError:
            return False  # JAX could not read it either
    try:
        zstd.decompress(data)
    except Exception:  # the two packages' own errors have no common name
        return False
    return True


def _remove_old(own: Path) -> None:
    """Remove versions that are not used any more, and the oldest programs beyond the limit."""
    now = time.time()
    for version in own.iterdir():
        used = [p.stat().st_mtime for p in (version, version / _CHECKED) if p.exists()]
        if used and now - max(used) > KEPT_DAYS * 86400:
            shutil.rmtree(version, ignore_errors=True)
    found = []
    for path in own.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            if path.is_file() and path.name != _CHECKED:
                found.append((max(status.st_atime, status.st_mtime), status.st_size, path))
    size = sum(entry[1] for entry in found)
    for _, num, path in sorted(found):
        if size <= PROGRAMS_MB * 2**20:
            break
        path.unlink(missing_ok=True)
        size -= num
