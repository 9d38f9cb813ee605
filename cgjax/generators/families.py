"""The families of generators, one line each."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import Any

from flax import nnx

from cgjax.errors import UserError
from cgjax.generators.base import StagedNetwork

# family -> "module:class"; imported when asked for, so that start-up pays for one family only.
FAMILIES = {
    "dcgan": "cgjax.generators.dcgan:DCGAN",
    "pgan": "cgjax.generators.pgan:PGAN",
}


def build_network(
    family: str, architecture: Mapping[str, Any], *, rngs: nnx.Rngs
) -> StagedNetwork:
    """Build a network with random weights.

    Args:
        family: a key of `FAMILIES`.
        architecture: the family's keyword arguments.
        rngs: where the weights come from.

    Returns:
        The network; use `nnx.eval_shape` around the call to get shapes only.

    Raises:
        UserError: for an unknown family.
    """
    if family not in FAMILIES:
        near = difflib.get_close_matches(family, FAMILIES, n=1, cutoff=0)
        raise UserError(
            f"family {family!r} is not known ({', '.join(FAMILIES)}); did you mean {near[0]!r}?"
        )
    module, name = FAMILIES[family].split(":")
    network: StagedNetwork = getattr(importlib.import_module(module), name)(
        **architecture, rngs=rngs
    )
    return network
