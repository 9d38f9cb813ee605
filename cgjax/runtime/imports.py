"""Importing a user's object by its path, `package.module:name`."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import itertools
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from cgjax.errors import UserError, foreign_code


def load_attribute(path: str, what: str) -> Any:
    """Import `package.module:name`; the current folder is searched too.

    Args:
        path: as the user typed it.
        what: the kind of object, for the messages: "generator", "judge".

    Returns:
        The object, not called.

    Raises:
        UserError: the path has another form, the module or name does not exist, the module has a
            syntax error, or it may not be imported (see `_check_places`).
        ForeignError: the module raised an exception while it was imported.

    Example:
        >>> load_attribute("cgjax.errors:UserError", "error")
        <class 'cgjax.errors.UserError'>
    """
    if not is_import_path(path):
        raise UserError(
            f"{what} {path!r}: expected package.module:name, for example mine:Mine for the class "
            "Mine in mine.py"
        )
    module_name, _, name = path.partition(":")
    _check_places(module_name, f"{what} {path!r}")
    module = _import_module(module_name, f"{what} {path!r}")
    with foreign_code(path):
        if hasattr(module, name):
            return getattr(module, name)
    near = difflib.get_close_matches(name, vars(module), n=1)
    raise UserError(
        f"{what} {path!r}: module {module_name!r} ({getattr(module, '__file__', 'built in')}) has "
        f"no {name!r}{f'; did you mean {module_name}:{near[0]}?' if near else ''}"
    )


def is_import_path(path: str) -> bool:
    """Whether a text has the form `package.module:name`.

    Example:
        >>> is_import_path("mine:Mine"), is_import_path("inception:weights.safetensors")
        (True, False)
    """
    module_name, _, name = path.partition(":")
    return name.isidentifier() and all(part.isidentifier() for part in module_name.split("."))


def _check_places(module: str, subject: str) -> None:
    """Refuse modules that a run folder from someone else could name to do harm; execute none.

    The path may come from the config of such a folder. So Python's own modules, such as os, are
    refused, and so are files inside a run's folder. To look for a module is to import the packages
    around it, so these are checked one after the other, from the outside.
    """
    if "" not in sys.path:
        sys.path.insert(0, "")  # find modules in the current folder, as `python -m` does
    importlib.invalidate_caches()  # the file may have been written a moment ago
    for name in itertools.accumulate(module.split("."), "{}.{}".format):
        try:
            spec = importlib.util.find_spec(name)
        except (Exception, SystemExit):
            return  # importing will say what is wrong
        files = [] if spec is None else _files_of(spec)
        is_beside = any(file.is_relative_to(Path.cwd()) for file in files)
        if name in sys.stdlib_module_names and not is_beside:
            raise UserError(
                f"{subject}: {name} is one of Python's own modules; expected one of yours"
            )
        folders = [folder for file in files for folder in file.parents[:2]]
        if any((path / "stages").is_dir() and (path / "config.json").is_file() for path in folders):
            raise UserError(
                f"{subject}: {files[0]} is inside a run's folder, from which nothing is executed; "
                "move it elsewhere"
            )


def _files_of(spec: ModuleSpec) -> list[Path]:
    """Return the file of a module; of a package without one, where it would be."""
    if spec.has_location and spec.origin:
        return [Path(spec.origin)]
    return [Path(folder, "__init__.py") for folder in spec.submodule_search_locations or ()]


def _import_module(name: str, subject: str) -> ModuleType:
    try:
        with foreign_code(subject, "while it was imported"):
            return importlib.import_module(name)
    except Exception as error:
        cause = error.__cause__
        if isinstance(cause, ModuleNotFoundError) and _is_parent(cause.name, name):
            advice = (
                f"leave .py out: {name.removesuffix('.py')}:NAME"
                if name.endswith(".py")
                else "run from the folder that holds it, or set PYTHONPATH"
            )
            raise UserError(f"{subject}: there is no module {cause.name!r}; {advice}") from cause
        if isinstance(cause, SyntaxError):
            raise UserError(
                f"{subject} cannot be imported: {cause.filename}, line {cause.lineno}: {cause.msg}"
            ) from cause
        raise


def _is_parent(missing: str | None, name: str) -> bool:
    """Whether a missing module is the requested one or a package that contains it."""
    return missing is not None and f"{name}.".startswith(f"{missing}.")
