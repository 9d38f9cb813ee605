"""The samplers by name, one line each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from cgjax.samplers.base import Sampler
from cgjax.samplers.flow import Flow
from cgjax.samplers.flow_one_step import OneStepFlow
from cgjax.samplers.gan import LatentGan
from cgjax.samplers.gaussian import Gaussian, GaussianMixture
from cgjax.samplers.imle import Imle
from cgjax.samplers.imle_modern import ModernImle
from cgjax.samplers.rejection import Rejection
from cgjax.samplers.vae import Vae

SAMPLERS: dict[str, Any] = {
    "rejection": Rejection,
    "flow": Flow,
    "flow_one_step": OneStepFlow,
    "imle": Imle,
    "imle_residual": ModernImle,
    "imle_adaptive": ModernImle,
    "imle_rs": ModernImle,
    "gaussian": Gaussian,
    "mixture": GaussianMixture,
    "gan": LatentGan,
    "vae": Vae,
}

# Leaves of config.samplers.<name> that the run reads, not the sampler.
RUN_LEAVES = ("fit", "output")


def make_sampler(name: str, settings: Mapping[str, Any], **context: Any) -> Sampler:
    """Build a sampler from its part of the config.

    Args:
        name: a key of `SAMPLERS`.
        settings: `config.samplers.<name>` as a plain dict.
        **context: what a sampler may need from the generator: `latent_dim`, `prior`; each sampler
            takes those it has fields for.

    Returns:
        The sampler.
    """
    cls = SAMPLERS[name]
    fields = {field.name for field in dataclasses.fields(cls)}
    chosen = {k: v for k, v in settings.items() if k not in RUN_LEAVES}
    chosen |= {k: v for k, v in context.items() if k in fields}
    sampler: Sampler = cls(**chosen)
    return sampler
