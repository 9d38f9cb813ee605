"""The families of generators, one line each."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from cgjax.errors import UserError
from cgjax.generators.staged import StagedNetwork

# family -> "module:class"; imported when asked for, so that start-up pays for one family only.
FAMILIES = {
    "dcgan": "cgjax.generators.dcgan:DCGAN",
    "pgan": "cgjax.generators.pgan:PGAN",
    "stylegan": "cgjax.generators.stylegan:StyleGAN",
    "stylegan2": "cgjax.generators.stylegan2:StyleGAN2",
    "stylegan3": "cgjax.generators.stylegan3:StyleGAN3",
    "biggan": "cgjax.generators.biggan:BigGAN",
    "biggan_pytorch": "cgjax.generators.biggan_pytorch:BigGANPyTorch",
    "residual": "cgjax.generators.residual:ResNet",
}


def abstract_network(family: str, architecture: Mapping[str, Any]) -> StagedNetwork:
    """Build a network whose arrays are shapes only; nothing is allocated.

    Args:
        family: a key of `FAMILIES`.
        architecture: the family's keyword arguments.

    Returns:
        The network.

    Raises:
        UserError: for an unknown family.
    """
    if family not in FAMILIES:
        near = difflib.get_close_matches(family, FAMILIES, n=1, cutoff=0)
        raise UserError(
            f"family {family!r} is not known ({', '.join(FAMILIES)}); did you mean {near[0]!r}?"
        )
    module, name = FAMILIES[family].split(":")
    cls = getattr(importlib.import_module(module), name)
    network: StagedNetwork = nnx.eval_shape(lambda: cls(**architecture))
    return network


def build_network(family: str, architecture: Mapping[str, Any], *, seed: int = 0) -> StagedNetwork:
    """Build a network with random weights, as each array's declaration says to draw them.

    Args:
        family: a key of `FAMILIES`.
        architecture: the family's keyword arguments.
        seed: NumPy's: drawing tens of millions of weights with JAX compiles one program a shape.

    Returns:
        The network.

    Raises:
        UserError: for an unknown family.
    """
    rng = np.random.default_rng(seed)

    def draw(name: str, variable: Any) -> np.ndarray:
        metadata = variable.get_metadata()
        values = rng.standard_normal(variable.shape, np.float32)
        scaled = np.asarray(metadata["mean"], np.float32) + np.float32(metadata["std"]) * values
        return np.asarray(scaled)  # of a scalar NumPy makes a number

    return fill(abstract_network(family, architecture), draw)


def fill(network: StagedNetwork, value: Callable[[str, Any], np.ndarray]) -> StagedNetwork:
    """Give every array of a network a value.

    Args:
        network: abstract or not; left as it is.
        value: (dotted path, variable) -> float32 array of the variable's shape.

    Returns:
        A network of the same kind with these arrays.
    """
    graph, state = nnx.split(network)
    filled = nnx.from_flat_state(
        # Not jnp.asarray, which copies: the weights would be in memory twice.
        (path, variable.replace(jax.device_put(value(".".join(map(str, path)), variable))))
        for path, variable in nnx.to_flat_state(state)
    )
    return nnx.merge(graph, filled)
