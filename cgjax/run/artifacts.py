"""What the stages of a run leave, what each of it depends on, and whether it is current.

An artifact reads some leaves of the config and has other artifacts as inputs. Its key hashes those
settings and its inputs' keys, so that the keys form a graph: change one leaf, and exactly what
depends on it has another key. Beside an artifact lies a manifest with the key and the hashes of the
files that it was made with. Loading compares both: what is stale, half-made or edited is never
shown. Leaves that are resources (memory, batch sizes) change no result and are read by nobody.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from cgjax.config.leaves import ADDED, AUTO, SILENT
from cgjax.config.plain import digest, flatten, split_texts
from cgjax.config.schema import is_resource
from cgjax.config.splits import Split, splits_of
from cgjax.run.page_images import image_place, page_images
from cgjax.samplers.registry import SAMPLERS

ENCODER, HELD_OUT = "encoder", "held-out"
"""What inverting images takes: an encoder, and how it does on images of the generator's own."""

RESULTS = "results"
"""What a training of a generator leaves at its end."""

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
    conditional: Mapping[str, str] | None = None,
    assigned: Sequence[str] = (),
) -> Graph:
    """Return the artifacts of a run.

    Args:
        config: nested plain dicts with every leaf.
        prior: the identity of the generator's prior, see `cgjax.run.identity`.
        identity: of the whole generator.
        layers: that a sweep clusters, by name.
        judges: that a sweep asks, by name.
        conditional: the generators with classes that a comparison holds, name to identity.
        assigned: what sets of images are called that were assigned to the clusters.

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
    pictures = [f"figures/{name}" for name in ("pca.png", "pca.pdf", "means.png")]
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
    table = ["compare.csv", "compare.txt", "figures/compare.png", "figures/compare.pdf"]
    if conditional:
        reads |= {"compare.conditional": dict(conditional)}
        table.append("compare_labels.csv")
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
        for c in range(split.num_clusters):
            for name in split_texts(config["hierarchy"]["samplers"]):
                learnt = graph[fit(name)].reads
                path = (*split.path, c)
                add(fit_leaf(name, path), "fit", learnt, [split_name(split.path)])
    reads = generator | read("sweep.judged") | {"judges": list(judges)}
    add("attributes", "sweep", reads, ["latents"], "attributes.npz")
    left = [*SWEEP_TABLES, *map(sweep_figure, layers)]
    add("sweep", "sweep", read("sweep.columns"), ["attributes", *map(swept, layers)], *left)
    images = {"own": ["cluster"], "sweep": [swept(layer) for layer in layers]}
    images |= {name: [name] for name in (split_name(s.path) for s in splits_of(config))}
    for part, made_from in images.items():
        add(page_images(part), "report", {"judges": list(judges)}, made_from, image_place(part))
    add("report", "report", {}, shown, "report")
    graph |= declare_inverter(config, generator)
    for name in assigned:
        declare_assigned(graph, config, name)
    return graph


def declare_results(training: str, iterations: int) -> Graph:
    """Return what the end of a training leaves.

    Args:
        training: what says which training it is, that of its last iteration.
        iterations: how many it has.
    """
    reads = {"training": training, "iterations": iterations}
    return {RESULTS: Artifact(RESULTS, RESULTS, reads, (), RESULT_PLACES, digest([reads, {}]))}


def declare_inverter(config: Mapping[str, Any], generator: Mapping[str, Any]) -> Graph:
    """Return what inverting images takes.

    Args:
        config: nested plain dicts, of which `seed` and `assign` are read.
        generator: what says which generator it is.
    """
    names = ("samples", "batch", "width", "learning_rate")
    learnt = _read(config, "seed", *(f"assign.{name}" for name in names))
    reads = {**generator, **learnt}
    encoder = Artifact(ENCODER, "assign", reads, (), (), digest([reads, {}]))
    found = _read(config, *(f"assign.{name}" for name in _SEARCHED))
    key = digest([found, {ENCODER: encoder.key}])
    held_out = Artifact(HELD_OUT, "assign", found, (ENCODER,), (HELD_OUT_PLACE,), key)
    return {ENCODER: encoder, HELD_OUT: held_out}


def declare_assigned(graph: Graph, config: Mapping[str, Any], images: str) -> None:
    """Add to a run's artifacts the table of a set of images that is assigned to the clusters.

    Args:
        graph: as `declare` or `declare_inverter` returns it; without clusters, to labels.
        config: nested plain dicts with every leaf.
        images: what the set is called.
    """
    reads = _read(config, "assign.quantile", "assign.restarts")
    inputs = tuple(name for name in ("cluster", HELD_OUT) if name in graph)
    key = digest([reads, {i: graph[i].key for i in inputs}])
    name, place = assigned_name(images), assigned_place(images)
    graph[name] = Artifact(name, "assign", reads, inputs, (place,), key)


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


_SEARCHED = ("steps", "step_size", "feature_weight", "held_out")
"""The leaves of `config.assign` that say how latents are optimised, and of how many images."""

FEATURE = ("features", "components", "prior_images")
"""The leaves of `config.evaluate` that say in which feature distances are measured."""

SWEEP_TABLES = ("sweep.csv", "sweep_clusters.csv", "sweep_pairs.csv", "sweep.txt")
"""The tables of a sweep: its clusterings, their clusters, pairs of them, and all of it in words."""

HELD_OUT_PLACE = "checkpoints/encoder/held_out.npz"
"""Where it lies how images of the generator's own are inverted."""

PLACES = (
    *("latents.npy", "clusters.npz", "report"),
    *("compare.csv", "compare.txt", "compare_labels.csv"),
    *(f"figures/{name}.png" for name in ("pca", "means", "clusters", "transfer", "compare")),
    *("figures/pca.pdf", "figures/compare.pdf"),
    *(f"samples/{name}" for name in SAMPLERS),
    *("attributes.npz", *SWEEP_TABLES, HELD_OUT_PLACE),
)
"""Where in a folder artifacts lie, those of every config; and what `OF_LAYERS` matches."""

RESULT_PLACES = (
    *("samples.npz", "figures/samples.png", "citations.bib", "summary.json"),
    *("generator/weights.safetensors", "generator/generator.json"),
)
"""Where the results of a training lie."""

# A sweep's, one a layer, and one for each set of images that was assigned: no separator and no path
# upward can stand in a quoted name.
OF_LAYERS = re.compile(
    r"(clusterings|page_images)/[^/\\]+\.npz|figures/sweep-[^/\\]+\.png|assign/[\w-]+"
)

# What stages write into the folders among these. What else lies there is somebody's own.
_WRITTEN = re.compile(
    r"report/index\.html|samples/\w+/\d+/(\d{5,}\.png|latents\.npy)"
    r"|assign/[\w-]+/(assign\.csv|latents\.npy|errors\.(png|pdf)|(cluster-\d+|foreign)\.png)"
)


def is_written(path: str) -> bool:
    """Whether a stage writes a file of this name, relative to the run's folder.

    >>> is_written("samples/flow/0/00012.png"), is_written("assign/photos/me.png")
    (True, False)
    """
    return is_place(path) or bool(_WRITTEN.fullmatch(path))


def is_place(path: str) -> bool:
    """Whether an artifact of some config lies there, relative to the folder of a run."""
    return path in PLACES or path in RESULT_PLACES or bool(OF_LAYERS.fullmatch(path))


# What says which generator it is, in words; its identity says it better.
_NAMED = ("generator.name", "generator.weights")


def fit(sampler: str) -> str:
    """Return the name of what a sampler has learnt, whose files are its checkpoints."""
    return f"fit {sampler}"


def fit_leaf(sampler: str, path: tuple[int, ...]) -> str:
    """Return the name of what a sampler has learnt from one cluster inside a cluster."""
    return f"{fit(sampler)} in {'.'.join(map(str, path))}"


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


def assigned_name(images: str) -> str:
    """Return the name of the table of a set of images that was assigned to the clusters."""
    return f"assign {images}"


def assigned_place(images: str) -> str:
    """Return where that table lies."""
    return f"assign/{images}"


def target_classes(config: Mapping[str, Any]) -> list[str]:
    """Return the classes that a config transfers to."""
    return split_texts(config["transfer"]["conditions"])
