"""The table of generator families, one line each, and building a network by family name."""

from __future__ import annotations

import contextlib
import difflib
import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from cgjax.errors import UserError
from cgjax.generators.architecture import check_keywords
from cgjax.generators.staged import StagedNetwork, images_

# family -> "module:class"; imported on demand, so that start-up pays for one family only.
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
    """Build a network whose arrays are only shapes; nothing is allocated.

    Args:
        family: a key of `FAMILIES`.
        architecture: the family's keyword arguments, as read from JSON.

    Returns:
        The network.

    Raises:
        UserError: an unknown family, or keywords that do not describe a network.
    """
    if family not in FAMILIES:
        near = difflib.get_close_matches(family, FAMILIES, n=1, cutoff=0)
        raise UserError(
            f"family {family!r} is not known ({', '.join(FAMILIES)}); did you mean {near[0]!r}?"
        )
    module, name = FAMILIES[family].split(":")
    cls = getattr(importlib.import_module(module), name)
    check_keywords(cls, architecture, f"architecture of {family}")
    with _architecture_errors(family):
        network: StagedNetwork = nnx.eval_shape(lambda: cls(**architecture))
        return network


def check_pass(network: StagedNetwork) -> None:
    """Trace the shapes from a latent to an image, so that a later pass cannot fail on them.

    Args:
        network: abstract or not; nothing is computed.

    Raises:
        UserError: if its parts do not fit together.
    """
    graph, state = nnx.split(network)
    z = jax.ShapeDtypeStruct((1, network.latent_dim), np.float32)
    size = network.image_size
    with _architecture_errors(network.family):
        inputs = network.resolve(1, **({"condition": 0} if network.num_classes else {}))
        image = jax.eval_shape(lambda s, z: images_(nnx.merge(graph, s), z, inputs), state, z)
        if size < 1 or image.shape != (1, size, size, network.image_channels):
            raise UserError(f"its images have shape {image.shape[1:]}")


@contextlib.contextmanager
def _architecture_errors(family: str) -> Iterator[None]:
    """Turn any exception of a constructor or a pass into a one-line `UserError`."""
    try:
        yield
    except UserError as error:
        raise UserError(f"architecture of {family}: {error}") from error
    except Exception as error:
        text = " ".join(str(error).split())[:120]
        raise UserError(
            f"architecture of {family}: its parts do not fit together ({type(error).__name__}: "
            f"{text})"
        ) from error


def build_network(family: str, architecture: Mapping[str, Any], *, seed: int = 0) -> StagedNetwork:
    """Build a network with random weights, drawn with the mean and std that each array declares.

    Args:
        family: a key of `FAMILIES`.
        architecture: the family's keyword arguments.
        seed: for NumPy's generator; JAX would compile one program per shape to draw the weights.

    Returns:
        The network.

    Raises:
        UserError: as for `abstract_network`.
    """
    rng = np.random.default_rng(seed)

    def draw(name: str, variable: Any) -> np.ndarray:
        metadata = variable.get_metadata()
        values = rng.standard_normal(variable.shape, np.float32)
        scaled = np.asarray(metadata["mean"], np.float32) + np.float32(metadata["std"]) * values
        return np.asarray(scaled)  # NumPy turns a () array into a scalar

    return fill(abstract_network(family, architecture), draw)


def fill(network: StagedNetwork, value: Callable[[str, Any], np.ndarray]) -> StagedNetwork:
    """Give every array of a network a value.

    Args:
        network: abstract or not; not modified.
        value: (dotted path, variable) -> float32 array of the variable's shape.

    Returns:
        The same network with these arrays.
    """
    graph, state = nnx.split(network)
    filled = nnx.from_flat_state(
        # Not jnp.asarray, which would copy the weights: they would be in memory twice.
        (path, variable.replace(jax.device_put(value(".".join(map(str, path)), variable))))
        for path, variable in nnx.to_flat_state(state)
    )
    return nnx.merge(graph, filled)
