"""Importing an object of the user's by its path, `package.module:name`."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from cgjax.errors import UserError, foreign_code


def load_attribute(path: str, what: str) -> Any:
    """Import `package.module:name`, also from the current folder.

    Args:
        path: as the user typed it.
        what: what it is meant to be, for the messages: "generator", "judge".

    Returns:
        The object; it is not called.

    Raises:
        UserError: the path has another form, there is no such module or name, the module has a
            syntax error, or it is none that a user wrote for this (see `_check_place`).
        ForeignError: the module raised an exception while it was imported.

    Example:
        >>> load_attribute("cgjax.errors:UserError", "error")
        <class 'cgjax.errors.UserError'>
    """
    module_name, _, name = path.partition(":")
    parts = module_name.split(".")
    if not name.isidentifier() or not all(part.isidentifier() for part in parts):
        raise UserError(
            f"{what} {path!r}: expected package.module:name, for example mine:Mine for the class "
            "Mine in mine.py"
        )
    _check_place(parts[0], f"{what} {path!r}")
    module = _import_module(module_name, f"{what} {path!r}")
    with foreign_code(path):
        if hasattr(module, name):
            return getattr(module, name)
    near = difflib.get_close_matches(name, vars(module), n=1)
    raise UserError(
        f"{what} {path!r}: module {module_name!r} ({getattr(module, '__file__', 'built in')}) has "
        f"no {name!r}{f'; did you mean {module_name}:{near[0]}?' if near else ''}"
    )


def _check_place(name: str, whose: str) -> None:
    """Refuse what a folder from elsewhere may name to do harm; nothing is imported.

    The path may come from the config of somebody's run folder. So it may be none of Python's own
    modules, such as os, and no file that lies in a run's folder itself.
    """
    if "" not in sys.path:
        sys.path.insert(0, "")  # a module beside the user, as `python -m` would find it
    importlib.invalidate_caches()  # it may have been written a moment ago
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return  # the import says what is wrong
    origin = Path(spec.origin) if spec is not None and spec.has_location and spec.origin else None
    is_beside = origin is not None and origin.is_relative_to(Path.cwd())
    if name in sys.stdlib_module_names and not is_beside:
        raise UserError(f"{whose}: {name} is one of Python's own modules; expected one of yours")
    folders = () if origin is None else origin.parents[:2]  # of a module, and of a package
    if any((one / "stages").is_dir() and (one / "config.json").is_file() for one in folders):
        raise UserError(
            f"{whose}: {origin} lies in a run's folder, from which nothing is executed; move it "
            "to another place"
        )


def _import_module(name: str, whose: str) -> ModuleType:
    try:
        with foreign_code(whose, "while it was imported"):
            return importlib.import_module(name)
    except Exception as error:
        cause = error.__cause__
        if isinstance(cause, ModuleNotFoundError) and _is_parent(cause.name, name):
            raise UserError(
                f"{whose}: there is no module {cause.name!r}; run from the folder that holds it, "
                "or set PYTHONPATH"
            ) from cause
        if isinstance(cause, SyntaxError):
            raise UserError(
                f"{whose} cannot be imported: {cause.filename}, line {cause.lineno}: {cause.msg}"
            ) from cause
        raise


def _is_parent(missing: str | None, name: str) -> bool:
    """Whether a module that was not found is the one asked for, or a package that holds it."""
    return missing is not None and f"{name}.".startswith(f"{missing}.")
