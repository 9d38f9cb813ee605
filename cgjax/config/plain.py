"""Checking a config before any work, and keeping it as JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ml_collections import config_dict

from cgjax.clustering.kmeans.api import BACKENDS
from cgjax.clustering.kmeans.seeding import INITS
from cgjax.errors import UserError
from cgjax.regions.clustering import MarginRange
from cgjax.samplers.matching import MATCHERS
from cgjax.samplers.registry import SAMPLERS

# Leaf -> (lowest legal value, highest or None).
RANGES: dict[str, tuple[float, float | None]] = {
    "generator.batch": (1, None),
    "generator.truncation": (0, None),
    "generator.truncation_layers": (0, None),
    "latents.num": (2, None),
    "cluster.num_clusters": (1, None),
    "cluster.num_init": (1, None),
    "cluster.max_iter": (1, None),
    "cluster.tol": (0, None),
    "cluster.memory_mb": (0, None),
    "cluster.max_samples": (1, None),
    "sample.num": (1, None),
    "sample.max_draws": (1, None),
    "evaluate.num": (2, None),
    "evaluate.components": (1, None),
    "evaluate.prior_images": (2, None),
    "compare.num": (2, None),
    "compare.accuracy": (0, 1),
    "compare.directions": (0, None),
    "compare.selection": (1, None),
    "compare.ganspace_latents": (2, None),
    "transfer.num": (1, None),
    "transfer.columns": (1, None),
    "checkpoint_epochs": (1, None),
    "seed": (0, 2**32 - 1),
}
CHOICES: dict[str, tuple[str | None, ...]] = {
    "cluster.init": INITS,
    "cluster.backend": BACKENDS,
    "generator.noise": (None, "stored", "zeros"),
    "samplers.imle.matcher": MATCHERS,
}
SAMPLER_RANGES: dict[str, tuple[float, float | None]] = {
    "num_epochs": (1, None),
    "batch": (2, None),
    "code_dim": (1, None),
    "hidden_dim": (1, None),
    "pool_factor": (1, None),
    "learning_rate": (0, None),
    "beta1": (0, 1),
    "beta2": (0, 1),
    "weight_decay": (0, None),
    "decay_epochs": (0, None),
    "num_latents": (2, None),
    "average": (0, 1),
    "num_steps": (1, None),
    "guidance": (0, None),
    "distilled": (0, 1),
    "num_components": (1, None),
    "critic_dim": (1, None),
    "encoder_dim": (1, None),
    "penalty": (0, None),
    "beta": (0, None),
    "warmup_epochs": (0, None),
    "match_epochs": (1, None),
    "force_epochs": (1, None),
    "threshold": (0, 1),
    "quantile": (0, 1),
}
OUTPUTS = (None, "raw", "sphere")


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return every leaf by its dotted path."""
    leaves: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            leaves |= flatten(value, f"{prefix}{name}.")
        else:
            leaves[f"{prefix}{name}"] = value
    return leaves


def to_plain(config: config_dict.ConfigDict) -> dict[str, Any]:
    """Return a config as nested plain dicts; unset placeholders become None."""
    plain: dict[str, Any] = json.loads(config.to_json_best_effort())
    return plain


def validate(config: Mapping[str, Any]) -> None:
    """Check every value of a config, before a device is touched.

    Args:
        config: nested plain dicts, as `to_plain` returns them.

    Raises:
        UserError: one line with every problem, each with the flag to type.
    """
    leaves = flatten(config)
    problems = []
    for name, (low, high) in RANGES.items():
        problems += _outside(f"config.{name}", leaves.get(name), low, high)
    for name, choices in CHOICES.items():
        if name in leaves and leaves[name] not in choices:
            legal = " or ".join(str(c) for c in choices if c is not None)
            problems.append(f"--config.{name}={leaves[name]}: expected {legal}")
    samplers: Mapping[str, Any] = config.get("samplers", {})
    for name, settings in samplers.items():
        if name not in SAMPLERS:
            problems.append(f"config.samplers.{name}: no such sampler ({', '.join(SAMPLERS)})")
        for leaf, value in settings.items():
            path = f"config.samplers.{name}.{leaf}"
            if leaf in SAMPLER_RANGES:
                problems += _outside(path, value, *SAMPLER_RANGES[leaf])
            if leaf == "output" and value not in OUTPUTS:
                problems.append(f"--{path}={value}: expected raw or sphere")
    for margin in leaves.get("compare.margins", ()):
        try:
            MarginRange.parse(margin, "--config.compare.margins")
        except UserError as error:
            problems.append(str(error))
    fitted = [name for name, settings in samplers.items() if settings.get("fit")]
    chosen = leaves.get("sample.sampler")
    if chosen not in fitted:
        problems.append(
            f"--config.sample.sampler={chosen}: not among the samplers with fit=true "
            f"({', '.join(fitted) or 'none'})"
        )
    prior, components = leaves.get("evaluate.prior_images"), leaves.get("evaluate.components")
    if isinstance(prior, int) and isinstance(components, int) and prior <= components:
        problems.append(
            f"--config.evaluate.prior_images={prior}: expected more than components={components}"
        )
    num, clusters = leaves.get("latents.num"), leaves.get("cluster.num_clusters")
    if isinstance(num, int) and isinstance(clusters, int) and num < clusters:
        problems.append(f"--config.latents.num={num} is less than num_clusters={clusters}")
    samples = leaves.get("cluster.max_samples")
    if isinstance(samples, int) and isinstance(clusters, int) and samples < clusters:
        problems.append(
            f"--config.cluster.max_samples={samples} is less than num_clusters={clusters}"
        )
    if problems:
        raise UserError("; ".join(problems))


def _outside(path: str, value: Any, low: float, high: float | None) -> list[str]:
    if value is None or (low <= value and (high is None or value <= high)):
        return []
    limits = f"at least {low:g}" if high is None else f"from {low:g} to {high:g}"
    return [f"--{path}={value}: expected {limits}"]


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Describe every leaf in which two configs differ, as `name: old -> new`."""
    a, b = flatten(old), flatten(new)
    return [
        f"{name}: {a.get(name)} -> {b.get(name)}"
        for name in sorted(a.keys() | b.keys())
        if a.get(name) != b.get(name)
    ]


def fingerprint(config: Mapping[str, Any], names: tuple[str, ...], *more: str) -> str:
    """Hash the parts of a config that a stage depends on, and what came before it.

    Args:
        config: nested plain dicts.
        names: top-level names.
        *more: fingerprints of earlier stages, hashes of weights.

    Returns:
        A SHA-256 in hexadecimal.
    """
    part = {name: config.get(name) for name in names}
    text = json.dumps([part, *more], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
