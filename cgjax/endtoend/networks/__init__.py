"""The networks of every experiment: one table by name."""

from __future__ import annotations

from collections.abc import Callable

from cgjax.endtoend.networks.base import Architecture, Network
from cgjax.endtoend.networks.planar import Planar

NETWORKS: dict[str, Callable[..., Architecture]] = {"planar": Planar}
"""Architectures by name; an architecture of images is one more file and one more line."""

__all__ = ["NETWORKS", "Architecture", "Network", "Planar"]
