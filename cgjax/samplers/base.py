"""What a sampler is: something that learns from the members of every cluster and proposes latents.

A sampler is an immutable set of hyper-parameters with three pure functions (`init`, `epoch`,
`sample`) on a state that is a plain pytree, so that one loop trains all of them, one module
checkpoints them, and the membership check treats their output alike.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

SamplerState = Any
"""A pytree of arrays."""


class Members(NamedTuple):
    """The latents of every cluster, padded to the largest.

    Attributes:
        latents: (k, m, d) float32; rows at or past a cluster's count are zeros.
        counts: (k,) int32, true members of each cluster.
    """

    latents: Float[Array, "k m d"]
    counts: Int[Array, " k"]


def group_members(
    latents: Float[np.ndarray, "n d"],
    labels: Int[np.ndarray, " n"],
    num_clusters: int,
    margins: Any = None,
) -> Members:
    """Sort latents by cluster.

    Args:
        latents: (n, d) float32.
        labels: (n,) cluster ids below `num_clusters`.
        num_clusters: k; a cluster may be empty.

    Returns:
        The members, in their order in `latents`.

    Example:
        >>> members = group_members(np.eye(3, dtype=np.float32), np.array([1, 0, 1]), 2)
        >>> members.latents.shape, members.counts.tolist()
        ((2, 2, 3), [1, 2])
    """
    latents, labels = np.asarray(latents, np.float32), np.asarray(labels)
    if margins is not None:
        order = np.argsort(margins, kind="stable")
        latents, labels = latents[order], labels[order]
    counts = np.bincount(labels, minlength=num_clusters).astype(np.int32)
    padded = np.zeros((num_clusters, max(1, counts.max(initial=0)), latents.shape[1]), np.float32)
    for c in range(num_clusters):
        padded[c, : counts[c]] = latents[labels == c]
    return Members(jnp.asarray(padded), jnp.asarray(counts))


class Sampler(Protocol):
    """A way to draw latents of one cluster.

    Attributes:
        num_epochs: how often `epoch` is to be called; 0 where nothing is trained.
        always_verified: True where proposals are the prior and only the membership check makes
            them members.
    """

    num_latents: Any
    needs_margin_order: Any
    starts_at_prior: Any
    sampling_leaves: Any

    @property
    def num_epochs(self) -> int: ...  # noqa: D102

    @property
    def always_verified(self) -> bool: ...  # noqa: D102

    def init(self, key: PRNGKeyArray, members: Members) -> SamplerState:
        """Return the state before the first epoch, all clusters in one pytree."""
        ...

    def epoch(
        self, state: SamplerState, members: Members, key: PRNGKeyArray, epoch: int
    ) -> tuple[SamplerState, dict[str, Array]]:
        """Train one epoch on all clusters at once; returns the state and (k,) metrics."""
        ...

    def sample(
        self, state: SamplerState, key: PRNGKeyArray, cluster: int, num: int, margin: float = 0.0
    ) -> Float[Array, "num d"]:
        """Propose latents of a cluster; whether they are members is checked elsewhere."""
        ...
