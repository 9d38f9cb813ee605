"""The families that can be converted, and the layouts of their files."""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING

from cgjax.errors import UserError

if TYPE_CHECKING:
    from converters.conversion import Layout

FAMILIES = ("dcgan", "pgan", "stylegan", "stylegan2", "stylegan3", "biggan", "residual")


def layouts_of(family: str) -> tuple[Layout, ...]:
    """Return the layouts of a family's files.

    Raises:
        UserError: there is no such family.
    """
    if family not in FAMILIES:
        near = difflib.get_close_matches(family, FAMILIES, n=1, cutoff=0)[0]
        raise UserError(
            f"family {family!r} is not known ({', '.join(FAMILIES)}); did you mean {near}?"
        )
    layouts: tuple[Layout, ...] = importlib.import_module(f"converters.{family}").LAYOUTS
    return layouts
