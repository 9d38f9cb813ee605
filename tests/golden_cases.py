"""The numeric fixtures of the reference networks, and how to compare with them."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from cgjax.errors import UserError
from cgjax.generators.base import PretrainedGenerator
from cgjax.generators.staged import resume_

GOLDEN = Path(__file__).parent / "golden"


class Golden(NamedTuple):
    """One fixture: its checkpoint file, its arrays and its meta.json."""

    checkpoint: Path
    arrays: dict[str, np.ndarray]
    meta: dict[str, Any]


def load_golden(name: str) -> Golden:
    """Read a fixture of tests/golden."""
    return read_golden(GOLDEN / name)


def read_golden(folder: Path) -> Golden:
    """Read a fixture's folder."""
    meta = json.loads((folder / "meta.json").read_text())
    arrays = dict(np.load(folder / "golden.npz"))
    return Golden(folder / meta["checkpoint"], arrays, meta)


def error(ours: Any, reference: np.ndarray) -> float:
    """Return max|a - b| / max(1, max|b|), NCHW references turned to our NHWC.

    Large references hold their first row only: so many rows of ours are compared.
    """
    if reference.ndim == 4:
        reference = reference.transpose(0, 2, 3, 1)
    ours = np.asarray(ours)[: len(reference)]
    assert ours.shape == reference.shape, (ours.shape, reference.shape)
    return float(np.abs(ours - reference).max() / max(1.0, np.abs(reference).max()))


# The fixtures' bound (shared notes on the formats): rounding of float32 is 3e-5 at the worst, any
# wrong scale, order or flip is of order 1.
TOLERANCE = 1e-4


def run_everything(
    gen: PretrainedGenerator, z: Any, *, resume: bool = True, **keywords: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Compute every layer, the image, and the image resumed from every layer, as one program.

    Asking layer by layer would compile one program each; that a layer asked for alone runs those
    before it only is tested elsewhere.

    Returns:
        The layers' activations by name, with "image"; and the resumed images by layer, without the
        layers from which the network refuses to resume.
    """
    graph, weights = nnx.split(gen.network)
    z = np.asarray(z, np.float32)
    inputs = gen.network.resolve(len(z), **keywords)
    return _run_everything(weights, z, inputs, graph=graph, resume=resume)


@functools.partial(jax.jit, static_argnames=("graph", "resume"))
def _run_everything(
    weights: Any, z: Any, inputs: Any, *, graph: Any, resume: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    network = nnx.merge(graph, weights)
    activations, resumed = {}, {}
    state = network.begin(z, inputs)
    for i, layer in enumerate(network.layers):
        state = network.stage(i, state)
        activations[layer] = state["h"]
        if not resume:
            continue
        try:
            more = network.resolve_resume(len(z), i, z, None)
            resumed[layer] = resume_(network, state["h"], inputs | more, index=i)
        except UserError as refusal:
            if "cannot resume" not in str(refusal):
                raise
    activations["image"] = network.end(state)
    return activations, resumed
