"""Folders of versions before artifacts had keys: their manifests are read but never written.

Such a manifest holds one fingerprint for a whole stage: a hash of the sections of the config that
the stage depended on and of the previous stage's fingerprint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

_SECTIONS = {
    "cluster": ("generator", "layer", "latents", "cluster", "seed"),
    "fit": ("samplers",),
    "sample": ("sample",),
    "evaluate": ("evaluate",),
    "report": (),
}


class Fingerprints(NamedTuple):
    """The fingerprints in a folder that was made with some config.

    Attributes:
        stages: by stage.
        samplers: of the checkpoints, by sampler.
    """

    stages: dict[str, str]
    samplers: dict[str, str]


def fingerprints(config: Mapping[str, Any], weights_sha256: str) -> Fingerprints:
    """Return the fingerprints of a config, computed as the earlier versions did."""

    def of(part: Any, *more: str) -> str:
        return hashlib.sha256(json.dumps([part, *more], sort_keys=True).encode()).hexdigest()

    def sections(names: tuple[str, ...]) -> dict[str, Any]:
        return {name: config.get(name) for name in names}

    stages, previous = {}, weights_sha256
    for stage, names in _SECTIONS.items():
        previous = stages[stage] = of(sections(names), previous)
    stages |= {"encode": stages["cluster"], "compare": stages["fit"]}
    stages["transfer"] = of(sections(("transfer", "sample")), stages["fit"])
    samplers = {
        name: of({}, stages["cluster"], of(settings))
        for name, settings in config["samplers"].items()
    }
    return Fingerprints(stages, samplers)


def manifest(folder: Path, name: str, old: Fingerprints | None) -> dict[str, Any] | None:
    """Return what an old manifest says of an artifact; None if there is none or it is stale."""
    if old is None:
        return None
    kind, _, part = name.partition(" ")
    kind = {"latents": "cluster", "sheet": "sample"}.get(kind, kind)
    file = kind
    if kind == "transfer":
        file = "transfer_0" if part == "figure" else f"transfer_{part}"
    content = _read(folder / f"{file}.json")
    if content is None or kind == "compare" or content["fingerprint"] != old.stages.get(kind):
        return None
    result = content["result"]
    if kind in ("fit", "sample") and part:
        if part not in result:
            return None
        result = result[part] if kind == "fit" else {"acceptance": result[part]}
    if kind == "evaluate":
        if part not in result["samplers"]:
            return None
        result = {"distance": result["distance"], "numbers": result["samplers"][part]}
    return content | {"result": result}


def stale(folder: Path, old: Fingerprints | None) -> list[Path]:
    """Return the old manifests that are not of this config."""
    expected = old.stages if old else {}
    return [
        path
        for path in sorted(folder.glob("*.json"))
        if (content := _read(path))
        and content["fingerprint"] != expected.get(path.stem.partition("_")[0])
    ]


def costs(folder: Path) -> dict[str, dict[str, float]]:
    """Return the seconds and peak memory of the stages that have a manifest."""
    manifests = [m for m in map(_read, sorted(folder.glob("*.json"))) if m]
    return {
        m["stage"]: {"seconds": m["seconds"], "peak_rss_mb": m["peak_rss_mb"]}
        for m in sorted(manifests, key=lambda m: float(m["finished"]))
    }


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    fields = {"stage", "fingerprint", "finished", "seconds", "peak_rss_mb", "result"}
    return content if isinstance(content, dict) and content.keys() >= fields else None
