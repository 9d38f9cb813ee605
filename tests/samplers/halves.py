"""Two clusters that are half-spaces of a normal distribution, and training on them to the end."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from cgjax.samplers.base import Members, Sampler, group_members


def half_spaces(num: int, dim: int, *, is_ordered: bool = False) -> Members:
    """The members, sorted by distance from the boundary if asked to."""
    z = np.random.default_rng(0).normal(size=(num, dim)).astype(np.float32)
    margins = np.abs(z[:, 0]) if is_ordered else None
    return group_members(z, (z[:, 0] < 0).astype(np.int32), 2, margins)


def train(sampler: Sampler, members: Members) -> Any:
    """The state after all epochs; every loss must be finite."""
    state = sampler.init(jax.random.key(0), members)
    for epoch in range(sampler.num_epochs):
        key = jax.random.fold_in(jax.random.key(1), epoch)
        state, metrics = sampler.epoch(state, members, key, epoch)
        assert metrics["loss"].shape == (len(members.counts),)
        assert np.isfinite(metrics["loss"]).all()
    return state
