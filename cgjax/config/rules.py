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
        is_legal, words = ELEMENTS[path]
        if not is_legal(element):
            yield f"--config.{path}={shown(element)}: expected {words}"


def _expected(leaf: Leaf, value: Any) -> str | None:
    """Return what is expected of a value, in words; None if it is legal."""
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


def _is_condition(value: Any) -> bool:
    return _is_integer(value, 0) or _is_text(value)


def _is_layer(value: Any) -> bool:
    return _is_integer(value, 1) or _is_text(value)


def _is_judge(name: str) -> bool:
    return name in JUDGES or all(name.partition(":"))


def _are_judges(value: Any) -> bool:
    return isinstance(value, str) and all(_is_judge(name.strip()) for name in value.split(","))


def _are_samplers(value: Any) -> bool:
    return _is_text(value) and all(name in SAMPLERS for name in split_texts([value]))


def _are_trainable(value: Any) -> bool:
    return isinstance(value, str) and all(name in TRAINABLE for name in split_texts([value]))


def _are_splits(value: Any) -> bool:
    texts = split_texts([value])
    return isinstance(value, str) and bool(texts) and all(map(parse_split, texts))


TRAINABLE = [name for name, leaves in SAMPLERS.items() if "num_epochs" in leaves]
"""The samplers that are trained."""

_ANY_JUDGE = f"{', '.join(JUDGES)} or package.module:function"

ELEMENTS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "compare.margins": (lambda value: parse_quantiles(value) is not None, EXPECTED),
    "compare.alphas": (lambda value: _is_number(value) and math.isfinite(value), "a finite number"),
    "compare.dialled": (_are_samplers, f"one of {', '.join(SAMPLERS)}"),
    "compare.conditional": (_is_text, "a folder of converted weights"),
    "transfer.conditions": (_is_condition, "the name or the id of a class"),
    "hierarchy.splits": (_are_splits, "a cluster and a clustering of it, as in 0/layer4-k2"),
    "hierarchy.samplers": (_are_trainable, f"one of {', '.join(TRAINABLE)}"),
    "sweep.layers": (_is_layer, "the name of a layer or its number, from 1"),
    "sweep.numbers": (lambda value: _is_integer(value, 1), "a number of clusters, at least 1"),
    "sweep.judges": (_are_judges, _ANY_JUDGE),
}
"""Of each list, whether an element is legal, and what is expected of it."""


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
    """Yield numbers of rows too small for what is computed from them, and empty lists."""
    prior, components = leaves.get("evaluate.prior_images"), leaves.get("evaluate.components")
    if prior is not None and components is not None and prior <= components:
        yield f"--config.evaluate.prior_images={prior}: expected more than components={components}"
    latents = [f"samplers.{name}.num_latents" for name in fitted]
    for path in ("latents.num", "cluster.max_samples", *latents):
        count = leaves.get(path)
        if count is not None and clusters is not None and count < clusters:
            yield f"--config.{path}={count} is less than num_clusters={clusters}"
    for path, what in (("sweep.numbers", "number of clusters"), ("compare.alphas", "number")):
        if leaves.get(path) in ([], ()):
            yield f"--config.{path}: expected at least one {what}"


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
