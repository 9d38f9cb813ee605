"""Splits of clusters: how a config writes them, as in `0/layer4-k2`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from cgjax.config.plain import split_texts

_FORM = re.compile(r"(\d{1,9}(?:/\d{1,9})*)/(.+)-k([1-9]\d{0,5})")


class Split(NamedTuple):
    """One cluster to be clustered again, by the features of a layer.

    Attributes:
        path: the cluster's ids from the run's own clustering down, one per level.
        layer: the layer whose features split it.
        num_clusters: the number of clusters to split it into.
    """

    path: tuple[int, ...]
    layer: str
    num_clusters: int

    def __str__(self) -> str:
        """Return it as it is typed."""
        return f"{shown_path(self.path)}/{self.layer}-k{self.num_clusters}"


def parse_split(text: str) -> Split | None:
    """Read a split; return None if the text is not one.

    >>> parse_split("0/1/synthesis.b16-k3")
    Split(path=(0, 1), layer='synthesis.b16', num_clusters=3)
    """
    match = _FORM.fullmatch(text.strip())
    if match is None:
        return None
    path, layer, num = match.groups()
    return Split(tuple(map(int, path.split("/"))), layer, int(num))


def splits_of(config: Mapping[str, Any]) -> list[Split]:
    """Return the splits of a validated config, parents before children."""
    splits = map(parse_split, split_texts(config["hierarchy"]["splits"]))
    return sorted((s for s in splits if s is not None), key=lambda s: (len(s.path), s.path))


def settings_inside(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with which a validated config clusters inside a cluster.

    Returns:
        The config's `cluster` with another space: every latent inside counts, outliers too.
    """
    overrides = {"space": config["hierarchy"]["space"], "max_samples": None, "trimmed": 0.0}
    settings: dict[str, Any] = config["cluster"] | overrides
    return settings


def shown_path(path: tuple[int, ...]) -> str:
    """Return a path as it is typed.

    >>> shown_path((0, 1))
    '0/1'
    """
    return "/".join(map(str, path))
