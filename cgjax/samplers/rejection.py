"""The exact reference: draw from the prior, keep the latents assigned to the cluster."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from jaxtyping import Array, Float, PRNGKeyArray

from cgjax.samplers.base import Members, SamplerBase, SamplerState, TrainedEpoch


@dataclasses.dataclass(frozen=True)
class Rejection(SamplerBase):
    """Proposals from the prior, which the membership check, always on here, reduces to members.

    A sample costs 1/share(c) partial forward passes: two for a balanced pair of clusters.

    Attributes:
        prior: (key, n) -> (n, d) latents.
    """

    prior: Callable[[PRNGKeyArray, int], Array]

    num_epochs = 0
    always_verified = True

    def init(self, key: PRNGKeyArray, members: Members) -> SamplerState:
        """Return an empty state: nothing is learnt."""
        return {}

    def epoch(
        self, state: SamplerState, members: Members, key: PRNGKeyArray, epoch: int
    ) -> TrainedEpoch:
        """Return the state unchanged: nothing is learnt."""
        return state, {}

    def sample(
        self, state: SamplerState, key: PRNGKeyArray, cluster: int, num: int, margin: float = 0.0
    ) -> Float[Array, "num d"]:
        """Draw from the prior, regardless of the cluster."""
        return self.prior(key, num)
