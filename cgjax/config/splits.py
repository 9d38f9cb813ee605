"""Clusters split again: how a config names them, as in `0/layer4-k2`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from cgjax.config.plain import split_texts

_FORM = re.compile(r"(\d+(?:/\d+)*)/(.+)-k([1-9]\d{0,5})")


class Split(NamedTuple):
    """One cluster that is clustered again, by the features of some layer.

    Attributes:
        path: the ids from the run's own clustering down to the cluster; one for each level.
        layer: whose features split it.
        num_clusters: into how many.
    """

    path: tuple[int, ...]
    layer: str
    num_clusters: int

    def __str__(self) -> str:
        """Return it as it is typed."""
        return f"{shown_path(self.path)}/{self.layer}-k{self.num_clusters}"


def parse_split(text: str) -> Split | None:
    """Read a split; None if the text is none.

    >>> parse_split("0/1/synthesis.b16-k3")
    Split(path=(0, 1), layer='synthesis.b16', num_clusters=3)
    """
    found = _FORM.fullmatch(text.strip())
    if found is None:
        return None
    path, layer, num = found.groups()
    return Split(tuple(map(int, path.split("/"))), layer, int(num))


def splits_of(config: Mapping[str, Any]) -> list[Split]:
    """Return the splits of a config that was validated, each after the one that it splits."""
    found = map(parse_split, split_texts(config["hierarchy"]["splits"]))
    return sorted((s for s in found if s is not None), key=lambda s: (len(s.path), s.path))


def shown_path(path: tuple[int, ...]) -> str:
    """Return a path as it is typed.

    >>> shown_path((0, 1))
    '0/1'
    """
    return "/".join(map(str, path))
