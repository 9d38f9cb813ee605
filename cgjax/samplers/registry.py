"""The samplers, one line each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from cgjax.samplers.base import Sampler
from cgjax.samplers.flow import Flow
from cgjax.samplers.imle import Imle
from cgjax.samplers.rejection import Rejection

SAMPLERS: dict[str, Any] = {
    "rejection": Rejection,
    "flow": Flow,
    "imle": Imle,
}

# Leaves of config.samplers.<name> that the run uses, not the sampler.
RUN_LEAVES = ("fit", "output")


def make_sampler(name: str, settings: Mapping[str, Any], **context: Any) -> Sampler:
    """Build a sampler from its part of the config.

    Args:
        name: a key of `SAMPLERS`.
        settings: `config.samplers.<name>` as a plain dict.
        **context: what a sampler may need of the generator: `latent_dim`, `prior`; each takes what
            it has a field for.

    Returns:
        The sampler.
    """
    cls = SAMPLERS[name]
    fields = {field.name for field in dataclasses.fields(cls)}
    chosen = {k: v for k, v in settings.items() if k not in RUN_LEAVES}
    chosen |= {k: v for k, v in context.items() if k in fields}
    sampler: Sampler = cls(**chosen)
    return sampler
