"""The flow distilled into one step: a latent costs a single call of a small network.

First the flow v is trained as in `flow`; then a network s of the same form learns where v leads,

    mean || e + s(e, c, q) - z(e, c, q) ||^2,        z: the flow followed from e in many steps,

and sampling is z = e + s(e, c, q). The flow maps every code to one latent, so nothing is averaged
away, unlike in a mapping fitted to matched pairs: only what s cannot represent is lost.

Symbols as in `flow`.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from cgjax.errors import UserError
from cgjax.samplers.base import DataParallelEpoch, Members
from cgjax.samplers.flow import Batch, Flow, FlowState, take_steps
from cgjax.samplers.flow import epoch_ as flow_epoch_
from cgjax.samplers.training import ONE_DEVICE, Devices
from cgjax.samplers.velocity import velocity


class OneStepState(NamedTuple):
    """The flow, and the student network that replaces it."""

    flow: FlowState
    student: FlowState


@dataclasses.dataclass(frozen=True)
class OneStepFlow(Flow):
    """The distilled flow; hyper-parameters as `Flow`'s, and one more.

    Attributes:
        num_steps: midpoint steps that follow the flow to the student's target.
        distilled: share of the epochs, at the end, that train the student; at least one epoch does.
    """

    num_steps: int = 4
    distilled: float = 0.4

    # Empty: training the student follows the flow, with all of its settings. Not annotated, because
    # mypy 2.4 fails with an internal error on an annotated class variable of a subclass.
    sampling_leaves = ()

    def __post_init__(self) -> None:
        if self.num_epochs < 2:
            raise UserError(
                f"num_epochs={self.num_epochs}: expected at least 2, one for the flow and one for "
                "the step"
            )

    @property
    def flow_epochs(self) -> int:
        """How many epochs train the flow itself."""
        distilled = max(1, round(self.distilled * self.num_epochs))
        return max(1, self.num_epochs - distilled)

    def part(self, num_epochs: int) -> Flow:
        """Return what trains one of the two networks, for that many of the epochs."""
        settings = {f.name: getattr(self, f.name) for f in dataclasses.fields(Flow)}
        return Flow(**settings | {"num_epochs": num_epochs})

    def init(self, key: PRNGKeyArray, members: Members) -> OneStepState:  # type: ignore[override]
        """Return new networks."""
        first, second = jax.random.split(key)
        return OneStepState(super().init(first, members), super().init(second, members))

    def data_parallel_epoch(self, members: Members, epoch: int) -> DataParallelEpoch:
        """As `Flow`'s; the last epochs leave the flow unchanged and train the student."""
        _, _, static = super().data_parallel_epoch(members, epoch)
        distils = epoch >= self.flow_epochs
        own_epoch = epoch - self.flow_epochs if distils else epoch
        return DataParallelEpoch(epoch_, jnp.float32(own_epoch), static | {"distils": distils})

    def sample(  # type: ignore[override]
        self, state: OneStepState, key: PRNGKeyArray, cluster: int, num: int, margin: float = 0.0
    ) -> Float[Array, "num d"]:
        """Take the one step of a cluster, or its part above a margin quantile, from fresh codes."""
        return super().sample(state.student, key, cluster, num, margin)

    def follow(
        self, params: Any, e: Float[Array, "n d"], c: Int[Array, " n"], q: Float[Array, " n"]
    ) -> Float[Array, "n d"]:
        """Return e + s(e, c, q); s has the flow's architecture and always runs at t = 0."""
        return e + velocity(params, e, jnp.zeros_like(q), c, q)


def epoch_(
    state: OneStepState,
    members: Members,
    key: PRNGKeyArray,
    epoch: Array,
    *,
    sampler: OneStepFlow,
    num_steps: int,
    distils: bool,
    devices: Devices = ONE_DEVICE,
) -> tuple[OneStepState, dict[str, Array]]:
    """One epoch without jit; `epoch` counts from the start of its part, flow or student."""
    given = members, key, epoch
    options: dict[str, Any] = {"num_steps": num_steps, "devices": devices}
    if not distils:
        part = sampler.part(sampler.flow_epochs)
        flow, metrics = flow_epoch_(state.flow, *given, sampler=part, **options)
        return state._replace(flow=flow), metrics
    part = sampler.part(sampler.num_epochs - sampler.flow_epochs)
    losses_of = functools.partial(losses, flow=state.flow.average, sampler=sampler)
    student, metrics = take_steps(state.student, *given, losses_of, sampler=part, **options)
    return state._replace(student=student), metrics


def losses(params: Any, batch: Batch, *, flow: Any, sampler: OneStepFlow) -> Float[Array, " k"]:
    """Return each cluster's mean squared distance of the step to where the flow leads."""
    k, b, d = batch.e.shape
    c = jnp.repeat(jnp.arange(k, dtype=jnp.int32), b)
    inputs = batch.e.reshape(-1, d), c, batch.q.reshape(-1)
    target = Flow.follow(sampler, flow, *inputs)
    errors = jnp.sum(jnp.square(sampler.follow(params, *inputs) - target), axis=1)
    return jnp.sum(batch.weight * errors.reshape(k, b), axis=1)
