"""The methods, in one table by name; each is a small object."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cgjax.endtoend.methods.base import Gan, Method
from cgjax.endtoend.methods.clustergan import ClusterGan
from cgjax.endtoend.methods.labelled import ClassConditional, FixedClusters, RandomLabels
from cgjax.endtoend.methods.mgan import Mgan
from cgjax.endtoend.methods.selfcond import Online, SelfConditioned
from cgjax.errors import UserError

Settings = Mapping[str, Any]


def _self_conditioned(config: Settings) -> dict[str, Any]:
    settings = dict(config["labels"])
    del settings["features"]
    return {"num_labels": settings.pop("num_clusters"), **settings}


METHODS: dict[str, Callable[[Settings, int], Method]] = {
    "gan": lambda config, classes: Gan(),
    "conditional": lambda config, classes: ClassConditional(classes),
    "random_labels": lambda config, classes: RandomLabels(config["labels"]["num_clusters"]),
    "pacgan2": lambda config, classes: Gan(pack=2),
    "pacgan3": lambda config, classes: Gan(pack=3),
    "pacgan4": lambda config, classes: Gan(pack=4),
    "mgan": lambda config, classes: Mgan(config["labels"]["num_clusters"], **config["mgan"]),
    "fixed_clusters": lambda config, classes: FixedClusters(
        config["labels"]["num_clusters"],
        **{name: config["labels"][name] for name in ("num", "num_init", "max_iter")},
        fixed_features=config["labels"]["features"],
    ),
    "scgan": lambda config, classes: SelfConditioned(**_self_conditioned(config)),
    "clustergan": lambda config, classes: ClusterGan(
        config["labels"]["num_clusters"],
        **{name: config["labels"][name] for name in ("num_init", "max_iter")},
        **config["clustergan"],
    ),
    "scgan_online": lambda config, classes: Online(**_self_conditioned(config)),
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
