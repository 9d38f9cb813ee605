"""What the stages of a run leave, what each of it depends on, and whether it is current.

An artifact reads some leaves of the config and has other artifacts as inputs. Its key hashes those
settings and its inputs' keys, so that the keys form a graph: change one leaf, and exactly what
depends on it has another key. Beside an artifact lies a manifest with the key and the hashes of the
files that it was made with. Loading compares both: what is stale, half-made or edited is never
shown. Leaves that are resources (memory, batch sizes) change no result and are read by nobody.
"""

from __future__ import annotations

import functools
import json
import re
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from cgjax.config.leaves import ADDED, AUTO, SILENT
from cgjax.config.plain import digest, flatten, split_texts
from cgjax.config.schema import is_resource
from cgjax.config.splits import Split, splits_of
from cgjax.errors import UserError
from cgjax.run import legacy
from cgjax.run.folder import RunFolder
from cgjax.runtime.files import make_folder, sha256_of, write_json
from cgjax.samplers.registry import SAMPLERS

REFERENCE = "rejection"
"""The exact sampler, which stands beside the chosen one in a transfer."""


class Artifact(NamedTuple):
    """One thing that a stage leaves.

    Attributes:
        name: as in "cluster" or "fit flow".
        stage: the stage that `summary.json` counts its seconds under.
        reads: the leaves it depends on, with their values.
        inputs: the artifacts it is made from.
        places: the files and folders that are its own, relative to the run's folder.
        key: a hash of `reads` and of the inputs' keys.
    """

    name: str
    stage: str
    reads: dict[str, Any]
    inputs: tuple[str, ...]
    places: tuple[str, ...]
    key: str


Graph = dict[str, Artifact]
"""Artifacts by name, each after its inputs."""


def declare(
    config: Mapping[str, Any],
    prior: str,
    identity: str,
    layers: Sequence[str] = (),
    judges: Sequence[str] = (),
) -> Graph:
    """Return the artifacts of a run.

    Args:
        config: nested plain dicts with every leaf.
        prior: the identity of the generator's prior, see `cgjax.run.identity`.
        identity: of the whole generator.
        layers: that a sweep clusters, by name.
        judges: that a sweep asks, by name.

    Returns:
        The graph.
    """
    graph: Graph = {}
    read = functools.partial(_read, config)

    def add(
        name: str, stage: str, reads: dict[str, Any], inputs: Iterable[str], *places: str
    ) -> None:
        inputs = tuple(inputs)
        key = digest([reads, {i: graph[i].key for i in inputs}])
        graph[name] = Artifact(name, stage, reads, inputs, places, key)

    generator = {p: v for p, v in read("generator").items() if p not in _NAMED}
    generator["generator"] = identity
    reads = read("seed", "latents", "generator.truncation") | {"prior": prior}
    add("latents", "encode", reads, (), "latents.npy")
    own = read("layer", "cluster")
    if own["cluster.num_clusters"] != AUTO:
        del own["cluster.max_clusters"]
    add("cluster", "cluster", generator | own, ["latents"], "clusters.npz")
    pictures = ("figures/pca.png", "figures/means.png")
    add("cluster figures", "cluster", {}, ["cluster"], *pictures)
    fitted = [name for name, settings in config["samplers"].items() if settings["fit"]]
    drawn: dict[str, dict[str, Any]] = {}
    for name in fitted:
        drawn[name] = drawing(config, name)
        learnt = {p: v for p, v in read(f"samplers.{name}").items() if p not in drawn[name]}
        learnt.pop(f"samplers.{name}.fit")
        add(fit(name), "fit", learnt, ["cluster"])
        reads = drawn[name] | read("sample.num")
        add(sample(name), "sample", reads, [fit(name)], f"samples/{name}")
        add(evaluate(name), "evaluate", drawn[name] | read("evaluate"), [fit(name)])
    default = config["sample"]["sampler"]
    add("sheet", "sample", {}, [sample(default)], "figures/clusters.png")
    tried = [name for name in dict.fromkeys((default, REFERENCE)) if name in fitted]
    how = {path: value for name in tried for path, value in drawn[name].items()}
    targets = target_classes(config)
    for i, target in enumerate(targets):
        reads = {"target": target, **how} | read("transfer.num")
        add(transfer(i), "transfer", reads, map(fit, tried))
    if targets:
        columns = min(config["transfer"]["columns"], config["transfer"]["num"])
        reads = {"targets": targets, "columns": columns, **how}
        add("transfer figure", "transfer", reads, map(fit, tried), "figures/transfer.png")
    how = {path: value for name in fitted for path, value in drawn[name].items()}
    reads = how | read("compare", *(f"evaluate.{name}" for name in FEATURE))
    table = ("compare.csv", "compare.txt", "figures/compare.png")
    add("compare", "compare", reads, map(fit, fitted), *table)
    shown = [name for name in graph if name != "compare"]
    numbers = sweep_numbers(config)
    unread = ("cluster.num_clusters", "cluster.max_clusters")
    search = {path: value for path, value in read("cluster").items() if path not in unread}
    for layer in layers:
        reads = generator | search | {"layer": layer, "numbers": numbers}
        places = [clustering_place(layer, number) for number in numbers]
        add(swept(layer), "sweep", reads, ["latents"], *places)
    for split in splits_of(config):
        above = split_name(split.path[:-1]) if len(split.path) > 1 else "cluster"
        reads = generator | search | read("hierarchy.num", "hierarchy.space")
        reads |= {"split": str(split)}
        add(split_name(split.path), "split", reads, [above], split_place(split))
    reads = generator | read("sweep.judged") | {"judges": list(judges)}
    add("attributes", "sweep", reads, ["latents"], "attributes.npz")
    left = [*SWEEP_TABLES, *map(sweep_figure, layers)]
    add("sweep", "sweep", read("sweep.columns"), ["attributes", *map(swept, layers)], *left)
    add("report", "report", {}, shown, "report")
    return graph


def _read(config: Mapping[str, Any], *prefixes: str) -> dict[str, Any]:
    """Return the leaves at or below these paths that change a result."""
    return {
        path: value
        for path, value in flatten(config).items()
        if not is_resource(path)
        and any(path == p or path.startswith(f"{p}.") for p in prefixes)
        and not (path in SILENT and value == ADDED[path])
    }


def drawing(config: Mapping[str, Any], sampler: str) -> dict[str, Any]:
    """Return the leaves of a sampler that only drawing from it reads, not training."""
    names = ("output", *SAMPLERS[sampler].sampling_leaves)
    return _read(config, *(f"samplers.{sampler}.{name}" for name in names))


FEATURE = ("features", "components", "prior_images")
"""The leaves of `config.evaluate` that say in which feature distances are measured."""

SWEEP_TABLES = ("sweep.csv", "sweep_clusters.csv", "sweep_pairs.csv", "sweep.txt")
"""The tables of a sweep: its clusterings, their clusters, pairs of them, and all of it in words."""

PLACES = (
    *("latents.npy", "clusters.npz", "compare.csv", "compare.txt", "report"),
    *(f"figures/{name}.png" for name in ("pca", "means", "clusters", "transfer", "compare")),
    *(f"samples/{name}" for name in SAMPLERS),
    *("attributes.npz", *SWEEP_TABLES),
    "figures/samples.png",
)
"""Where in a folder artifacts lie, those of every config; and what `_OF_LAYERS` matches."""

# A sweep's, one a layer: no separator and no path upward can stand in a quoted name.
_OF_LAYERS = re.compile(r"clusterings/[^/\\]+\.npz|figures/sweep-[^/\\]+\.png")

# What says which generator it is, in words; its identity says it better.
_NAMED = ("generator.name", "generator.weights")


def fit(sampler: str) -> str:
    """Return the name of what a sampler has learnt, whose files are its checkpoints."""
    return f"fit {sampler}"


def sample(sampler: str) -> str:
    """Return the name of a sampler's saved samples."""
    return f"sample {sampler}"


def evaluate(sampler: str) -> str:
    """Return the name of a sampler's measurements."""
    return f"evaluate {sampler}"


def transfer(index: int) -> str:
    """Return the name of the score of one of the classes transferred to."""
    return f"transfer {index}"


def sweep_numbers(config: Mapping[str, Any]) -> list[int]:
    """Return the numbers of clusters of a sweep, each once, ascending."""
    return sorted(set(config["sweep"]["numbers"]))


def split_name(path: tuple[int, ...]) -> str:
    """Return the name of the clustering inside a cluster."""
    return f"split {'.'.join(map(str, path))}"


def split_place(split: Split) -> str:
    """Return where the clustering inside a cluster lies."""
    return f"clusterings/{quote(str(split), safe='')}.npz"


def swept(layer: str) -> str:
    """Return the name of a sweep's clusterings of one layer."""
    return f"sweep {quote(layer, safe='')}"


def clustering_place(layer: str, num_clusters: int) -> str:
    """Return where one of a sweep's clusterings lies.

    >>> clustering_place("synthesis/b16", 4)
    'clusterings/synthesis%2Fb16-k4.npz'
    """
    return f"clusterings/{quote(layer, safe='')}-k{num_clusters}.npz"


def sweep_figure(layer: str) -> str:
    """Return where a layer's figure of a sweep lies."""
    return f"figures/sweep-{quote(layer, safe='')}.png"


def target_classes(config: Mapping[str, Any]) -> list[str]:
    """Return the classes that a config transfers to."""
    return split_texts(config["transfer"]["conditions"])


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
            "finished": time.time(),
            "costs": costs,
            "result": result,
        }
        make_folder(self.folder.manifests)
        write_json(self._path(name), manifest)

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
        found = (*root.glob("clusterings/*.npz"), *root.glob("figures/sweep-*.png"))
        of_layers = (path.relative_to(root).as_posix() for path in found)
        places = (*PLACES, *filter(_OF_LAYERS.fullmatch, of_layers))
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
            # An input that is gone takes with it what was made from it.
            and all(self._path(i).is_file() or self._is_legacy(i) for i in artifact.inputs)
        )
        return manifest if is_current else None

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
            found |= {
                str(p.relative_to(self.folder.root)): sha256_of(p) for p in files if p.is_file()
            }
        return found

    def _remove(self, places: Iterable[str]) -> None:
        for place in places:
            if place not in PLACES and not _OF_LAYERS.fullmatch(place):
                continue  # an edited manifest may say anything
            path = self.folder.root / place
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


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
    try:
        manifest = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(manifest, dict):
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
