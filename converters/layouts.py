"""The families that are converted, and the layouts that their files come in."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from converters.conversion import Container

FAMILIES = ("dcgan", "pgan", "stylegan", "stylegan2", "stylegan3", "biggan", "residual")


def containers_of(family: str) -> tuple[Container, ...]:
    """Return the layouts that a family's files come in."""
    containers: tuple[Container, ...] = importlib.import_module(f"converters.{family}").CONTAINERS
    return containers
