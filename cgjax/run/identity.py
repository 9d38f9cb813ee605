"""What distinguishes one generator from another: its weights, or how it acts on a few latents.

The weights and the architecture of a generator of this package determine all that it does. Those of
a user's own generator do not: its code can change, and it can be trained further between two
commands. So its features and images of four fixed latents are summarised in a trace, kept beside
the config. Features of other layers, those of a sweep or a split, have a trace in the manifest of
what was made from them.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from cgjax.config.plain import digest
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.generators.foreign import CheckedGenerator
from cgjax.run.traces import PART, Trace

NUM = 4
"""Latents that a trace is made from."""

_EACH = PART // NUM
"""Numbers that are kept of one row, which is one latent, its features or its image."""

PRIOR = PART
"""The first numbers of a trace, those of the latents: they depend on the prior alone."""


def manifest_of(generator: ConditionedGenerator) -> dict[str, Any]:
    """Return what `generator.json` says of a generator; empty for one without."""
    manifest = getattr(generator.gen, "manifest", None)
    return manifest if isinstance(manifest, dict) else {}


def weights_of(generator: ConditionedGenerator) -> str:
    """Return the hash of a generator's weights; empty for one that has none."""
    return str(manifest_of(generator).get("weights_sha256", ""))


def trace_of(generator: ConditionedGenerator) -> Trace:
    """Return the trace of a generator; empty if its weights determine what it does.

    It has a part for the latents, one for their features, and one for their images.
    """
    if _is_known_by_weights(generator):
        return []
    z = _fixed_latents(generator)
    return _summaries(z, generator.features(z), generator.images(np.asarray(z)))


def layer_trace(generator: ConditionedGenerator) -> Trace:
    """Return the trace of the features of a generator's layer; empty as for `trace_of`."""
    if _is_known_by_weights(generator):
        return []
    return _summaries(generator.features(_fixed_latents(generator)))


def _is_known_by_weights(generator: ConditionedGenerator) -> bool:
    return bool(weights_of(generator)) and not isinstance(generator.gen, CheckedGenerator)


def _fixed_latents(generator: ConditionedGenerator) -> Float[Array, "n d"]:
    return generator.sample_latents(jax.random.key(0), NUM)


def _summaries(*parts: Float[Array, "n ..."] | Float[np.ndarray, "n ..."]) -> Trace:
    return [value for part in parts for row in np.asarray(part) for value in _summary(row)]


def _summary(row: np.ndarray) -> list[float]:
    flat = row.reshape(-1).astype(np.float64)
    picked = flat[:: max(1, len(flat) // 3)][: _EACH - 2]
    padded = np.pad(picked, (0, _EACH - 2 - len(picked)))
    return [float(x) for x in (flat.mean(), flat.std(), *padded)]


def identity_of(generator: ConditionedGenerator, name: str, trace: Trace) -> str:
    """Return a text that is equal for equal generators only.

    Args:
        generator: the generator.
        name: its name in the config; counts only if there is a trace.
        trace: of the generator, or the first `PRIOR` numbers of it, settled.
    """
    manifest, weights = manifest_of(generator), weights_of(generator)
    if trace or not weights:
        return digest([name, trace, *filter(None, [weights])])
    return digest([manifest.get("family"), manifest.get("architecture"), weights])
