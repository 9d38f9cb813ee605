"""Putting a converted generator into its folder: whole or not at all.

The files are written and checked in a folder inside the destination (the same file system, and the
only place that is sure to be writable) and renamed into place, the manifest last and the old one
gone first: at no moment does a manifest stand beside another conversion's weights. What a killed
process leaves is not a generator, and the next conversion takes the folder over.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cgjax.errors import Interrupted, UserError
from cgjax.generators.base import PretrainedGenerator
from cgjax.generators.weights import MANIFEST_FILE, WEIGHTS_FILE, load_folder, save_generator
from converters.conversion import Conversion
from converters.interrupts import on_interrupt

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

UNFINISHED = ".unfinished-"


def check_destination(dst: Path) -> None:
    """Check that a folder can be written, before any work.

    Args:
        dst: a folder that does not exist, is empty, or holds converted weights, finished or not.

    Raises:
        UserError: a file, a folder of something else, or a place where nothing can be written.
    """
    try:
        if dst.is_dir():
            names = set(os.listdir(dst))
            if MANIFEST_FILE not in names and not all(map(_is_ours, names)):
                raise UserError(
                    f"--dst={dst} exists and is not a folder of converted weights; choose another"
                )
            place = dst
        elif os.path.lexists(dst):
            raise UserError(f"--dst={dst} is a file; name a folder to write")
        else:
            place = next(parent for parent in dst.absolute().parents if os.path.lexists(parent))
            if not place.is_dir():
                raise UserError(f"--dst={dst} lies below {place}, which is a file; choose another")
    except OSError as error:
        raise UserError(f"cannot write --dst={dst}: {error.strerror or error}") from error
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(f"cannot write --dst={dst}: {place} is read-only; choose another place")


def write_folder(
    dst: Path,
    conversion: Conversion,
    *,
    source: Mapping[str, Any],
    licence: str,
    dtype: str,
    check: Callable[[PretrainedGenerator], None],
) -> PretrainedGenerator:
    """Write a conversion into a folder, replacing an older one, and load it back.

    Args:
        dst: the folder, see `check_destination`.
        conversion: what to write.
        source: where the weights come from, for the manifest.
        licence: of the weights, in words.
        dtype: how they are stored.
        check: looks at the generator before it is put in place; raises what is wrong with it.

    Returns:
        The generator, loaded from the folder.

    Raises:
        UserError: it cannot be written; the folder is as it was.
        Interrupted: by Ctrl-C; the folder is as it was.
    """
    try:
        with on_interrupt(signal.default_int_handler), _unfinished_folder(dst) as folder:
            save_generator(
                folder,
                conversion.family,
                conversion.architecture,
                conversion.arrays,
                source=source,
                licence=licence,
                dtype=np.dtype(dtype),
            )
            generator = load_folder(folder)
            check(generator)
            with on_interrupt(signal.SIG_IGN), _locked(dst):
                (dst / MANIFEST_FILE).unlink(missing_ok=True)
                for name in (WEIGHTS_FILE, MANIFEST_FILE):
                    os.replace(folder / name, dst / name)
            return generator
    except OSError as error:
        raise UserError(f"cannot write --dst={dst}: {error.strerror or error}") from error
    except KeyboardInterrupt as error:
        raise Interrupted(f"{dst} is as it was") from error


@contextlib.contextmanager
def _unfinished_folder(dst: Path) -> Iterator[Path]:
    """Make a folder inside the destination for the length of a block.

    What killed processes left is removed; a folder that another process is writing is locked, and
    stays.
    """
    parents = [p for p in (dst, *dst.parents) if not p.exists()]
    folder = None
    try:
        dst.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(dst)
        folder = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=dst))
        with _locked(folder):
            yield folder
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        for parent in parents:
            with contextlib.suppress(OSError):
                parent.rmdir()  # only if it is empty


def _remove_leftovers(dst: Path) -> None:
    for left in dst.iterdir():
        if left.name.startswith(UNFINISHED):
            with contextlib.suppress(OSError), _locked(left, wait=False):
                shutil.rmtree(left, ignore_errors=True)
        elif _is_temporary(left.name):
            left.unlink(missing_ok=True)


def _is_temporary(name: str) -> bool:
    """Whether a name is that of a file which an older version was writing."""
    return name.startswith((f".{WEIGHTS_FILE}.", f".{MANIFEST_FILE}."))


def _is_ours(name: str) -> bool:
    return name == WEIGHTS_FILE or name.startswith(UNFINISHED) or _is_temporary(name)


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
