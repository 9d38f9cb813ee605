"""What the stages of a run leave, and what each of it depends on.

An artifact reads some leaves of the config and has other artifacts as inputs. Its key hashes those
settings and its inputs' keys, so the keys form a graph: when a leaf changes, exactly the artifacts
that depend on it get another key. Leaves that are resources (memory, batch sizes) change no result,
so no artifact reads them. `cgjax.run.manifests` compares keys and files with what is in the folder.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from cgjax.config.leaves import ADDED, AUTO, SILENT
from cgjax.config.plain import digest, flatten, split_texts
from cgjax.config.schema import is_resource
from cgjax.config.splits import splits_of
from cgjax.run.places import (
    ENCODER,
    HELD_OUT,
    HELD_OUT_PLACE,
    RESULT_PLACES,
    RESULTS,
    SWEEP_TABLES,
    assigned_name,
    assigned_place,
    clustering_place,
    evaluation_name,
    fit_name,
    leaf_fit_name,
    page_images_name,
    page_images_place,
    samples_name,
    split_name,
    split_place,
    sweep_figure_place,
    sweep_name,
    transfer_name,
)
from cgjax.run.traces import traced_features, traced_judges, traced_layer
from cgjax.runtime.files import sha256_of, user_path
from cgjax.samplers.registry import SAMPLERS

REFERENCE = "rejection"
"""The exact sampler, which a transfer tries beside the chosen one."""

FEATURE = ("features", "components", "prior_images")
"""The leaves of `config.evaluate` that say in which feature distances are measured."""

# Leaves that say in words which generator it is; its identity is the exact statement.
_GENERATOR_NAMES = ("generator.name", "generator.weights")

# Leaves of `config.assign` that say how latents are optimised, and for how many held-out images.
_SEARCH_LEAVES = ("steps", "step_size", "feature_weight", "held_out")


class Artifact(NamedTuple):
    """One thing that a stage leaves.

    Attributes:
        name: such as "cluster" or "fit flow".
        stage: the stage that `summary.json` counts its seconds under.
        reads: the leaves it depends on, with their values.
        inputs: the artifacts it is made from.
        places: its files and folders, relative to the run's folder.
        key: a hash of `reads` and of the inputs' keys.
        traced: what it was made with that acts in a way which no key tells: layers whose features
            a sweep, a split or a distance uses, and the user's own judges and features; see
            `cgjax.run.traces`.
    """

    name: str
    stage: str
    reads: dict[str, Any]
    inputs: tuple[str, ...]
    places: tuple[str, ...]
    key: str
    traced: tuple[str, ...] = ()


Graph = dict[str, Artifact]
"""Artifacts by name, each after its inputs."""


def declare(
    config: Mapping[str, Any],
    prior: str,
    identity: str,
    layers: Sequence[str] = (),
    judges: Sequence[str] = (),
    conditional: Mapping[str, str] | None = None,
    assigned: Sequence[str] = (),
) -> Graph:
    """Return the artifacts of a run.

    Args:
        config: nested plain dicts with every leaf.
        prior: the identity of the generator's prior, see `cgjax.run.identity`.
        identity: the identity of the whole generator.
        layers: names of the layers that a sweep clusters.
        judges: names of the judges that a sweep asks.
        conditional: the generators with classes in the comparison, name to identity.
        assigned: names of the sets of images that were assigned to the clusters.

    Returns:
        The graph.
    """
    declaration = _Declaration(config, prior, identity, layers, judges)
    declaration.add_clusters()
    declaration.add_samplers()
    declaration.add_transfer()
    shown = list(declaration.graph)
    declaration.add_comparison(conditional or {})
    declaration.add_sweep_clusterings()
    declaration.add_splits()
    declaration.add_sweep_tables()
    declaration.add_page(shown)
    graph = declaration.graph | declare_inverter(config, declaration.generator)
    for name in assigned:
        declare_assigned(graph, config, name)
    return graph


class _Declaration:
    """The artifacts of one run, added part by part.

    Attributes:
        graph: what was added so far.
        generator: the reads of everything that runs the generator.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        prior: str,
        identity: str,
        layers: Sequence[str],
        judges: Sequence[str],
    ):
        self.graph: Graph = {}
        self._add = functools.partial(_add, self.graph)
        self._config, self._prior = config, prior
        self._layers, self._judges = layers, list(judges)
        self._splits = splits_of(config)
        settings = _read(config, "generator").items()
        self.generator = {p: v for p, v in settings if p not in _GENERATOR_NAMES}
        self.generator["generator"] = identity
        self._fitted = [name for name, s in config["samplers"].items() if s["fit"]]
        self._measuring = traced_features(config["evaluate"]["features"])
        self._drawing = {name: drawing_leaves(config, name) for name in self._fitted}
        unread = ("cluster.num_clusters", "cluster.max_clusters")
        self._search = {p: v for p, v in _read(config, "cluster").items() if p not in unread}

    def _drawing_of(self, samplers: Iterable[str]) -> dict[str, Any]:
        return {path: value for name in samplers for path, value in self._drawing[name].items()}

    def add_clusters(self) -> None:
        reads = _read(self._config, "seed", "latents", "generator.truncation")
        self._add("latents", "encode", reads | {"prior": self._prior}, (), "latents.npy")
        own = _read(self._config, "layer", "cluster")
        if own["cluster.num_clusters"] != AUTO:
            del own["cluster.max_clusters"]
        self._add("cluster", "cluster", self.generator | own, ["latents"], "clusters.npz")
        pictures = [f"figures/{name}" for name in ("pca.png", "pca.pdf", "means.png")]
        self._add("cluster figures", "cluster", {}, ["cluster"], *pictures)

    def add_samplers(self) -> None:
        config = self._config
        for name, drawing in self._drawing.items():
            leaves = _read(config, f"samplers.{name}").items()
            learnt = {p: v for p, v in leaves if p not in drawing and p != f"samplers.{name}.fit"}
            fitted = fit_name(name)
            self._add(fitted, "fit", learnt, ["cluster"])
            reads = drawing | _read(config, "sample.num")
            self._add(samples_name(name), "sample", reads, [fitted], f"samples/{name}")
            reads = drawing | _read(config, "evaluate")
            self._add(evaluation_name(name), "evaluate", reads, [fitted], traced=self._measuring)
        default = samples_name(config["sample"]["sampler"])
        self._add("sheet", "sample", {}, [default], "figures/clusters.png")

    def add_transfer(self) -> None:
        config, targets = self._config, target_classes(self._config)
        tried = transfer_samplers(config, self._fitted)
        drawing, fits = self._drawing_of(tried), [fit_name(name) for name in tried]
        for i, target in enumerate(targets):
            reads = {"target": target, **drawing} | _read(config, "transfer.num")
            self._add(transfer_name(i), "transfer", reads, fits)
        if targets:
            columns = min(config["transfer"]["columns"], config["transfer"]["num"])
            reads = {"targets": targets, "columns": columns, **drawing}
            self._add("transfer figure", "transfer", reads, fits, "figures/transfer.png")

    def add_comparison(self, conditional: Mapping[str, str]) -> None:
        leaves = _read(self._config, "compare", *(f"evaluate.{name}" for name in FEATURE))
        reads = self._drawing_of(self._fitted) | leaves
        places = ["compare.csv", "compare.txt", "figures/compare.png", "figures/compare.pdf"]
        if conditional:
            reads |= {"compare.conditional": dict(conditional)}
            places.append("compare_labels.csv")
        traced = (*self._measuring, *traced_judges([self._config["compare"]["judge"]]))
        fits = map(fit_name, self._fitted)
        self._add("compare", "compare", reads, fits, *places, traced=traced)

    def add_sweep_clusterings(self) -> None:
        numbers = sweep_numbers(self._config)
        for layer in self._layers:
            reads = self.generator | self._search | {"layer": layer, "numbers": numbers}
            places = [clustering_place(layer, number) for number in numbers]
            traced = traced_layer(layer)
            self._add(sweep_name(layer), "sweep", reads, ["latents"], *places, traced=traced)

    def add_splits(self) -> None:
        samplers = split_texts(self._config["hierarchy"]["samplers"])
        leaves = _read(self._config, "hierarchy.num", "hierarchy.space")
        for split in self._splits:
            name = split_name(split.path)
            above = split_name(split.path[:-1]) if len(split.path) > 1 else "cluster"
            reads = self.generator | self._search | leaves | {"split": str(split)}
            traced = traced_layer(split.layer)
            self._add(name, "split", reads, [above], split_place(split), traced=traced)
            for c in range(split.num_clusters):
                for sampler in samplers:
                    learnt = self.graph[fit_name(sampler)].reads
                    self._add(leaf_fit_name(sampler, (*split.path, c)), "fit", learnt, [name])

    def add_sweep_tables(self) -> None:
        reads = self.generator | _read(self._config, "sweep.judged") | {"judges": self._judges}
        traced = traced_judges(self._judges)
        self._add("attributes", "sweep", reads, ["latents"], "attributes.npz", traced=traced)
        inputs = ["attributes", *map(sweep_name, self._layers)]
        places = [*SWEEP_TABLES, *map(sweep_figure_place, self._layers)]
        self._add("sweep", "sweep", _read(self._config, "sweep.columns"), inputs, *places)

    def add_page(self, shown: Sequence[str]) -> None:
        parts = {"own": ["cluster"], "sweep": [sweep_name(layer) for layer in self._layers]}
        parts |= {name: [name] for name in (split_name(s.path) for s in self._splits)}
        for part, inputs in parts.items():
            reads, place = {"judges": self._judges}, page_images_place(part)
            traced = traced_judges(self._judges)
            self._add(page_images_name(part), "report", reads, inputs, place, traced=traced)
        declare_page(self.graph, shown)


def _add(
    graph: Graph,
    name: str,
    stage: str,
    reads: dict[str, Any],
    inputs: Iterable[str],
    *places: str,
    traced: tuple[str, ...] = (),
) -> None:
    """Add an artifact to a graph that has its inputs; its key covers theirs."""
    inputs = tuple(inputs)
    key = digest([reads, {i: graph[i].key for i in inputs}])
    graph[name] = Artifact(name, stage, reads, inputs, places, key, traced)


def declare_page(graph: Graph, shown: Iterable[str]) -> None:
    """Declare the page as made from what it shows: it is current while all of that is.

    Args:
        graph: from `declare`, where the page shows what a finished run has.
        shown: names of artifacts; the page is stale if the config does not ask for one of them.
    """
    keys = {name: graph[name].key if name in graph else "" for name in shown}
    graph["report"] = Artifact("report", "report", {}, tuple(keys), ("report",), digest([{}, keys]))


def declare_results(training: str, iterations: int, features: str) -> Graph:
    """Return what the end of a training leaves: the results, and the page that shows them.

    Args:
        training: the key of the training at its last iteration.
        iterations: how many iterations it has.
        features: those that distances are measured in.
    """
    graph: Graph = {}
    reads = {"training": training, "iterations": iterations}
    _add(graph, RESULTS, RESULTS, reads, (), *RESULT_PLACES, traced=traced_features(features))
    declare_page(graph, [RESULTS])
    return graph


def declare_inverter(config: Mapping[str, Any], generator: Mapping[str, Any]) -> Graph:
    """Return what inverting images needs.

    Args:
        config: nested plain dicts, of which `seed` and `assign` are read.
        generator: the reads that say which generator it is.
    """
    names = ("samples", "batch", "width", "learning_rate")
    learnt = _read(config, "seed", *(f"assign.{name}" for name in names))
    search = _read(config, *(f"assign.{name}" for name in _SEARCH_LEAVES))
    graph: Graph = {}
    _add(graph, ENCODER, "assign", {**generator, **learnt}, ())
    _add(graph, HELD_OUT, "assign", search, (ENCODER,), HELD_OUT_PLACE)
    return graph


def declare_assigned(graph: Graph, config: Mapping[str, Any], images: str) -> None:
    """Add the table of a set of images that is assigned to the clusters, or to the labels.

    Args:
        graph: from `declare`; or from `declare_inverter`, for a generator with labels.
        config: nested plain dicts with every leaf.
        images: the name of the set.
    """
    reads = _read(config, "assign.quantile", "assign.restarts")
    if weights := config["assign"]["lpips"]:
        # By content; opening the folder for writing refuses a file that is not there.
        path = user_path(weights)
        reads["assign.lpips"] = sha256_of(path) if path.is_file() else ""
    inputs = [name for name in ("cluster", HELD_OUT) if name in graph]
    _add(graph, assigned_name(images), "assign", reads, inputs, assigned_place(images))


def _read(config: Mapping[str, Any], *prefixes: str) -> dict[str, Any]:
    """Return the leaves at or below these paths that change a result."""
    return {
        path: value
        for path, value in flatten(config).items()
        if any(path == p or path.startswith(f"{p}.") for p in prefixes)
        and not is_resource(path)
        and not (path in SILENT and value == ADDED[path])
    }


def drawing_leaves(config: Mapping[str, Any], sampler: str) -> dict[str, Any]:
    """Return the leaves of a sampler that only drawing from it reads, not training it."""
    names = ("output", *SAMPLERS[sampler].sampling_leaves)
    return _read(config, *(f"samplers.{sampler}.{name}" for name in names))


def sweep_numbers(config: Mapping[str, Any]) -> list[int]:
    """Return the numbers of clusters of a sweep, each once, ascending."""
    return sorted(set(config["sweep"]["numbers"]))


def target_classes(config: Mapping[str, Any]) -> list[str]:
    """Return the classes that a config transfers to."""
    return split_texts(config["transfer"]["conditions"])


def transfer_samplers(config: Mapping[str, Any], fitted: Sequence[str]) -> list[str]:
    """Return which of the fitted samplers a transfer tries: the default, and the exact one."""
    tried = dict.fromkeys((config["sample"]["sampler"], REFERENCE))
    return [name for name in tried if name in fitted]
