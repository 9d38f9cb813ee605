"""The check of a config before any work, and the completion of old ones.

Nothing here imports jax, so that a mistake is reported at once.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

from cgjax.config.leaves import ADDED, LEAVES, SAMPLERS, SECTIONS, Leaf
from cgjax.config.plain import flatten
from cgjax.config.rules import problems_between, problems_of, shown
from cgjax.config.training import ADDED as TRAINING_ADDED
from cgjax.config.training import LEAVES as TRAINING_LEAVES
from cgjax.config.training import SECTIONS as TRAINING_SECTIONS
from cgjax.config.training import problems_between as training_problems
from cgjax.errors import UserError

LISTS_OF_FLOATS = ("compare.margins", "compare.alphas")

CLUSTERS, TRAINING = "clusters", "training"
"""The kinds of runs: one clusters an existing generator, the other trains one."""


class _Table(NamedTuple):
    """What a config of one kind of run may hold."""

    leaves: Mapping[str, Leaf]
    sections: Mapping[str, Mapping[str, Leaf]]
    others: tuple[str, ...]
    added: Mapping[str, Any]
    problems_between: Callable[[Mapping[str, Any]], Iterator[str]]


_TABLES = {
    CLUSTERS: _Table(LEAVES, SECTIONS, ("samplers",), ADDED, problems_between),
    TRAINING: _Table(TRAINING_LEAVES, TRAINING_SECTIONS, (), TRAINING_ADDED, training_problems),
}


def kind_of(config: Mapping[str, Any]) -> str:
    """Return the kind of run that a config asks for; without a leaf `kind` it clusters.

    >>> kind_of({}), kind_of({"kind": "training"})
    ('clusters', 'training')
    """
    return TRAINING if config.get("kind", CLUSTERS) != CLUSTERS else CLUSTERS


def leaf_of(path: str) -> Leaf | None:
    """Return the leaf of any kind of run at a dotted path, or None.

    Example:
        >>> leaf_of("latents.num").low
        2
    """
    return LEAVES.get(path) or TRAINING_LEAVES.get(path)


def is_resource(path: str) -> bool:
    """Whether a leaf changes how something is computed and not what; False for unknown leaves.

    Example:
        >>> is_resource("generator.batch"), is_resource("samplers.flow.batch")
        (True, False)
    """
    leaf = leaf_of(path)
    return leaf is not None and leaf.is_resource


def with_resources(config: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with the resources (memory, batches, budgets) of another.

    Args:
        config: nested plain dicts.
        other: nested plain dicts; only its resources count.

    Raises:
        UserError: it has a setting that configs of this kind do not have.

    Example:
        >>> config = {"seed": 1, "sample": {"max_draws": 10}}
        >>> with_resources(config, {"seed": 2, "sample": {"max_draws": 20}})
        {'seed': 1, 'sample': {'max_draws': 20}}
    """
    if not isinstance(other, Mapping):
        raise UserError(f"resources={shown(other)}: expected sections of settings")
    changed: dict[str, Any] = _in_one_form(config, "")
    known = _TABLES[kind_of(config)].leaves
    for path, value in flatten(other).items():
        if path not in known:
            raise UserError(_unknown("", path, [path for path in known if is_resource(path)]))
        section, _, name = path.rpartition(".")
        settings: Any = _section(changed, section)
        if is_resource(path) and name in (settings or {}):
            settings[name] = value
    return changed


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with the leaves that newer versions added, and its values in one form.

    Integers become floats where floats belong, and tuples become lists, so that equal settings have
    equal digests. Nothing is checked: values that `validate` would refuse stay as they are.

    Args:
        config: nested plain dicts, as `to_plain` returns them or as read from `config.json`.

    Returns:
        A copy; once validated, every leaf outside `samplers` may be indexed, and `fit` inside.
    """
    whole: dict[str, Any] = _in_one_form(config, "")
    table = _TABLES[kind_of(whole)]
    for section, leaves in table.sections.items():
        # Any other section that is missing was not added by a newer version.
        if all(f"{section}.{leaf}" in table.added for leaf in leaves):
            whole.setdefault(section, {})
    for path, default in table.added.items():
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
    table = _TABLES[kind_of(config)]
    problems = list(_misplaced(config, table))
    legal: dict[str, Any] = {}
    for path, leaf in table.leaves.items():
        prefix, _, name = path.rpartition(".")
        section = _section(config, prefix)
        if section is None or name not in section:
            continue  # `_misplaced` tells where it is needed
        if found := list(problems_of(path, leaf, section[name])):
            problems += found
        else:
            legal[path] = section[name]
    problems += table.problems_between(legal)
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


def _misplaced(config: Mapping[str, Any], table: _Table) -> Iterator[str]:
    """Yield the sections and leaves that are missing or unknown."""
    top = [path for path in table.leaves if "." not in path] + [*table.sections, *table.others]
    yield from _wrong_names("", config, top, top)
    for section, leaves in table.sections.items():
        if section in config:
            yield from _wrong_names(f"{section}.", config[section], leaves, leaves)
    if "samplers" not in table.others:
        return
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
            yield _unknown(prefix, name, known)
    for name in needed:
        if name not in section:
            yield f"--config.{prefix}{name} is missing"


def _unknown(prefix: str, name: Any, known: Collection[str]) -> str:
    near = difflib.get_close_matches(str(name), known, 1)
    hint = f"did you mean --config.{prefix}{near[0]}?" if near else ", ".join(known)
    return f"--config.{prefix}{shown(name)}: no such setting; {hint}"
