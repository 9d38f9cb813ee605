"""What tells one generator from another: a hash of its weights, or how it acts on a few latents.

The weights and the architecture of a generator of this package say all that it does. Those of a
user's own generator do not: its code may be another one, and it may be trained further between two
commands. So what it makes of four fixed latents is kept beside the config, and compared within
rounding when the folder is opened again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from cgjax.config.plain import digest
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.generators.foreign import CheckedGenerator

NUM = 4
"""Latents that are looked at."""

# Of the largest value: devices, batches and versions of JAX differ by less, a step of training by
# more.
TOLERANCE = 1e-3

_EACH = 6
"""Numbers that are kept of an array of one latent."""

Trace = list[float]
"""A few numbers of each of the latents, then of their features and images."""

PRIOR = NUM * _EACH
"""How many of them are of the latents: what the prior alone decides."""


def manifest_of(generator: ConditionedGenerator) -> dict[str, Any]:
    """Return what `generator.json` says of a generator; empty for one without."""
    manifest = getattr(generator.gen, "manifest", None)
    return manifest if isinstance(manifest, dict) else {}


def weights_of(generator: ConditionedGenerator) -> str:
    """Return the hash of a generator's weights; empty for one that has none."""
    return str(manifest_of(generator).get("weights_sha256", ""))


def trace_of(generator: ConditionedGenerator) -> Trace:
    """Return how a generator acts: empty for one of this package whose weights have a hash."""
    if weights_of(generator) and not isinstance(generator.gen, CheckedGenerator):
        return []
    z = generator.sample_latents(jax.random.key(0), NUM)
    parts = (z, generator.features(z), generator.images(np.asarray(z)))
    return [value for part in parts for row in np.asarray(part) for value in _summary(row)]


def _summary(row: np.ndarray) -> list[float]:
    flat = row.reshape(-1).astype(np.float64)
    picked = flat[:: max(1, len(flat) // 3)][: _EACH - 2]
    padded = np.pad(picked, (0, _EACH - 2 - len(picked)))
    return [float(x) for x in (flat.mean(), flat.std(), *padded)]


def is_same(trace: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two traces are of one generator."""
    if len(trace) != len(other):
        return False
    a, b = np.asarray(trace), np.asarray(other)
    scale = max(1e-6, float(np.abs(b).max(initial=0.0)))
    return bool(np.all(np.abs(a - b) <= TOLERANCE * scale))


def settled(trace: Trace, kept: Trace) -> Trace:
    """Return a trace with the numbers that were kept wherever the two agree within rounding."""
    parts = ((trace[:PRIOR], kept[:PRIOR]), (trace[PRIOR:], kept[PRIOR:]))
    return [value for new, old in parts for value in (old if is_same(new, old) else new)]


def identity_of(generator: ConditionedGenerator, name: str, trace: Trace) -> str:
    """Return a text that is the same for the same generator only.

    Args:
        generator: the generator.
        name: as the config names it; counts where there is a trace.
        trace: of the generator, or the part of it that is of the prior, as it was kept.
    """
    known, weights = manifest_of(generator), weights_of(generator)
    if trace or not weights:
        return digest([name, trace, *filter(None, [weights])])
    return digest([known.get("family"), known.get("architecture"), weights])
