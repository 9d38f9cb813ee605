"""The manifests beside artifacts: what is there, whether it is current, and what has to go."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cgjax.config.plain import digest
from cgjax.errors import UserError
from cgjax.run import legacy
from cgjax.run.artifacts import OF_LAYERS, PLACES, Graph, is_place, is_written
from cgjax.run.folder import RunFolder
from cgjax.runtime.files import make_folder, read_sealed, sha256_of, write_sealed


class Manifests:
    """The manifests of a run's folder, held against what its config asks for."""

    def __init__(self, folder: RunFolder, graph: Graph, old: legacy.Fingerprints | None = None):
        """Open; reads nothing yet.

        Args:
            folder: the run's.
            graph: what there should be.
            old: the fingerprints by which a folder of an earlier version is known.
        """
        self.folder, self.graph, self._old = folder, graph, old

    def result(self, name: str) -> dict[str, Any] | None:
        """Return what an artifact's stage said of it; None if it is not there or not current."""
        manifest = self._current(name)
        return None if manifest is None else dict(manifest["result"])

    def last_result(self, name: str) -> dict[str, Any] | None:
        """Return what a stage said last, current or not; None if there is nothing."""
        manifest = self._read(name)
        return None if manifest is None else dict(manifest["result"])

    def require(self, name: str) -> dict[str, Any]:
        """Return the same of an artifact that must be there.

        Raises:
            UserError: if it is missing, stale, or not as it was written; says which and what to
                type.
        """
        manifest = self._current(name)
        if manifest is not None:
            return dict(manifest["result"])
        raise UserError(f"{self.folder.root}: {self.why_not(name)}; {self.folder.command} makes it")

    def why_not(self, name: str) -> str:
        """Say in words why an artifact is not current."""
        for part in self._upstream(name):
            manifest = self._read(part)
            if manifest is None:
                return f"{part!r} is not there yet"
            changed = differing(manifest["reads"], self.graph[part].reads)
            if changed:
                return f"{part!r} was made with another config ({'; '.join(changed)})"
        return f"{name!r} is stale, or its files are not those that were written"

    def _upstream(self, name: str) -> list[str]:
        parts: list[str] = []
        for part in (*self.graph[name].inputs, name):
            above = [part] if part == name else self._upstream(part)
            parts += [p for p in above if p not in parts]
        return parts

    def record(self, name: str, result: dict[str, Any], costs: dict[str, Any]) -> None:
        """Write the manifest of an artifact whose files are all written.

        Args:
            name: of the artifact.
            result: JSON-able, returned by `result`.
            costs: seconds and peak memory of each stage that worked on it.
        """
        artifact = self.graph[name]
        manifest = {
            "name": name,
            "stage": artifact.stage,
            "key": artifact.key,
            "reads": artifact.reads,
            "places": artifact.places,
            "files": self._hashes(artifact.places),
            "made_from": {i: self._content(i) for i in artifact.inputs},
            "finished": time.time(),
            "costs": costs,
            "result": result,
        }
        make_folder(self.folder.manifests)
        write_sealed(self._path(name), manifest)

    def forget(self, name: str) -> None:
        """Remove an artifact: its manifest last, so that half of it is known to be stale."""
        manifest = self._read(name) or {}
        own = self.graph[name].places if name in self.graph else ()
        self._remove((*own, *manifest.get("places", ())))
        self._path(name).unlink(missing_ok=True)

    def forget_stale(self) -> list[str]:
        """Remove every artifact that is not current, and what the run no longer has.

        Also what an interrupted run wrote without getting to a manifest.

        Returns:
            The names of those that had one.
        """
        current = [name for name in self.graph if self._current(name) is not None]
        kept = {place for name in current for place in self.graph[name].places}
        root = self.folder.root
        patterns = ("clusterings/*.npz", "page_images/*.npz", "figures/sweep-*.png", "assign/*")
        found = [path for pattern in patterns for path in root.glob(pattern)]
        of_layers = (path.relative_to(root).as_posix() for path in found)
        places = (*PLACES, *filter(OF_LAYERS.fullmatch, of_layers))
        self._remove(place for place in places if place not in kept)
        stale = [name for name in self._recorded() if name not in current]
        for name in stale:
            self.forget(name)
        old = legacy.stale(self.folder.manifests, self._old)
        for path in old:
            path.unlink()
        return stale + [path.stem for path in old]

    def costs(self) -> dict[str, dict[str, float]]:
        """Return seconds and peak memory of every stage, in the order they were first finished."""
        found: dict[str, dict[str, float]] = dict(legacy.costs(self.folder.manifests))
        manifests = filter(None, map(self._read, self._recorded()))
        for manifest in sorted(manifests, key=lambda m: float(m["finished"])):
            for stage, cost in manifest["costs"].items():
                known = found.setdefault(stage, {"seconds": 0.0, "peak_rss_mb": 0.0})
                known["seconds"] = round(known["seconds"] + cost.get("seconds", 0.0), 3)
                known["peak_rss_mb"] = max(known["peak_rss_mb"], cost.get("peak_rss_mb", 0.0))
        return found

    def _current(self, name: str) -> dict[str, Any] | None:
        artifact = self.graph.get(name)
        if artifact is None:
            return None
        manifest = self._read(name)
        if manifest is None:
            return legacy.manifest(self.folder.manifests, name, self._old)
        is_current = (
            manifest["key"] == artifact.key
            and self._hashes(artifact.places) == manifest["files"]
            # An input that is gone, or was made again otherwise, takes with it what was made of it.
            and all(self._path(i).is_file() or self._is_legacy(i) for i in artifact.inputs)
            and all(
                content in ("", self._content(i))
                for i, content in manifest.get("made_from", {}).items()
            )
        )
        return manifest if is_current else None

    def _content(self, name: str) -> str:
        """Return a hash of an artifact's files and of what it was made from.

        The key says with which settings it was made; on another machine, or with other versions of
        the libraries, the same settings may make something else. Empty where an earlier version
        made it.
        """
        manifest = self._read(name)
        if manifest is None or "made_from" not in manifest:
            return ""
        return digest([manifest["files"], manifest["made_from"]])

    def _is_legacy(self, name: str) -> bool:
        return legacy.manifest(self.folder.manifests, name, self._old) is not None

    def _path(self, name: str) -> Path:
        return self.folder.manifests / f"{name.replace(' ', '-')}.json"

    def _recorded(self) -> list[str]:
        """Return the names of the artifacts that have a manifest of this version."""
        manifests = (_load(path) for path in sorted(self.folder.manifests.glob("*.json")))
        return [str(manifest["name"]) for manifest in manifests if manifest]

    def _read(self, name: str) -> dict[str, Any] | None:
        return _load(self._path(name))

    def _hashes(self, places: Iterable[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for place in places:
            path = self.folder.root / place
            files = sorted(path.rglob("*")) if path.is_dir() else [path]
            names = {p.relative_to(self.folder.root).as_posix(): p for p in files if p.is_file()}
            found |= {name: sha256_of(p) for name, p in names.items() if is_written(name)}
        return found

    def _remove(self, places: Iterable[str]) -> None:
        """Remove what stages have written; what a person put beside it stays.

        Raises:
            OSError: what cannot be removed.
        """
        root = self.folder.root
        for place in places:
            if not is_place(place):
                continue  # an edited manifest may say anything
            path = root / place
            if not path.is_dir():
                path.unlink(missing_ok=True)
                continue
            inside = sorted(path.rglob("*"), reverse=True)  # folders after what is in them
            for one in inside:
                if not one.is_dir() and is_written(one.relative_to(root).as_posix()):
                    one.unlink()
            for folder in (*(one for one in inside if one.is_dir()), path):
                with contextlib.suppress(OSError):  # a link, or not empty: somebody's own
                    folder.rmdir()


# What a manifest holds. One of an earlier version (`legacy`) has no key.
_KINDS = {
    "name": str,
    "key": str,
    "reads": dict,
    "places": list,
    "files": dict,
    "costs": dict,
    "finished": float,
    "result": dict,
}


def _load(path: Path) -> dict[str, Any] | None:
    """Read a manifest; None if it is missing, damaged, or not one of this version."""
    manifest = read_sealed(path)
    if manifest is None:
        return None
    is_whole = all(isinstance(manifest.get(name), kind) for name, kind in _KINDS.items())
    is_ours = is_whole and all(
        isinstance(cost, dict) and all(isinstance(c, int | float) for c in cost.values())
        for cost in manifest["costs"].values()
    )
    return manifest if is_ours else None


def differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Describe the settings in which two artifacts of one name differ."""
    return [
        f"{name}: {old.get(name)} -> {new.get(name)}"
        for name in sorted(old.keys() | new.keys())
        # As JSON: a tuple comes back from a file as a list.
        if json.dumps(old.get(name)) != json.dumps(new.get(name))
    ]
