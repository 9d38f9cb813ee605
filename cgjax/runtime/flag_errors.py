"""One-line messages for wrong flags, in place of those of absl and ml_collections.

The config flag is named `config` in every command that has one.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from cgjax.errors import UserError

PACKAGED = Path(__file__).parents[2] / "configs"
"""The configs that are installed with cgjax."""

# What absl and ml_collections raise for a wrong flag, and Python for a wrong config file.
FLAG_ERRORS = (
    KeyError,
    AttributeError,
    TypeError,
    ValueError,
    IndexError,
    OSError,
    SyntaxError,
    ImportError,
)

CONFIG_FLAG = re.compile(r"--?(?:no)?(config\.[^=\s]+)")
"""Matches the start of a flag that overrides a setting; its group is the flag's name."""


def explain(error: BaseException, arguments: Sequence[str]) -> UserError:
    """Translate an error about flags into a user error.

    Args:
        error: raised while flags were parsed, or at the first access to the config.
        arguments: the command line.

    Returns:
        The error to raise, in one line.
    """
    text = _last_line(error)
    if isinstance(error, (SyntaxError, ImportError)):
        return UserError(_of_config_file(error, arguments))
    if "earlier failure to load" in text or isinstance(error, OSError):
        return UserError(_of_missing_file(error, arguments))
    if unknown := re.match(r"(\w+)['\"]*(?: Did you mean [\"'](\w+)[\"'].*)?$", text):
        return UserError(_of_unknown_leaf(unknown[1], unknown[2], arguments) or text)
    if part := re.match(r"Attribute <class '(\w+)'>\.(\w+) does not exist", text):
        return UserError(_of_unknown_leaf(part[2], None, arguments) or text)
    if missing := re.match(r"Missing value for flag (--\S+)$", text):
        return UserError(f"{missing[1]} has no value; expected {missing[1]}=VALUE")
    if text.startswith("flag --"):
        return UserError(_of_wrong_value(text))
    if re.match(r"Unknown command line flag 'config['.]|Found --config\.", text):
        flag = next((a for a in arguments if CONFIG_FLAG.match(a)), "--config.seed")
        return UserError(f"{flag}: give the config file before it, --config=FILE")
    if text.startswith("The flag 'config."):  # ... is defined twice
        return UserError(f"--config={_config_file(arguments)}: expected one --config only")
    if file := re.match(r"ERROR:: Unable to open flagfile: \[Errno \d+\] ([^:]+): '(.*)'$", text):
        return UserError(f"--flagfile={file[2]}: {file[1]}; expected a file with one flag a line")
    return UserError(text)


def refuse_saved_config(arguments: Sequence[str]) -> None:
    """Refuse the `config.json` of a run, which Python would read as a program.

    Raises:
        UserError: says how to use it.
    """
    path = _config_file(arguments)
    if path.endswith(".json"):
        raise UserError(
            f"--config={path}: expected a config file in Python; for the config that a run saved, "
            f"leave --config out and give --workdir={shlex.quote(str(Path(path).parent))}"
        )


def _last_line(error: BaseException) -> str:
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    if "Traceback (most recent call last)" in text:
        # ml_collections passes on the whole traceback of an error in a config; its end is enough.
        text = re.sub(r"^[\w.]+: ", "", text.strip().splitlines()[-1])
    # A KeyError inside a KeyError: quoted twice, in both styles, with newlines escaped.
    text = text.replace("\\n", " ").replace("\\'", "'")
    return " ".join(text.split()).lstrip("'\"")


def _config_file(arguments: Sequence[str]) -> str:
    """Return the config file as it was typed, without the variant; the last of several counts."""
    path = ""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and name == "config":
            path = (value if equals else following).split(":")[0]
    return path


def _of_config_file(error: SyntaxError | ImportError, arguments: Sequence[str]) -> str:
    if isinstance(error, SyntaxError):
        where = f"{error.filename}, line {error.lineno}"
        reason = f"{error.msg} ({where}); expected a config file in Python"
    else:
        reason = str(error)
    return f"--config={_config_file(arguments)}: {reason}"


def _of_missing_file(error: BaseException, arguments: Sequence[str]) -> str:
    path = _config_file(arguments)
    if not path:
        return f"--config is empty; expected a file, for example {_packaged('dcgan_pose.py')}"
    match = re.search(r"\[Errno \d+\] ([^:']+)", str(error))
    reason = match[1].strip() if match else _last_line(error)
    if Path(f"{path}.py").is_file():
        return f"--config={path}: {reason}; did you mean --config={path}.py?"
    name = f"{Path(path).name.removesuffix('.py')}.py"
    is_packaged = (PACKAGED / name).is_file()
    name = name if is_packaged else "dcgan_pose.py"
    which = "cgjax has" if is_packaged else "for example"
    return f"--config={path}: {reason}; expected a file, {which} {_packaged(name)}"


def _packaged(name: str) -> str:
    """Return the flag for a packaged config, as it can be typed in the current folder."""
    path, here = PACKAGED / name, Path.cwd()
    return f"--config={path.relative_to(here) if path.is_relative_to(here) else path}"


def _of_unknown_leaf(word: str, near: str | None, arguments: Sequence[str]) -> str | None:
    """Name the whole flag that has an unknown part."""
    for argument in arguments:
        flag = CONFIG_FLAG.match(argument)
        parts = flag[1].split(".") if flag else []
        if flag is not None and word in parts:
            hint = f"; the settings are in {_config_file(arguments)} and what it imports"
            if near is not None:
                parts[parts.index(word)] = near
                hint = f"; did you mean --{'.'.join(parts)}?"
            return f"--{flag[1]}: no such setting in this config{hint}"
    return None


def _of_wrong_value(text: str) -> str:
    """Say what kind of value a flag takes."""
    flag, _, reason = text.removeprefix("flag ").partition(": ")
    if "invalid literal for int()" in reason:
        reason = "expected a whole number"
    elif bounds := re.match(r"\S+ is not (an? .+)", reason):
        reason = f"expected {bounds[1]}"
    elif one_of := re.match(r"value should be (one of .+)", reason):
        reason = f"expected {one_of[1]}"
    elif "could not convert string to float" in reason:
        reason = "expected a number"
    elif "Non-boolean argument" in reason:
        reason = "expected true or false"
    elif "is not a dict" in reason or "as a ConfigDict" in reason:
        reason = f"expected one of its settings, as {flag.partition('=')[0]}.NAME=VALUE"
    elif "Error while parsing string" in reason:
        reason = f"expected a list, as in {_as_list(flag)}"
    return f"{flag}: {reason}"


def _as_list(flag: str) -> str:
    """Return a flag whose value was meant as a list, as it can be typed: numbers stay numbers."""
    name, _, value = flag.partition("=")
    words = re.split(r"[\s,]+", value.strip(" ,()[]"))
    elements = [
        word if re.fullmatch(r"[\d.]+", word) else repr(word.strip("'\"")) for word in words
    ]
    return shlex.quote(f"{name}={','.join(elements)}")
