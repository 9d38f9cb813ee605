"""Atomic writing of files, and checks of folders that end in a message to the user."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import re
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from cgjax.errors import UserError

# The suffix of files that are still being written.
_UNFINISHED = ".unfinished"


def user_path(text: str | os.PathLike[str]) -> Path:
    """Return the path that a user means: a leading ~ is the home folder, as in a shell.

    A shell does not expand it in `--dst=~/weights`, and never sees one in a config file. Every path
    from a flag, a setting or an argument of the library goes through here.

    >>> user_path("~").is_absolute(), user_path("weights")
    (True, PosixPath('weights'))
    """
    return Path(os.path.expanduser(text))  # unlike pathlib's, it keeps the ~ of an unknown user


def missing(path: Path, kind: str = "file") -> str:
    """Say that a file or folder does not exist; of a relative path also where it was looked for.

    >>> missing(Path("/weights/gone"), "folder")
    'no folder /weights/gone'
    """
    if path.is_absolute():
        return f"no {kind} {path}"
    return (
        f"no {kind} {path} in {Path.cwd()}, where relative paths start, also those of a saved run"
    )


def make_folder(path: str | os.PathLike[str], option: str = "") -> Path:
    """Create a folder and its parents if needed, and check that it can be written.

    Args:
        path: the folder.
        option: the flag that named it, such as `--out`; empty for one of our own.

    Returns:
        The folder.

    Raises:
        UserError: a file is in the way, or there is no permission or no space.

    Example:
        >>> make_folder("/dev/null/x", "--out")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        cgjax.errors.UserError: --out=/dev/null/x: cannot write to this folder (/dev/null is a ...
    """
    path = check_folder(path, option)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(_not_writable(path, option, say_os_error(error))) from error
    return path


def check_folder(path: str | os.PathLike[str], option: str = "") -> Path:
    """Check, as far as possible, that a folder can be created and written; change nothing.

    Arguments, result and errors are those of `make_folder`.
    """
    path = Path(path)
    existing = next((p for p in (path, *path.parents) if os.path.lexists(p)), Path())
    if not os.path.isdir(existing):
        kind = "a file" if os.path.exists(existing) else "a broken link"
        raise UserError(_not_writable(path, option, f"{existing} is {kind}"))
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(_not_writable(path, option, f"no permission to write in {existing}"))
    return path


def check_outside(path: Path, root: Path, places: Collection[str], option: str) -> None:
    """Check that a folder named by the user is not one that a run writes to.

    Args:
        path: the folder.
        root: the run's folder.
        places: names of folders in `root`; "" for `root` itself.
        option: the flag that named the folder.

    Raises:
        UserError: the folder is one of them, or inside one.
    """
    path, root = path.resolve(), root.resolve()
    inside = path.relative_to(root).parts if path.is_relative_to(root) else None
    if inside is not None and (*inside, "")[0] in places:
        raise UserError(f"{option}={path} is where the run {root} writes; name another folder")


def _not_writable(path: Path, option: str, reason: str) -> str:
    named = f"{option}={path}" if option else str(path)
    return f"{named}: cannot write to this folder ({reason}); name another one"


def say_os_error(error: OSError) -> str:
    """Return the system's message, and the file it is about if the error names one.

    Example:
        >>> say_os_error(PermissionError(13, "Permission denied", "/etc/x"))
        '/etc/x: Permission denied'
    """
    reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
    return reason if error.filename is None else f"{as_utf8(error.filename)}: {reason}"


def as_utf8(name: str | bytes | os.PathLike[str]) -> str:
    r"""Return a file's name as text that is safe to print on one line of a terminal.

    Undecodable bytes and invisible characters, such as newlines and escapes, are spelt out.

    >>> as_utf8(os.fsdecode(b"x\xff.png")), as_utf8("two\nlines \x1b[2J.png")
    ('x\\xff.png', 'two\\nlines \\x1b[2J.png')
    """
    text = os.fsencode(name).decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def safe_name(text: str) -> str:
    """Turn text into the name of one file or folder: only letters, digits and - . _ are kept.

    Example:
        >>> safe_name("facing left"), safe_name("../0/1 & !a=2"), safe_name("..")
        ('facing-left', '0-1-a-2', 'images')
    """
    kept = re.sub(r"[^\w.-]+", "-", text)[:60]
    return re.sub(r"-{2,}", "-", kept).strip("-.") or "images"


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return sha256_of_open(file)


def sha256_of_open(file: io.BufferedReader) -> str:
    """Return the SHA-256 of the rest of an open file, in hexadecimal."""
    return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file atomically: to a temporary file beside it, flushed and then renamed.

    Args:
        path: the file; its folder must exist.
        data: the content.

    Raises:
        UserError: the file cannot be written (a full disk, no permission).
    """
    path = Path(path)
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", suffix=_UNFINISHED, delete=False
        ) as file:
            temporary = file.name
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:  # also after Ctrl-C
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def remove_unfinished(folder: Path) -> None:
    """Remove the unfinished files of killed processes from a folder and its subfolders."""
    for path in folder.rglob(f".*{_UNFINISHED}"):
        path.unlink(missing_ok=True)


def as_json(value: Any) -> Any:
    """Return a value as JSON can hold it: tuples become lists, NaN and infinity become None.

    Example:
        >>> as_json({"a": (1, float("nan"))})
        {'a': [1, None]}
    """
    if isinstance(value, Mapping):
        return {name: as_json(inner) for name, inner in value.items()}
    if isinstance(value, tuple | list):
        return [as_json(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


SEAL = "seal"
"""The key under which a sealed file holds the hash of the rest of its content."""


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object with a hash of its content, which `read_sealed` checks."""
    content = json.loads(json.dumps(as_json(value)))  # as it will be read: keys are strings
    write_json(path, {**content, SEAL: _seal(content)})


def read_sealed(path: Path) -> dict[str, Any] | None:
    """Read a JSON object that `write_sealed` wrote.

    Returns:
        The object; None if the file is missing, damaged, edited or not an object. A file without a
        hash, written by an earlier version, is accepted.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    seal = content.pop(SEAL, None)
    return content if seal is None or seal == _seal(content) else None


def _seal(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write a value atomically as indented JSON; see `as_json`."""
    text = json.dumps(as_json(value), indent=1, allow_nan=False)
    write_atomically(path, f"{text}\n".encode())
