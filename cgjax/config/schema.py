"""What a config may say: the check of every leaf before any work, and what old configs lack.

Nothing here imports jax, so that a mistake is reported at once.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from cgjax.config.leaves import (
    ADDED,
    LEAVES,
    SAMPLERS,
    SECTIONS,
    Leaf,
    is_resource,
    leaf_of,
)
from cgjax.config.rules import problems_between, problems_of, shown
from cgjax.errors import UserError

LISTS_OF_FLOATS = ("compare.margins", "compare.alphas")

__all__ = ["LEAVES", "Leaf", "complete", "is_resource", "leaf_of", "validate"]


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with the leaves that a newer version added, and its values in one form.

    Whole numbers become floats where floats belong, and tuples become lists, so that equal
    settings have equal digests. Nothing is checked: what `validate` would refuse stays as it is.

    Args:
        config: nested plain dicts, as `to_plain` returns them or as read from `config.json`.

    Returns:
        A copy; once validated, every leaf outside `samplers` may be indexed, and `fit` inside.
    """
    whole: dict[str, Any] = _in_one_form(config, "")
    for section, leaves in SECTIONS.items():
        # A section that is not in the table of what was added is missing for another reason.
        if all(f"{section}.{leaf}" in ADDED for leaf in leaves):
            whole.setdefault(section, {})
    for path, default in ADDED.items():
        section, _, name = path.rpartition(".")
        if isinstance(settings := _section(whole, section), dict):
            settings.setdefault(name, list(default) if isinstance(default, list) else default)
    return whole


def _in_one_form(value: Any, path: str) -> Any:
    if isinstance(value, Mapping):
        prefix = f"{path}." if path else ""
        return {name: _in_one_form(inner, f"{prefix}{name}") for name, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_in_one_form(inner, path) for inner in value]
    leaf = leaf_of(path)
    takes_floats = path in LISTS_OF_FLOATS or (leaf is not None and leaf.kind is float)
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if takes_floats and is_whole and abs(value) < 2**53 else value


def validate(config: Mapping[str, Any]) -> None:
    """Check every value of a config, before a device is touched.

    Args:
        config: nested plain dicts with every leaf, as `complete` returns them.

    Raises:
        UserError: one line with every problem, each with the flag to type.
    """
    if not isinstance(config, Mapping):
        raise UserError(f"config={shown(config)}: expected sections of settings")
    problems = list(_misplaced(config))
    legal: dict[str, Any] = {}
    for path, leaf in LEAVES.items():
        section = _section(config, path.rpartition(".")[0])
        name = path.rpartition(".")[2]
        if section is not None and name in section:
            found = list(problems_of(path, leaf, section[name]))
            problems += found
            if not found:
                legal[path] = section[name]
    problems += problems_between(legal)
    if problems:
        raise UserError("; ".join(problems))


def _section(config: Mapping[str, Any], path: str) -> Mapping[str, Any] | None:
    """Return the section at a dotted path, or None."""
    section: Any = config
    for name in path.split(".") if path else ():
        section = section.get(name)
        if not isinstance(section, Mapping):
            return None
    return section


def _misplaced(config: Mapping[str, Any]) -> Iterator[str]:
    """Say which sections and leaves are missing, and which are unknown."""
    top = [path for path in LEAVES if "." not in path] + [*SECTIONS, "samplers"]
    yield from _wrong_names("", config, top, top)
    for section, leaves in SECTIONS.items():
        if section in config:
            yield from _wrong_names(f"{section}.", config[section], leaves, leaves)
    samplers = config.get("samplers", {})
    if not isinstance(samplers, Mapping):
        yield f"config.samplers={shown(samplers)}: expected a section of settings"
        return
    for name, settings in samplers.items():
        if name not in SAMPLERS:
            yield f"config.samplers.{name}: no such sampler ({', '.join(SAMPLERS)})"
        else:
            yield from _wrong_names(f"samplers.{name}.", settings, SAMPLERS[name], ("fit",))


def _wrong_names(
    prefix: str, section: Any, known: Collection[str], needed: Collection[str]
) -> Iterator[str]:
    if not isinstance(section, Mapping):
        yield f"config.{prefix[:-1]}={shown(section)}: expected a section of settings"
        return
    for name in section:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            hint = f"did you mean --config.{prefix}{near[0]}?" if near else ", ".join(known)
            yield f"--config.{prefix}{shown(name)}: no such setting; {hint}"
    for name in needed:
        if name not in section:
            yield f"--config.{prefix}{name} is missing"
