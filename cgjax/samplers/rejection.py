"""The exact reference: draw from the prior, keep what the clustering assigns to the cluster."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from jaxtyping import Array, Float, PRNGKeyArray

from cgjax.samplers.base import Members, SamplerBase, SamplerState


@dataclasses.dataclass(frozen=True)
class Rejection(SamplerBase):
    """Proposals of the prior; the membership check, never switched off here, makes them members.

    Costs 1/share(c) partial forward passes a sample: two for a balanced pair of clusters.

    Attributes:
        prior: (key, n) -> (n, d) latents.
    """

    prior: Callable[[PRNGKeyArray, int], Array]

    num_epochs = 0
    always_verified = True

    def init(self, key: PRNGKeyArray, members: Members) -> SamplerState:
        """Nothing is learnt."""
        return {}

    def epoch(
        self, state: SamplerState, members: Members, key: PRNGKeyArray, epoch: int
    ) -> tuple[SamplerState, dict[str, Array]]:
        """Nothing is learnt."""
        return state, {}

    def sample(
        self, state: SamplerState, key: PRNGKeyArray, cluster: int, num: int, margin: float = 0.0
    ) -> Float[Array, "num d"]:
        """Draw from the prior, whatever the cluster."""
        return self.prior(key, num)
