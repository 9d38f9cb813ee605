"""The methods, in one table by name; each is a small object."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from cgjax.endtoend.methods.base import Gan, Method
from cgjax.endtoend.methods.clustergan import ClusterGan
from cgjax.endtoend.methods.labelled import ClassConditional, FixedClusters, RandomLabels
from cgjax.endtoend.methods.mgan import Mgan
from cgjax.endtoend.methods.selfcond import Online, SelfConditioned
from cgjax.errors import UserError

Settings = Mapping[str, Any]


def _clustering(cls: Any, config: Settings, **others: Any) -> Method:
    """Build a method that clusters, with those settings of `labels` that it has fields for."""
    labels = config["labels"]
    fields = {field.name for field in dataclasses.fields(cls)}
    chosen = {name: value for name, value in labels.items() if name in fields}
    method: Method = cls(labels["num_clusters"], **chosen, **others)
    return method


METHODS: dict[str, Callable[[Settings, int], Method]] = {
    "gan": lambda config, classes: Gan(),
    "conditional": lambda config, classes: ClassConditional(classes),
    "random_labels": lambda config, classes: RandomLabels(config["labels"]["num_clusters"]),
    "pacgan2": lambda config, classes: Gan(pack=2),
    "pacgan3": lambda config, classes: Gan(pack=3),
    "pacgan4": lambda config, classes: Gan(pack=4),
    "mgan": lambda config, classes: Mgan(config["labels"]["num_clusters"], **config["mgan"]),
    "fixed_clusters": lambda config, classes: _clustering(
        FixedClusters, config, fixed_features=config["labels"]["features"]
    ),
    "scgan": lambda config, classes: _clustering(SelfConditioned, config),
    "clustergan": lambda config, classes: _clustering(ClusterGan, config, **config["clustergan"]),
    "scgan_online": lambda config, classes: _clustering(Online, config),
}
"""Methods by name; each entry takes the config and the number of true classes."""

__all__ = ["METHODS", "Gan", "Method", "make_method"]


def make_method(config: Settings, num_classes: int) -> Method:
    """Return the method that a config names.

    Raises:
        UserError: a name that is not in the table.
    """
    name = config["train"]["method"]
    if name not in METHODS:
        raise UserError(f"--config.train.method={name}: expected one of {', '.join(METHODS)}")
    return METHODS[name](config, num_classes)
