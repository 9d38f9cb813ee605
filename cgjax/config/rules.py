"""What is wrong with the values of a config, each alone and together, in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from cgjax.config.distance_features import expected_feature, parse_feature
from cgjax.config.leaves import AUTO, INT_MAX, JUDGES, SAMPLERS, Leaf
from cgjax.config.plain import split_texts
from cgjax.config.quantiles import EXPECTED, parse_quantiles
from cgjax.config.splits import parse_split, shown_path, splits_of

MAX_GB = 64
"""A setting that asks for a larger array is taken for a typing error."""


def shown(value: Any) -> str:
    """Return a value as it is typed, on one line; a pair as `LOW:HIGH`, a long value cut."""
    if isinstance(value, list | tuple):
        value = ":".join(str(part) for part in value)
    text = " ".join(str(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def problems_of(path: str, leaf: Leaf, value: Any) -> Iterator[str]:
    """Yield what is wrong with the value of one leaf."""
    if value is None and leaf.optional:
        return
    if expected := _expected(leaf, value):
        yield f"--config.{path}={shown(value)}: expected {expected}"
        return
    for element in value if leaf.kind is tuple else ():
        if expected := ELEMENTS[path](element):
            yield f"--config.{path}={shown(element)}: expected {expected}"


# Each function below returns what is expected, in words, or None if the value is legal.


def _expected(leaf: Leaf, value: Any) -> str | None:
    if leaf.words:
        expected = None if value in leaf.words else _expected_number(leaf, value)
        return expected and f"{expected}, or {' or '.join(leaf.words)}"
    if leaf.choices is not None:
        return None if value in leaf.choices else " or ".join(leaf.choices)
    if leaf.kind is bool:
        return None if isinstance(value, bool) else "true or false"
    if leaf.kind is str:
        return None if isinstance(value, str) else "text"
    if leaf.kind is tuple:
        return None if isinstance(value, list | tuple) else "a list"
    return _expected_number(leaf, value)


def _expected_number(leaf: Leaf, value: Any) -> str | None:
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
    # An integer too large for a float counts as infinite.
    return isinstance(value, float) or abs(value) < 2**1000


def _is_integer(value: Any, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= INT_MAX


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != ""


def _expected_margin(value: Any) -> str | None:
    return None if parse_quantiles(value) is not None else EXPECTED


def _expected_alpha(value: Any) -> str | None:
    return None if _is_number(value) and math.isfinite(value) else "a finite number"


def _expected_sampler(value: Any) -> str | None:
    is_known = isinstance(value, str) and value in SAMPLERS
    return None if is_known else f"one of {', '.join(SAMPLERS)}"


def _expected_condition(value: Any) -> str | None:
    is_condition = _is_integer(value, 0) or _is_text(value)
    return None if is_condition else "the name or the id of a class"


def _expected_layer(value: Any) -> str | None:
    is_layer = _is_integer(value, 1) or _is_text(value)
    return None if is_layer else "the name of a layer or its number, from 1"


def _expected_count(value: Any) -> str | None:
    return None if _is_integer(value, 1) else "a number of clusters, at least 1"


def _expected_judge(value: Any) -> str | None:
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else [""]
    return None if all(map(_is_judge, names)) else _ANY_JUDGE


_ANY_JUDGE = f"{', '.join(JUDGES)} or package.module:function"


def _is_judge(name: str) -> bool:
    return name in JUDGES or all(name.partition(":"))


def _expected_trainable(value: Any) -> str | None:
    known = [name for name, leaves in SAMPLERS.items() if "num_epochs" in leaves]
    is_known = isinstance(value, str) and all(name in known for name in split_texts([value]))
    return None if is_known else f"one of {', '.join(known)}"


def _expected_split(value: Any) -> str | None:
    texts = split_texts([value])
    is_split = isinstance(value, str) and texts and all(parse_split(text) for text in texts)
    return None if is_split else "a cluster and a clustering of it, as in 0/layer4-k2"


def _expected_folder(value: Any) -> str | None:
    return None if _is_text(value) else "a folder of converted weights"


ELEMENTS: dict[str, Callable[[Any], str | None]] = {
    "compare.margins": _expected_margin,
    "compare.alphas": _expected_alpha,
    "compare.dialled": _expected_sampler,
    "compare.conditional": _expected_folder,
    "transfer.conditions": _expected_condition,
    "hierarchy.splits": _expected_split,
    "hierarchy.samplers": _expected_trainable,
    "sweep.layers": _expected_layer,
    "sweep.numbers": _expected_count,
    "sweep.judges": _expected_judge,
}
"""The check of one element of each list."""


def problems_between(leaves: Mapping[str, Any]) -> Iterator[str]:
    """Yield which values conflict with each other.

    Args:
        leaves: the values that are legal on their own, by dotted path; a rule that needs a missing
            value is skipped.
    """
    clusters = leaves.get("cluster.num_clusters")
    if clusters == AUTO:
        clusters = None  # never more than there are latents: see `check_rows`
    fitted = [name for name in SAMPLERS if leaves.get(f"samplers.{name}.fit")]
    yield from _sampler_problems(leaves, fitted)
    yield from _count_problems(leaves, fitted, clusters)
    if leaves.get("cluster.trimmed") and leaves.get("cluster.backend") == "faiss":
        yield (
            f"--config.cluster.trimmed={leaves['cluster.trimmed']:g}: expected 0 with "
            "cluster.backend=faiss, which cannot trim; or use cluster.backend=jax"
        )
    yield from _split_problems(leaves, clusters)
    yield from _judge_problems(leaves)
    features = leaves.get("evaluate.features")
    if features is not None and parse_feature(features) is None:
        yield f"--config.evaluate.features={shown(features)}: expected {expected_feature()}"
    for name in fitted:
        yield from _size_problems(leaves, name, clusters or 1)


def _sampler_problems(leaves: Mapping[str, Any], fitted: Sequence[str]) -> Iterator[str]:
    """Yield the samplers that are named but not fitted."""
    chosen = leaves.get("sample.sampler")
    named = [] if chosen is None else [("sample.sampler", chosen)]
    inside = split_texts(leaves.get("hierarchy.samplers") or ())
    for path, name in [*named, *(("hierarchy.samplers", name) for name in inside)]:
        if name not in fitted:
            yield (
                f"--config.{path}={shown(name)}: not among the samplers with fit=true "
                f"({', '.join(fitted) or 'none'})"
            )


def _count_problems(
    leaves: Mapping[str, Any], fitted: Sequence[str], clusters: int | None
) -> Iterator[str]:
    """Yield the numbers of rows that are too small for what is computed from them."""
    prior, components = leaves.get("evaluate.prior_images"), leaves.get("evaluate.components")
    if prior is not None and components is not None and prior <= components:
        yield f"--config.evaluate.prior_images={prior}: expected more than components={components}"
    latents = [f"samplers.{name}.num_latents" for name in fitted]
    for path in ("latents.num", "cluster.max_samples", *latents):
        count = leaves.get(path)
        if count is not None and clusters is not None and count < clusters:
            yield f"--config.{path}={count} is less than num_clusters={clusters}"
    numbers = leaves.get("sweep.numbers")
    if numbers is not None and not numbers:
        yield "--config.sweep.numbers: expected at least one number of clusters"


def _split_problems(leaves: Mapping[str, Any], clusters: int | None) -> Iterator[str]:
    """Yield the splits of clusters that do not exist or are already split."""
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
    if not _is_judge(judge):
        yield f"--config.compare.judge={shown(judge)}: expected {_ANY_JUDGE}"
    elif judge in JUDGES and attribute is not None and attribute not in JUDGES[judge]:
        known = ", ".join(JUDGES[judge])
        yield f"--config.compare.attribute={shown(attribute)}: the judge {judge} knows {known}"


def _size_problems(leaves: Mapping[str, Any], name: str, clusters: int) -> Iterator[str]:
    """Yield the first setting of a sampler that asks for an array too large to be meant."""
    settings = {leaf: leaves.get(f"samplers.{name}.{leaf}") for leaf in SAMPLERS[name]}
    for leaf, size in _sizes(settings, clusters, leaves.get("latents.num") or 1).items():
        if settings.get(leaf) is not None and size > MAX_GB * 1e9:
            yield (
                f"--config.samplers.{name}.{leaf}={settings[leaf]}: needs more than "
                f"{size / 1e9:,.0f} GB; expected what fits in {MAX_GB} GB"
            )
            return


def _sizes(settings: Mapping[str, Any], clusters: int, num: int) -> dict[str, float]:
    """Return the bytes of the largest float32 array that a setting asks for, as a lower bound."""
    code, hidden = settings.get("code_dim") or 1, settings.get("hidden_dim") or 128
    return {
        "code_dim": 4.0 * clusters * code * hidden,
        "hidden_dim": 4.0 * clusters * hidden**2,
        "critic_dim": 4.0 * clusters * (settings.get("critic_dim") or 1) ** 2,
        "encoder_dim": 4.0 * clusters * (settings.get("encoder_dim") or 1) ** 2,
        "pool_factor": 4.0 * num * code * (settings.get("pool_factor") or 1),
        "num_components": 4.0 * num * (settings.get("num_components") or 1),
    }
