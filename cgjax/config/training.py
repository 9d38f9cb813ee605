"""The table of every leaf of a config that trains a generator (`kind = "training"`).

`configs/scgan_common.py` has the defaults and explains every leaf. The sections are named
differently from those of runs that cluster a generator, so that a dotted path has one meaning;
`assign` is the same in both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from cgjax.config.distance_features import (
    DIMS,
    OF_IMAGES,
    expected_feature,
    kind_of_feature,
    parse_feature,
)
from cgjax.config.leaves import ADDED as CLUSTER_ADDED
from cgjax.config.leaves import FLAG, NOT_NEGATIVE, SEED, SHARE, TEXT, Leaf, count
from cgjax.config.leaves import SECTIONS as CLUSTER_SECTIONS

NUM_CLASSES = {
    **{"ring": 8, "grid": 25, "grid100": 100},
    **{"digits8": 10, "stacked_digits": 1000, "cifar10": 10, "generated": 0, "folder": 1},
}
"""The number of true classes of each data set; 1 where none are known, 0 where the generator at
`data.path` says how many."""

POINTS, VECTORS, IMAGES = "points", "vectors", "images"
ROW_KINDS = dict.fromkeys(("ring", "grid", "grid100"), POINTS) | {"digits8": VECTORS}
"""The kind of rows in a data set; images by default."""

DATA_NAMES = tuple(NUM_CLASSES)

ENCODING_NETWORKS = {"encoding": (VECTORS, IMAGES), "encoding_dcgan": (IMAGES,)}
"""The networks of ClusterGAN, each with the kinds of rows it is for."""

CONVOLUTIONAL = ("dcgan", "dcgan_flat", "sngan", "residual")
PLANAR = ("planar", "planar_plain", "planar_modulated")
PLAIN_NETWORKS = dict.fromkeys(PLANAR, (POINTS,)) | dict.fromkeys(CONVOLUTIONAL, (IMAGES,))
"""The networks of all other methods, likewise."""

ARCHITECTURES = (*PLAIN_NETWORKS, *ENCODING_NETWORKS)
METHODS = (
    *("gan", "conditional", "random_labels", "pacgan2", "pacgan3", "pacgan4", "mgan"),
    *("fixed_clusters", "scgan", "scgan_online", "clustergan"),
)

FEWEST_SCORED = 6
"""The fewest images for which precision and recall are defined."""

FIXED_FEATURES = ("rows", "autoencoder")
"""The built-in features of the method fixed_clusters."""

SELF_CONDITIONED = ("scgan", "scgan_online")

MEASURED = ("generated", "folder", "cifar10")
"""The data sets whose generated images are scored by distances."""


class ReadWhen(NamedTuple):
    """When a leaf is read that not every training reads.

    Attributes:
        path: the leaf on which that depends.
        values: the values of that leaf for which this one is read.
        default: the value that this leaf must have where it is not read.
        is_shared: whether it may have any value there too, because one config serves several
            methods, networks and data sets. The log then names it as unread.
    """

    path: str
    values: tuple[str, ...]
    default: Any
    is_shared: bool = False


_CLUSTERING = ("scgan", "scgan_online", "fixed_clusters", "clustergan")
_LABELLED = ("conditional", "random_labels", "fixed_clusters", *SELF_CONDITIONED)
_NOT_CLUSTERGAN = tuple(name for name in METHODS if name != "clustergan")

READ_WHEN: dict[str, ReadWhen] = {
    "data.radius": ReadWhen("data.name", ("ring",), 1.0, is_shared=True),
    "data.path": ReadWhen("data.name", (*MEASURED, "stacked_digits"), ""),
    "data.size": ReadWhen("data.name", ("folder",), 64),
    "data.memory_mb": ReadWhen("data.name", ("folder",), 4096, is_shared=True),
    "data.flip": ReadWhen("data.name", MEASURED, False),
    "network.embedding_dim": ReadWhen("train.method", _LABELLED, 32, is_shared=True),
    "network.critic_width": ReadWhen("network.name", PLANAR, 200, is_shared=True),
    "network.modulation": ReadWhen("network.name", ("planar_modulated",), 0.1),
    "train.penalty": ReadWhen("train.method", _NOT_CLUSTERGAN, 0.0),
    "train.average": ReadWhen("train.method", _NOT_CLUSTERGAN, 0.0),
    "labels.num_clusters": ReadWhen(
        "train.method", ("random_labels", "mgan", *_CLUSTERING), 50, is_shared=True
    ),
    "labels.every": ReadWhen("train.method", ("scgan",), 10_000, is_shared=True),
    "labels.num": ReadWhen("train.method", _CLUSTERING, 10_000, is_shared=True),
    "labels.num_init": ReadWhen("train.method", _CLUSTERING, 10, is_shared=True),
    "labels.max_iter": ReadWhen("train.method", _CLUSTERING, 100, is_shared=True),
    "labels.initialise": ReadWhen("train.method", SELF_CONDITIONED, True),
    "labels.match": ReadWhen("train.method", SELF_CONDITIONED, True),
    "labels.supervised": ReadWhen("train.method", SELF_CONDITIONED, False),
    "labels.features": ReadWhen("train.method", ("fixed_clusters",), "rows"),
    "mgan.weight": ReadWhen("train.method", ("mgan",), 0.01),
    "mgan.per_generator": ReadWhen("train.method", ("mgan",), 12),
    "clustergan.sigma": ReadWhen("train.method", ("clustergan",), 0.1),
    "clustergan.noise_weight": ReadWhen("train.method", ("clustergan",), 10.0),
    "clustergan.label_weight": ReadWhen("train.method", ("clustergan",), 10.0),
    "clustergan.critic_steps": ReadWhen("train.method", ("clustergan",), 5),
    "clustergan.slope_weight": ReadWhen("train.method", ("clustergan",), 10.0),
    "score.features": ReadWhen("data.name", MEASURED, "pca_pixels"),
}
"""The leaves that not every training reads."""

_POSITIVE = Leaf(float, 1e-6)

SECTIONS: dict[str, dict[str, Leaf]] = {
    "data": {
        "name": Leaf(str, choices=DATA_NAMES),
        "num": count(2),
        "radius": _POSITIVE,
        "path": TEXT,
        "size": count(8),
        "memory_mb": count(0, is_resource=True),
        "flip": FLAG,
    },
    "network": {
        "name": Leaf(str, choices=ARCHITECTURES),
        "latent_dim": count(1),
        "embedding_dim": count(1),
        "width": count(1),
        "critic_width": count(1),
        "modulation": _POSITIVE,
    },
    "train": {
        "method": Leaf(str, choices=METHODS),
        "trials": count(1),
        "together": FLAG,
        "iterations": count(1),
        "batch": count(4),
        "learning_rate": NOT_NEGATIVE,
        "critic_factor": _POSITIVE,
        "cooldown": count(0),
        "beta1": SHARE,
        "beta2": SHARE,
        "penalty": NOT_NEGATIVE,
        "average": SHARE,
        "report_every": count(1, is_resource=True),
        "checkpoint_every": count(1, is_resource=True),
    },
    "labels": {
        "num_clusters": count(2),
        "every": count(1),
        "num": count(2),
        "num_init": count(1),
        "max_iter": count(1),
        "initialise": FLAG,
        "match": FLAG,
        "supervised": FLAG,
        "features": TEXT,
    },
    "mgan": {"weight": NOT_NEGATIVE, "per_generator": count(2)},
    "clustergan": {
        "sigma": _POSITIVE,
        "noise_weight": NOT_NEGATIVE,
        "label_weight": NOT_NEGATIVE,
        "critic_steps": count(1),
        "slope_weight": NOT_NEGATIVE,
    },
    "score": {"num": count(2), "every": count(1), "repeats": count(2), "features": TEXT},
    "assign": CLUSTER_SECTIONS["assign"],
}

LEAVES: dict[str, Leaf] = {
    "kind": Leaf(str, choices=("training",)),
    "seed": SEED,
    **{f"{s}.{name}": leaf for s, leaves in SECTIONS.items() for name, leaf in leaves.items()},
}
"""Every leaf by its dotted path."""


def is_of_assign(path: str) -> bool:
    """Whether a leaf says how images are assigned to a finished generator's labels."""
    return path.startswith("assign.")


def trained_leaves(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Return the leaves that change what is trained; those that only say how long are left out.

    So are resources, what is done with the generator (its scores included), leaves that this
    training does not read, and where its data lie: their identity says which data they are.

    Args:
        leaves: every leaf by its dotted path.

    Example:
        >>> from configs import scgan_ring
        >>> from cgjax.config.plain import flatten, to_plain
        >>> leaves = trained_leaves(flatten(to_plain(scgan_ring.get_config())))
        >>> "labels.every" in leaves, "score.num" in leaves, "mgan.weight" in leaves
        (True, False, False)
    """
    return {
        path: value
        for path, value in leaves.items()
        if not (path in LEAVES and LEAVES[path].is_resource)  # another version's may be unknown
        and not is_of_assign(path)
        and not path.startswith("score.")
        and path not in ("data.path", "train.iterations", "train.cooldown")
        and ((reader := READ_WHEN.get(path)) is None or leaves[reader.path] in reader.values)
    }


def fewest_scored(features: str) -> int:
    """Return the fewest images on either side of a distance in some features."""
    return DIMS.get(kind_of_feature(features), FEWEST_SCORED)


def _problems_of_networks(method: str, network: str, data: str) -> Iterator[str]:
    """Yield which networks fit a method and a data set, if the chosen one does not."""
    kind = ROW_KINDS.get(data, IMAGES)
    known = ENCODING_NETWORKS if method == "clustergan" else PLAIN_NETWORKS
    fitting = [name for name, kinds in known.items() if kind in kinds]
    if not fitting:
        kinds = " or ".join(sorted({kind for kinds in known.values() for kind in kinds}))
        yield (
            f"--config.train.method={method}: expected a data set of {kinds}; data.name={data} is "
            f"one of {kind}"
        )
    elif network not in fitting:
        yield (
            f"--config.network.name={network}: expected {' or '.join(fitting)} with "
            f"train.method={method} and data.name={data}"
        )


def _problems_of_features(features: Any, num: Any) -> Iterator[str]:
    if features is None:
        return
    feature = parse_feature(features, OF_IMAGES)
    if feature is None:
        yield f"--config.score.features={features}: expected {expected_feature(OF_IMAGES)}"
    elif num is not None and num < DIMS.get(feature.kind, 0):
        yield (
            f"--config.score.num={num}: expected at least {DIMS[feature.kind]}, the dimension of "
            f"score.features={feature.kind}"
        )


def _unread(leaves: Mapping[str, Any], *, is_shared: bool) -> Iterator[tuple[str, ReadWhen]]:
    """Yield the leaves that differ from their default and that nothing reads."""
    for path, reader in READ_WHEN.items():
        value = leaves.get(reader.path)
        is_read = value is None or value in reader.values
        is_set = leaves.get(path, reader.default) != reader.default
        if is_set and not is_read and reader.is_shared == is_shared:
            yield path, reader


def unread(leaves: Mapping[str, Any]) -> str:
    """Name the settings of a legal config that nothing reads; empty if there are none.

    Args:
        leaves: by dotted paths.

    Example:
        >>> unread({"train.method": "gan", "labels.every": 500, "labels.num": 10_000})
        'labels.every=500 (train.method=gan)'
    """
    return ", ".join(
        f"{path}={leaves[path]} ({reader.path}={leaves[reader.path]})"
        for path, reader in _unread(leaves, is_shared=True)
    )


def problems_between(leaves: Mapping[str, Any]) -> Iterator[str]:
    """Yield which values conflict; `leaves` holds those that are legal on their own."""
    yield from _problems_of_counts(leaves)
    method, network = leaves.get("train.method"), leaves.get("network.name")
    data = leaves.get("data.name")
    if None not in (method, network, data):
        yield from _problems_of_networks(str(method), str(network), str(data))
    if num_classes := NUM_CLASSES.get(str(leaves.get("data.name"))):
        yield from problems_of_classes(leaves, num_classes)
    yield from _problems_of_features(leaves.get("score.features"), leaves.get("score.num"))
    for path, reader in _unread(leaves, is_shared=False):
        where = f"{reader.path}={leaves[reader.path]}"
        yield f"--config.{path}={leaves[path]}: expected {reader.default} with {where}"
    fixed = leaves.get("labels.features")
    if fixed is not None and fixed not in FIXED_FEATURES and ":" not in fixed:
        yield (
            f"--config.labels.features={fixed}: expected {', '.join(FIXED_FEATURES)} or "
            "package.module:function"
        )


def _problems_of_counts(leaves: Mapping[str, Any]) -> Iterator[str]:
    """Yield the counts that exceed what they are taken from, and scores of too few images."""
    for path, bound in (
        ("train.batch", "data.num"),
        ("train.cooldown", "train.iterations"),
        ("labels.num_clusters", "data.num"),
        ("labels.num_clusters", "labels.num"),
    ):
        value, most = leaves.get(path), leaves.get(bound)
        if value is not None and most is not None and value > most:
            yield f"--config.{path}={value}: expected at most {bound}={most}"
    scored = leaves.get("score.num")
    if leaves.get("data.name") in MEASURED and scored is not None and scored < FEWEST_SCORED:
        yield f"--config.score.num={scored}: expected at least {FEWEST_SCORED} images"
    num, batch = leaves.get("data.num"), leaves.get("train.batch")
    steps = leaves.get("clustergan.critic_steps")
    is_clustergan = leaves.get("train.method") == "clustergan"
    if is_clustergan and num and batch and steps and batch * steps > num:
        yield (
            f"--config.train.batch={batch}: expected at most {num // steps}, which is data.num "
            "divided by clustergan.critic_steps"
        )


def problems_of_classes(leaves: Mapping[str, Any], num_classes: int) -> Iterator[str]:
    """Yield what asks for true classes where there are none, or for too few labels.

    Args:
        leaves: as in `problems_between`.
        num_classes: of the data; 1 if none are known.
    """
    method = leaves.get("train.method")
    is_supervised = leaves.get("labels.supervised") is True
    needs_classes = method == "conditional" or (is_supervised and method in SELF_CONDITIONED)
    if num_classes == 1 and needs_classes:
        yield (
            f"--config.data.name={leaves.get('data.name')}: its true classes are unknown, and this "
            "run needs them"
        )
    clusters = leaves.get("labels.num_clusters")
    if is_supervised and clusters is not None and clusters < num_classes:
        yield (
            f"--config.labels.num_clusters={clusters}: expected at least {num_classes}, one for "
            "each class, with labels.supervised=true"
        )


ADDED: dict[str, Any] = {
    "data.path": "",
    "data.size": 64,
    "data.memory_mb": 4096,
    "data.flip": False,
    "network.modulation": 0.1,
    "train.average": 0.0,
    "train.critic_factor": 1.0,
    "train.cooldown": 0,
    "score.features": "pca_pixels",
    "labels.features": "rows",
    **{path: value for path, value in CLUSTER_ADDED.items() if path.startswith("assign.")},
}
"""Leaves that a newer version added, and what older runs' configs mean by lacking them."""
