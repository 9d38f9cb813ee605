"""The manifests of artifacts: which artifacts are there, which are current, which have to go.

Each artifact has a manifest in `stages/`, written after its files: the key it was made with, the
hashes of its files, what its inputs held, how the user's own code acted that it was made with, and
what its stage said of it. An artifact is current if its manifest is whole and all of these still
hold. One that is stale, half-made or edited is never shown.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from cgjax.config.plain import differences, digest
from cgjax.errors import UserError
from cgjax.run import legacy
from cgjax.run.artifacts import Graph
from cgjax.run.folder import RunFolder
from cgjax.run.hashes import FileHashes
from cgjax.run.places import NAMED_PLACE, NAMED_PLACE_GLOBS, PLACES, is_place, is_written
from cgjax.run.traces import Trace, is_same
from cgjax.runtime.files import make_folder, read_sealed, write_sealed

LEGACY = "of an earlier version"
"""The version of every artifact without a manifest of this version."""


class Manifests:
    """The manifests in a run's folder, compared with what its config asks for."""

    def __init__(
        self,
        folder: RunFolder,
        graph: Graph,
        old: legacy.Fingerprints | None = None,
        trace: Callable[[str], Trace] = lambda traced: [],
    ):
        """Prepare; reads nothing yet.

        Args:
            folder: the run's.
            graph: the artifacts that the config asks for.
            old: what the manifests of an earlier version contain if they are of this config.
            trace: returns the trace of an item of `Artifact.traced`. Without it none are compared.
        """
        self.folder, self.graph, self._old = folder, graph, old
        self._trace, self._file_hashes = trace, FileHashes()

    def result(self, name: str) -> dict[str, Any] | None:
        """Return what an artifact's stage said of it; None if it is missing or not current."""
        manifest = self._current(name)
        return None if manifest is None else dict(manifest["result"])

    def last_result(self, name: str) -> dict[str, Any] | None:
        """Return what a stage said last, whether current or not; None if there is nothing."""
        manifest = self._read(name)
        return None if manifest is None else dict(manifest["result"])

    def made_from(self, name: str) -> list[str]:
        """Return what an artifact was made from, current or not; nothing if that is not known."""
        return list((self._read(name) or {}).get("made_from", {}))

    def require(self, name: str) -> dict[str, Any]:
        """Return what the stage said of an artifact that must be there and current.

        Raises:
            UserError: if it is missing, stale, or not as it was written; says which artifact it is
                and what to type.
        """
        manifest = self._current(name)
        if manifest is not None:
            return dict(manifest["result"])
        raise UserError(f"{self.folder.root}: {self.why_not(name)}; {self.folder.command} makes it")

    def version(self, name: str) -> str:
        """Return a text that changes when an artifact does, if it is there and current.

        Raises:
            UserError: as `require`.
        """
        self.require(name)
        return self._content(name) or LEGACY

    def why_not(self, name: str) -> str:
        """Return in words why an artifact is not current."""
        for part in self._upstream(name):
            manifest = self._read(part)
            if manifest is None:
                return f"{part!r} is not there yet"
            settings = differences(manifest["reads"], self.graph[part].reads)
            if settings:
                return f"{part!r} was made with another config ({'; '.join(settings)})"
            if traced := self._changed(part):
                kind, _, which = traced[0].partition(" ")
                return f"{part!r} was made when {kind} {which!r} returned something else"
        return f"{name!r} is stale, or its files are not those that were written"

    def edited(self) -> list[str]:
        """Return what of the user's own code acts otherwise than when an artifact was made."""
        declared = [name for name in self.recorded() if name in self.graph]
        return sorted({traced for name in declared for traced in self._changed(name)})

    def _upstream(self, name: str) -> list[str]:
        parts: list[str] = []
        for part in (*self.graph[name].inputs, name):
            above = [part] if part == name else self._upstream(part)
            parts += [p for p in above if p not in parts]
        return parts

    def record(self, name: str, result: dict[str, Any], costs: dict[str, Any]) -> None:
        """Write the manifest of an artifact, after all of its files.

        Args:
            name: of the artifact.
            result: JSON-able; `result` returns it.
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
            "traces": self.traces(name),
            "finished": time.time(),
            "costs": costs,
            "result": result,
        }
        make_folder(self.folder.manifests)
        write_sealed(self._path(name), manifest)

    def forget(self, name: str) -> None:
        """Remove an artifact: its manifest last, so that a half-removed one is still stale."""
        manifest = self._read(name) or {}
        own = self.graph[name].places if name in self.graph else ()
        self._remove((*own, *manifest.get("places", ())))
        self._path(name).unlink(missing_ok=True)

    def forget_stale(self) -> list[str]:
        """Remove every artifact that is not current or that the config no longer asks for.

        Files that an interrupted run wrote without reaching the manifest go too.

        Returns:
            The names of the removed artifacts that had a manifest.
        """
        current = [name for name in self.graph if self._current(name) is not None]
        kept = {place for name in current for place in self.graph[name].places}
        root = self.folder.root
        paths = [path for pattern in NAMED_PLACE_GLOBS for path in root.glob(pattern)]
        named = (path.relative_to(root).as_posix() for path in paths)
        places = (*PLACES, *filter(NAMED_PLACE.fullmatch, named))
        self._remove(place for place in places if place not in kept)
        stale = [name for name in self.recorded() if name not in current]
        for name in stale:
            self.forget(name)
        old = legacy.stale(self.folder.manifests, self._old)
        for path in old:
            path.unlink()
        return stale + [path.stem for path in old]

    def costs(self) -> dict[str, dict[str, float]]:
        """Return the seconds and peak memory of every stage, in order of first completion."""
        costs: dict[str, dict[str, float]] = dict(legacy.costs(self.folder.manifests))
        manifests = filter(None, map(self._read, self.recorded()))
        for manifest in sorted(manifests, key=lambda m: float(m["finished"])):
            for stage, cost in manifest["costs"].items():
                known = costs.setdefault(stage, {"seconds": 0.0, "peak_rss_mb": 0.0})
                known["seconds"] = round(known["seconds"] + cost.get("seconds", 0.0), 3)
                known["peak_rss_mb"] = max(known["peak_rss_mb"], cost.get("peak_rss_mb", 0.0))
        return costs

    def _current(self, name: str) -> dict[str, Any] | None:
        artifact = self.graph.get(name)
        if artifact is None:
            return None
        manifest = self._read(name)
        if manifest is None:
            are_there = all((self.folder.root / place).exists() for place in artifact.places)
            return legacy.manifest(self.folder.manifests, name, self._old) if are_there else None
        is_current = (
            manifest["key"] == artifact.key
            and self._hashes(artifact.places) == manifest["files"]
            and not any(map(self._changed, self._upstream(name)))
            # What was made from an input is stale once that input is gone or has other content.
            and all(self._path(i).is_file() or self._is_legacy(i) for i in artifact.inputs)
            and all(
                content in ("", self._content(i))
                for i, content in manifest.get("made_from", {}).items()
            )
        )
        return manifest if is_current else None

    def _content(self, name: str) -> str:
        """Return a hash of an artifact's files and of what it was made from.

        The key covers the settings only; on another machine, or with other versions of the
        libraries, the same settings may give other files. Empty for what an earlier version made.
        """
        manifest = self._read(name)
        if manifest is None or "made_from" not in manifest:
            return ""
        return digest([manifest["files"], manifest["made_from"]])

    def traces(self, name: str) -> dict[str, Trace]:
        """Return how what an artifact is made with acts now, beyond what its key says."""
        acts = {traced: self._trace(traced) for traced in self.graph[name].traced}
        return {traced: trace for traced, trace in acts.items() if trace}

    def changed_since(self, traces: Mapping[str, Trace]) -> list[str]:
        """Return what acts otherwise now than when `traces` returned this.

        What has no trace, then or now, is believed.
        """
        kept = {traced: trace for traced, trace in traces.items() if trace}
        now = {traced: self._trace(traced) for traced in kept}
        return [traced for traced in kept if now[traced] and not is_same(now[traced], kept[traced])]

    def _changed(self, name: str) -> list[str]:
        """Return what acts otherwise now than when an artifact was made.

        An earlier version kept no traces but those of layers.
        """
        artifact = self.graph[name]
        manifest = self._read(name) if artifact.traced else None
        if manifest is None:
            return []
        of_layer = dict.fromkeys(artifact.traced, manifest.get("layer_trace", []))
        return self.changed_since(manifest.get("traces", of_layer))

    def _is_legacy(self, name: str) -> bool:
        return legacy.manifest(self.folder.manifests, name, self._old) is not None

    def _path(self, name: str) -> Path:
        return self.folder.manifests / f"{name.replace(' ', '-')}.json"

    def recorded(self) -> list[str]:
        """Return the names of the artifacts that have a manifest of this version."""
        manifests = (_load(path) for path in sorted(self.folder.manifests.glob("*.json")))
        return [str(manifest["name"]) for manifest in manifests if manifest]

    def _read(self, name: str) -> dict[str, Any] | None:
        return _load(self._path(name))

    def _hashes(self, places: Iterable[str]) -> dict[str, str]:
        hashes: dict[str, str] = {}
        for place in places:
            path = self.folder.root / place
            files = sorted(path.rglob("*")) if path.is_dir() else [path]
            names = {p.relative_to(self.folder.root).as_posix(): p for p in files if p.is_file()}
            hashes |= {
                name: self._file_hashes.of(p) for name, p in names.items() if is_written(name)
            }
        return hashes

    def _remove(self, places: Iterable[str]) -> None:
        """Remove what stages have written; files that a user put beside it stay.

        Raises:
            OSError: for what cannot be removed.
        """
        root = self.folder.root
        for place in places:
            if not is_place(place):
                continue  # an edited manifest can name anything
            path = root / place
            if not path.is_dir():
                path.unlink(missing_ok=True)
                continue
            inside = sorted(path.rglob("*"), reverse=True)  # folders after what is in them
            for one in inside:
                if not one.is_dir() and is_written(one.relative_to(root).as_posix()):
                    one.unlink()
            for folder in (*(one for one in inside if one.is_dir()), path):
                with contextlib.suppress(OSError):  # a link or not empty: the user's
                    folder.rmdir()


# The fields of a manifest. One of an earlier version (`legacy`) has no key.
_FIELDS = {
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
    has_fields = all(isinstance(manifest.get(name), kind) for name, kind in _FIELDS.items())
    is_valid = (
        has_fields
        and all(isinstance(cost, dict) for cost in manifest["costs"].values())
        and all(_are_numbers(list(cost.values())) for cost in manifest["costs"].values())
        and _are_traces({"": manifest.get("layer_trace", [])})
        and _are_traces(manifest.get("traces", {}))
    )
    return manifest if is_valid else None


def _are_traces(traces: Any) -> bool:
    return isinstance(traces, dict) and all(
        isinstance(trace, list) and _are_numbers([x for x in trace if x is not None])  # was NaN
        for trace in traces.values()
    )


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, int | float) for value in values)
