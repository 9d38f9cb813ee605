"""The families that are converted, and the layouts that their files come in."""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING

from cgjax.errors import UserError

if TYPE_CHECKING:
    from converters.conversion import Container

FAMILIES = ("dcgan", "pgan", "stylegan", "stylegan2", "stylegan3", "biggan", "residual")


def containers_of(family: str) -> tuple[Container, ...]:
    """Return the layouts that a family's files come in.

    Raises:
        UserError: if there is no such family.
    """
    if family not in FAMILIES:
        near = difflib.get_close_matches(family, FAMILIES, n=1, cutoff=0)[0]
        raise UserError(
            f"family {family!r} is not known ({', '.join(FAMILIES)}); did you mean {near}?"
        )
    containers: tuple[Container, ...] = importlib.import_module(f"converters.{family}").CONTAINERS
    return containers
