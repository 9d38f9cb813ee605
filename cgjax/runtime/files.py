"""Writing files so that a reader never sees half of one, and folders with a word to the user."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from cgjax.errors import UserError

# How the names of files end that are being written.
_UNFINISHED = ".unfinished"


def make_folder(path: str | os.PathLike[str], option: str = "") -> Path:
    """Make a folder and those above it, unless it is there, and see that it can be written.

    Args:
        path: the folder.
        option: how the user named it, `--out` for instance; empty for one of ours.

    Returns:
        The folder.

    Raises:
        UserError: in one line, if there is a file in the way, no permission or no space.

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
        raise UserError(_no_folder(path, option, say_os_error(error))) from error
    return path


def check_folder(path: str | os.PathLike[str], option: str = "") -> Path:
    """Check that a folder can be made and written, as far as that can be told; touch nothing.

    Args, returns and raises as `make_folder`.
    """
    path = Path(path)
    above = next((p for p in (path, *path.parents) if os.path.lexists(p)), Path())
    if not os.path.isdir(above):
        kind = "a file" if os.path.exists(above) else "a broken link"
        raise UserError(_no_folder(path, option, f"{above} is {kind}"))
    if not os.access(above, os.W_OK | os.X_OK):
        raise UserError(_no_folder(path, option, f"no permission to write in {above}"))
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


def _no_folder(path: Path, option: str, reason: str) -> str:
    named = f"{option}={path}" if option else str(path)
    return f"{named}: cannot write to this folder ({reason}); name another one"


def say_os_error(error: OSError) -> str:
    """Return what the system says, and of which file where it is not plain.

    Example:
        >>> say_os_error(PermissionError(13, "Permission denied", "/etc/x"))
        '/etc/x: Permission denied'
    """
    reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
    return reason if error.filename is None else f"{as_utf8(error.filename)}: {reason}"


def as_utf8(name: str | bytes | os.PathLike[str]) -> str:
    r"""Return a file's name as text on one line that a terminal may be given.

    What is in no encoding or cannot be seen, as ends of lines and escapes, is spelt out.

    >>> as_utf8(os.fsdecode(b"x\xff.png")), as_utf8("two\nlines \x1b[2J.png")
    ('x\\xff.png', 'two\\nlines \\x1b[2J.png')
    """
    text = os.fsencode(name).decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def safe_name(text: str) -> str:
    """Return a text as the name of one file or folder: letters, digits and - . _ alone.

    Example:
        >>> safe_name("facing left"), safe_name("../0/1 & !a=2"), safe_name("..")
        ('facing-left', '0-1-a-2', 'images')
    """
    kept = re.sub(r"[^\w.-]+", "-", text)[:60]
    return re.sub(r"-{2,}", "-", kept).strip("-.") or "images"


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file whole or not at all: a temporary file beside it, flushed, then renamed.

    Args:
        path: the file; its folder must exist.
        data: the content.

    Raises:
        UserError: if the file cannot be written (a full disk, no permission).
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
        if temporary is not None:  # also where Ctrl-C came between
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def remove_unfinished(folder: Path) -> None:
    """Remove what a killed process had begun to write in a folder and those below it."""
    for path in folder.rglob(f".*{_UNFINISHED}"):
        path.unlink(missing_ok=True)


def as_json(value: Any) -> Any:
    """Return a value as JSON has it: tuples as lists, and None for NaN and infinity.

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
"""Where in a file of ours stands the hash of all else that it says."""


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object with a hash of its content, by which `read_sealed` knows it again."""
    content = json.loads(json.dumps(as_json(value)))  # as it will be read: keys are texts
    write_json(path, {**content, SEAL: _seal(content)})


def read_sealed(path: Path) -> dict[str, Any] | None:
    """Read a JSON object that `write_sealed` wrote.

    Returns:
        The object; None if it is missing, damaged, edited, or none. One without a hash, of an
        earlier version, is taken as it is.
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
    """Write a value as indented JSON, see `as_json`, whole or not at all."""
    text = json.dumps(as_json(value), indent=1, allow_nan=False)
    write_atomically(path, f"{text}\n".encode())
