"""Folders of versions before artifacts had keys: their manifests, read but never written.

Such a manifest holds one fingerprint for a whole stage, a hash of the sections of the config that
the stage depended on and of the fingerprint before it.
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
    """What the manifests of a folder say if it was made with this config.

    Attributes:
        stages: of each stage.
        samplers: of each sampler's checkpoints.
    """

    stages: dict[str, str]
    samplers: dict[str, str]


def fingerprints(config: Mapping[str, Any], weights_sha256: str) -> Fingerprints:
    """Return the fingerprints of a config as they were computed then."""

    def of(part: Any, *more: str) -> str:
        return hashlib.sha256(json.dumps([part, *more], sort_keys=True).encode()).hexdigest()

    def sections(names: tuple[str, ...]) -> dict[str, Any]:
        return {name: config.get(name) for name in names}

    stages, before = {}, weights_sha256
    for stage, names in _SECTIONS.items():
        before = stages[stage] = of(sections(names), before)
    stages |= {"encode": stages["cluster"], "compare": stages["fit"]}
    stages["transfer"] = of(sections(("transfer", "sample")), stages["fit"])
    samplers = {
        name: of({}, stages["cluster"], of(settings))
        for name, settings in config["samplers"].items()
    }
    return Fingerprints(stages, samplers)


def manifest(folder: Path, name: str, old: Fingerprints | None) -> dict[str, Any] | None:
    """Return what an old manifest says of an artifact; None if there is none that is current."""
    if old is None:
        return None
    kind, _, part = name.partition(" ")
    kind = {"latents": "cluster", "sheet": "sample"}.get(kind, kind)
    file = kind
    if kind == "transfer":
        file = "transfer_0" if part == "figure" else f"transfer_{part}"
    found = _read(folder / f"{file}.json")
    if found is None or kind == "compare" or found["fingerprint"] != old.stages.get(kind):
        return None
    result = found["result"]
    if kind in ("fit", "sample") and part:
        if part not in result:
            return None
        result = result[part] if kind == "fit" else {"acceptance": result[part]}
    if kind == "evaluate":
        if part not in result["samplers"]:
            return None
        result = {"distance": result["distance"], "numbers": result["samplers"][part]}
    return found | {"result": result}


def stale(folder: Path, old: Fingerprints | None) -> list[Path]:
    """Return the old manifests that are not of this config."""
    expected = old.stages if old else {}
    return [
        path
        for path in sorted(folder.glob("*.json"))
        if (known := _read(path))
        and known["fingerprint"] != expected.get(path.stem.partition("_")[0])
    ]


def costs(folder: Path) -> dict[str, dict[str, float]]:
    """Return seconds and peak memory of the stages on record."""
    known = [m for m in map(_read, sorted(folder.glob("*.json"))) if m]
    return {
        m["stage"]: {"seconds": m["seconds"], "peak_rss_mb": m["peak_rss_mb"]}
        for m in sorted(known, key=lambda m: float(m["finished"]))
    }


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    fields = {"stage", "fingerprint", "finished", "seconds", "peak_rss_mb", "result"}
    return found if isinstance(found, dict) and found.keys() >= fields else None
