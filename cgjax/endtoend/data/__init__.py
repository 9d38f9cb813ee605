"""The data sets of end-to-end training, in one table by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cgjax.config.distance_features import INCEPTION, parse_feature
from cgjax.endtoend.data.base import DataSet, Points
from cgjax.endtoend.data.cifar10 import Cifar10
from cgjax.endtoend.data.digits import Digits8
from cgjax.endtoend.data.folder import FolderImages
from cgjax.endtoend.data.generated import GeneratedImages
from cgjax.endtoend.data.mixtures import Mixture, grid, ring
from cgjax.endtoend.data.stacked import StackedDigits
from cgjax.errors import UserError
from cgjax.evaluation.inception import check_file

DATA: dict[str, Callable[[Mapping[str, Any]], DataSet]] = {
    "ring": lambda settings: ring(settings["radius"]),
    "grid": lambda settings: grid(5),
    "grid100": lambda settings: grid(10),
    "digits8": lambda settings: Digits8(),
    "generated": lambda settings: GeneratedImages(
        settings["path"], settings["flip"], settings["features"]
    ),
    "folder": lambda settings: FolderImages(
        *(settings[name] for name in ("path", "size", "flip", "features", "memory_mb"))
    ),
    "stacked_digits": lambda settings: StackedDigits(settings["path"]),
    "cifar10": lambda settings: Cifar10(settings["path"], settings["flip"], settings["features"]),
}
"""Data sets by name; each entry takes `config.data` plus `features` from `config.score`."""

__all__ = ["DATA", "DataSet", "Mixture", "Points", "data_of", "grid", "make_data", "ring"]


def data_of(config: Mapping[str, Any]) -> DataSet:
    """Return the data set of a config.

    Raises:
        UserError: a name that is not in the table, a file without Inception's weights.
    """
    feature = parse_feature(config["score"]["features"])
    if feature is not None and feature.kind == INCEPTION:
        check_file(feature.argument, "--config.score.features")
    return make_data({**config["data"], "features": config["score"]["features"]})


def make_data(settings: Mapping[str, Any]) -> DataSet:
    """Return the data set of a config's section `data`; for images with `features` added.

    Raises:
        UserError: a name that is not in the table.

    Example:
        >>> make_data({"name": "grid"}).num_classes
        25
    """
    if settings["name"] not in DATA:
        raise UserError(f"--config.data.name={settings['name']}: expected {', '.join(DATA)}")
    return DATA[settings["name"]](settings)
