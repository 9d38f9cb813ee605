"""What is wrong with a value of a config, alone and beside the others, in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cgjax.config.leaves import AUTO, INT_MAX, JUDGES, SAMPLERS, Leaf
from cgjax.config.plain import split_texts
from cgjax.config.splits import parse_split, shown_path, splits_of

MAX_GB = 64
"""A larger array is taken for a slip of the keyboard."""


def shown(value: Any) -> str:
    """Return a value as it is typed, on one line; a pair as `LOW:HIGH`, a long one cut."""
    if isinstance(value, list | tuple):
        value = ":".join(str(part) for part in value)
    text = " ".join(str(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def problems_of(path: str, leaf: Leaf, value: Any) -> Iterator[str]:
    """Say what is wrong with the value of one leaf."""
    if value is None and leaf.optional:
        return
    if wanted := _wanted(leaf, value):
        yield f"--config.{path}={shown(value)}: expected {wanted}"
        return
    for element in value if leaf.kind is tuple else ():
        if wanted := ELEMENTS[path](element):
            yield f"--config.{path}={shown(element)}: expected {wanted}"


def _wanted(leaf: Leaf, value: Any) -> str | None:
    """Say what a leaf should be, or None if the value is that."""
    if leaf.words:
        wanted = None if value in leaf.words else _wanted_number(leaf, value)
        return wanted and f"{wanted}, or {' or '.join(leaf.words)}"
    if leaf.choices is not None:
        return None if value in leaf.choices else " or ".join(leaf.choices)
    if leaf.kind is bool:
        return None if isinstance(value, bool) else "true or false"
    if leaf.kind is str:
        return None if isinstance(value, str) else "text"
    if leaf.kind is tuple:
        return None if isinstance(value, list | tuple) else "a list"
    return _wanted_number(leaf, value)


def _wanted_number(leaf: Leaf, value: Any) -> str | None:
    if not _is_number(value) or (leaf.kind is int and not isinstance(value, int)):
        return "a whole number" if leaf.kind is int else "a number"
    if not math.isfinite(value):
        return "a finite number"
    low, high = leaf.low, leaf.high
    if leaf.kind is int and high is None and value > INT_MAX:
        return f"at most {INT_MAX}"
    if (low is None or low <= value) and (high is None or value <= high):
        return None
    return f"at least {low:g}" if high is None else f"from {low:g} to {high:.10g}"


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # A whole number too large for a float counts as infinite.
    return isinstance(value, float) or abs(value) < 2**1000


def _wanted_margin(value: Any) -> str | None:
    """As `MarginRange.parse`: a quantile, or two, as numbers or as text with a colon."""
    parts = value.split(":") if isinstance(value, str) else value
    parts = list(parts) if isinstance(parts, list | tuple) else [parts]
    numbers = [_as_quantile(part) for part in parts]
    low, high = [*numbers, 1.0, 1.0][:2]
    if len(parts) in (1, 2) and 0 <= low < high <= 1:
        return None
    return (
        "a quantile from 0 to below 1, or two, the smaller first, as in --margin=0.6 or "
        "--margin=0.55:0.8"
    )


def _as_quantile(part: Any) -> float:
    try:
        return float(part) if isinstance(part, str) or _is_number(part) else math.nan
    except ValueError:
        return math.nan


def _wanted_alpha(value: Any) -> str | None:
    return None if _is_number(value) and math.isfinite(value) else "a finite number"


def _wanted_sampler(value: Any) -> str | None:
    is_known = isinstance(value, str) and value in SAMPLERS
    return None if is_known else f"one of {', '.join(SAMPLERS)}"


def _wanted_condition(value: Any) -> str | None:
    is_id = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= INT_MAX
    is_name = isinstance(value, str) and value.strip() != ""
    return None if is_id or is_name else "the name or the id of a class"


def _wanted_layer(value: Any) -> str | None:
    is_number = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    is_name = isinstance(value, str) and value.strip() != ""
    return None if is_number or is_name else "the name of a layer or its number, from 1"


def _wanted_count(value: Any) -> str | None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= INT_MAX
    return None if is_count else "a number of clusters, at least 1"


def _wanted_judge(value: Any) -> str | None:
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else [""]
    if all(name in JUDGES or all(name.partition(":")) for name in names):
        return None
    return f"{', '.join(JUDGES)} or package.module:function"


def _wanted_learner(value: Any) -> str | None:
    known = [name for name, leaves in SAMPLERS.items() if "num_epochs" in leaves]
    is_one = isinstance(value, str) and all(name in known for name in split_texts([value]))
    return None if is_one else f"one of {', '.join(known)}"


def _wanted_split(value: Any) -> str | None:
    texts = split_texts([value])
    is_split = isinstance(value, str) and texts and all(parse_split(text) for text in texts)
    return None if is_split else "a cluster and a clustering of it, as in 0/layer4-k2"


def _wanted_folder(value: Any) -> str | None:
    is_one = isinstance(value, str) and value.strip() != ""
    return None if is_one else "a folder of converted weights"


ELEMENTS: dict[str, Callable[[Any], str | None]] = {
    "compare.margins": _wanted_margin,
    "compare.alphas": _wanted_alpha,
    "compare.dialled": _wanted_sampler,
    "compare.conditional": _wanted_folder,
    "transfer.conditions": _wanted_condition,
    "hierarchy.splits": _wanted_split,
    "hierarchy.samplers": _wanted_learner,
    "sweep.layers": _wanted_layer,
    "sweep.numbers": _wanted_count,
    "sweep.judges": _wanted_judge,
}
"""What an element of each list should be, or None if it is that."""


def problems_between(leaves: Mapping[str, Any]) -> Iterator[str]:
    """Say which values do not go together.

    Args:
        leaves: those that are legal on their own, by dotted path; a rule whose values are not all
            there is left out.
    """
    fitted = [name for name in SAMPLERS if leaves.get(f"samplers.{name}.fit")]
    chosen = leaves.get("sample.sampler")
    if chosen is not None and chosen not in fitted:
        yield (
            f"--config.sample.sampler={shown(chosen)}: not among the samplers with fit=true "
            f"({', '.join(fitted) or 'none'})"
        )
    prior, components = leaves.get("evaluate.prior_images"), leaves.get("evaluate.components")
    if prior is not None and components is not None and prior <= components:
        yield f"--config.evaluate.prior_images={prior}: expected more than components={components}"
    clusters, num = leaves.get("cluster.num_clusters"), leaves.get("latents.num")
    if clusters == AUTO:
        clusters = None  # never more than there are latents: see `check_rows`
    counted = [f"samplers.{name}.num_latents" for name in fitted]
    for path in ("latents.num", "cluster.max_samples", *counted):
        count = leaves.get(path)
        if count is not None and clusters is not None and count < clusters:
            yield f"--config.{path}={count} is less than num_clusters={clusters}"
    if leaves.get("cluster.trimmed") and leaves.get("cluster.backend") == "faiss":
        yield (
            f"--config.cluster.trimmed={leaves['cluster.trimmed']:g}: expected 0 with "
            "cluster.backend=faiss, which leaves no rows out; or take cluster.backend=jax"
        )
    numbers = leaves.get("sweep.numbers")
    if numbers is not None and not numbers:
        yield "--config.sweep.numbers: expected at least one number of clusters"
    yield from _split_problems(leaves, clusters)
    for name in split_texts(leaves.get("hierarchy.samplers") or ()):
        if name not in fitted:
            yield (
                f"--config.hierarchy.samplers={shown(name)}: not among the samplers with fit=true "
                f"({', '.join(fitted) or 'none'})"
            )
    yield from _judge_problems(leaves)
    for name in fitted:
        settings = {leaf: leaves.get(f"samplers.{name}.{leaf}") for leaf in SAMPLERS[name]}
        for leaf, size in _sizes(settings, clusters or 1, num or 1).items():
            if settings.get(leaf) is not None and size > MAX_GB * 1e9:
                yield (
                    f"--config.samplers.{name}.{leaf}={settings[leaf]}: needs more than "
                    f"{size / 1e9:,.0f} GB; expected what fits in {MAX_GB} GB"
                )
                break


def _split_problems(leaves: Mapping[str, Any], clusters: int | None) -> Iterator[str]:
    """Say which clusters are split that are not there, or twice."""
    if leaves.get("hierarchy.splits") is None:
        return
    sizes: dict[tuple[int, ...], int] = {} if clusters is None else {(): clusters}
    for split in splits_of({"hierarchy": {"splits": leaves["hierarchy.splits"]}}):
        flag = f"--config.hierarchy.splits={split}"
        *above, last = split.path
        size = sizes.get(tuple(above), None if above else INT_MAX)
        if size is None:
            yield f"{flag}: no split makes the cluster {shown_path(split.path)}; add one before it"
        elif last >= size:
            yield f"{flag}: expected a cluster from 0 to {size - 1} in place of {last}"
        elif split.path in sizes:
            yield f"{flag}: the cluster {shown_path(split.path)} is split twice; expected once"
        sizes[split.path] = split.num_clusters


def _judge_problems(leaves: Mapping[str, Any]) -> Iterator[str]:
    if leaves.get("compare.alphas") in ([], ()):
        yield "--config.compare.alphas: expected at least one number"
    judge, attribute = leaves.get("compare.judge"), leaves.get("compare.attribute")
    if judge is None:
        return
    module, _, function = judge.partition(":")
    if judge not in JUDGES and not (module and function):
        known = ", ".join(JUDGES)
        yield f"--config.compare.judge={shown(judge)}: expected {known} or package.module:function"
    elif judge in JUDGES and attribute is not None and attribute not in JUDGES[judge]:
        known = ", ".join(JUDGES[judge])
        yield f"--config.compare.attribute={shown(attribute)}: the judge {judge} knows {known}"


def _sizes(settings: Mapping[str, Any], clusters: int, num: int) -> dict[str, float]:
    """Bytes of the largest float32 array that a setting asks for: rough, and never too many."""
    code, hidden = settings.get("code_dim") or 1, settings.get("hidden_dim") or 128
    return {
        "code_dim": 4.0 * clusters * code * hidden,
        "hidden_dim": 4.0 * clusters * hidden**2,
        "critic_dim": 4.0 * clusters * (settings.get("critic_dim") or 1) ** 2,
        "encoder_dim": 4.0 * clusters * (settings.get("encoder_dim") or 1) ** 2,
        "pool_factor": 4.0 * num * code * (settings.get("pool_factor") or 1),
        "num_components": 4.0 * num * (settings.get("num_components") or 1),
    }
