"""What the trained samplers share: drawing members, a plain network, Adam, several devices.

All of them are data parallel in the same way. An epoch is a pure function of replicated state,
members and key; every device draws the same numbers and works on its share of every batch's rows
(`Devices.shard`, padded with rows of weight 0); gradients, losses and batch-norm moments are then
summed. The result equals one device's up to the order of the sums, for any number of devices.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, PRNGKeyArray

from cgjax.numerics.optimisers import take_step
from cgjax.runtime.mesh import DATA_AXIS, all_sum
from cgjax.samplers.base import Members, Sampler, SamplerState, TrainedEpoch


class Devices(NamedTuple):
    """The devices that an epoch's batches are spread over.

    Attributes:
        axis_name: their mesh axis, inside `shard_map` or `pmap`; None for one device.
        num: how many there are.
    """

    axis_name: str | None = None
    num: int = 1

    def shard(self, x: Array, axis: int) -> Array:
        """Return this device's share of an axis, padded with zeros to a multiple of the devices."""
        if self.axis_name is None:
            return x
        share = -(-x.shape[axis] // self.num)
        widths = [(0, 0)] * x.ndim
        widths[axis] = (0, share * self.num - x.shape[axis])
        start = jax.lax.axis_index(self.axis_name) * share
        return jax.lax.dynamic_slice_in_dim(jnp.pad(x, widths), start, share, axis)

    def sum(self, tree: Any) -> Any:
        """Return the sum of a tree over the devices."""
        return all_sum(tree, self.axis_name)


ONE_DEVICE = Devices()

Epoch = Callable[[SamplerState, Members, PRNGKeyArray, int], TrainedEpoch]


def over_mesh(mesh: Mesh, sampler: Sampler) -> Epoch:
    """Return `sampler.epoch` with every batch's rows spread over the devices of a mesh.

    With one device, or if the sampler's `data_parallel_epoch` is None, that is `sampler.epoch`
    itself. The mesh may span several processes: each calls this with the same arguments, and the
    result is on all devices. The whole epoch is one compiled program; the state is donated.

    Args:
        mesh: one-dimensional, axis `DATA_AXIS`, as returned by `cgjax.runtime.mesh.data_mesh`.
        sampler: the sampler.

    Returns:
        `(state, members, key, epoch) -> (state, metrics)`. State and members may be on
        any device.

    Example:
        >>> from cgjax.runtime.mesh import data_mesh
        >>> from cgjax.samplers.base import group_members
        >>> from cgjax.samplers.flow import Flow
        >>> members = group_members(
        ...     np.eye(4, dtype=np.float32), np.array([0, 0, 1, 1]), 2, np.ones(4)
        ... )
        >>> sampler = Flow(4, hidden_dim=8, batch=4)
        >>> epoch = over_mesh(data_mesh(), sampler)
        >>> state = sampler.init(jax.random.key(0), members)
        >>> state, metrics = epoch(state, members, jax.random.key(1), 0)
        >>> metrics["loss"].shape
        (2,)
    """
    if mesh.size == 1:
        return sampler.epoch
    placed: list[Members] = []  # the last members, as passed and on the mesh: placed only once

    def epoch(
        state: SamplerState, members: Members, key: PRNGKeyArray, number: int
    ) -> TrainedEpoch:
        parts = sampler.data_parallel_epoch(members, number)
        if parts is None:
            return sampler.epoch(state, members, key, number)
        function, scalar, static = parts
        if not placed or placed[0] is not members:
            placed[:] = [members, _place(members, mesh)]
        run = _compiled(mesh, function, tuple(static.items()))
        state, key_data, scalar = _place((state, jax.random.key_data(key), scalar), mesh)
        result: TrainedEpoch = run(state, placed[1], key_data, scalar)
        return result

    return epoch


@functools.lru_cache(maxsize=64)
def _compiled(mesh: Mesh, function: Callable[..., Any], static: tuple[tuple[str, Any], ...]) -> Any:
    """Return the compiled epoch of `over_mesh`; it takes the key's data, not the key."""

    def body(state: Any, members: Members, key_data: Array, scalar: Array) -> Any:
        return function(
            state,
            members,
            jax.random.wrap_key_data(key_data),
            scalar,
            devices=Devices(DATA_AXIS, mesh.size),
            **dict(static),
        )

    mapped = jax.shard_map(body, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False)
    return jax.jit(mapped, donate_argnums=0)


def _place(tree: Any, mesh: Mesh) -> Any:
    """Put a copy of every array on every device of the mesh, even if it spans processes."""
    everywhere = NamedSharding(mesh, P())

    def place(x: Any) -> Array:
        if isinstance(x, jax.Array) and x.sharding.is_equivalent_to(everywhere, x.ndim):
            return x
        host = np.asarray(x)
        return jax.make_array_from_callback(host.shape, everywhere, lambda index: host[index])

    return jax.tree.map(place, tree)


def draw_members(members: Members, key: PRNGKeyArray, rows: int) -> Float[Array, "k b d"]:
    """Draw `rows` members of every cluster, with replacement; an empty cluster gives zeros."""
    shape = (members.counts.shape[0], rows)
    return members_at(members, jax.random.uniform(key, shape, jnp.float32))


def members_at(members: Members, quantiles: Float[Array, "k b"]) -> Float[Array, "k b d"]:
    """Return the members at quantiles, from 0 to below 1, of each cluster's own order."""
    counts = members.counts[:, None]
    index = jnp.floor(quantiles * counts.astype(jnp.float32)).astype(jnp.int32)
    index = jnp.clip(index, 0, jnp.maximum(counts - 1, 0))
    return jnp.take_along_axis(members.latents, index[..., None], axis=1)


def pass_over(
    step: Callable[[SamplerState, Array, PRNGKeyArray], tuple[SamplerState, Any]],
    state: SamplerState,
    members: Members,
    key: PRNGKeyArray,
    batch: int,
) -> tuple[SamplerState, Any]:
    """Take as many steps as the largest cluster has batches.

    Args:
        step: (state, (k, b, d) members, (k,) keys) -> the new state and (k,) losses.
        state: before the first step.
        members: the latents of every cluster.
        key: for the pass.
        batch: b.

    Returns:
        The state after the last step, and the losses' means over the steps.
    """

    def body(state: SamplerState, number: Array) -> tuple[SamplerState, Any]:
        key_rows, key_codes = jax.random.split(jax.random.fold_in(key, number))
        z = draw_members(members, key_rows, batch)
        return step(state, z, jax.random.split(key_codes, z.shape[0]))

    steps = jnp.arange(max(1, members.latents.shape[1] // batch), dtype=jnp.int32)
    state, losses = jax.lax.scan(body, state, steps)
    return state, jax.tree.map(lambda loss: jnp.mean(loss, axis=0), losses)


def init_dense(key: PRNGKeyArray, dims: tuple[int, ...]) -> list[dict[str, Array]]:
    """Return dense layers: kernels uniform within 1/sqrt(inputs), biases zero."""
    keys = jax.random.split(key, len(dims) - 1)
    return [
        {
            "kernel": jax.random.uniform(k, (i, o), jnp.float32, -(i**-0.5), i**-0.5),
            "bias": jnp.zeros(o, jnp.float32),
        }
        for k, (i, o) in zip(keys, itertools.pairwise(dims), strict=True)
    ]


def dense(params: list[dict[str, Array]], x: Float[Array, "n i"]) -> Float[Array, "n o"]:
    """Apply dense layers with leaky ReLU (0.2) between them."""
    for i, layer in enumerate(params):
        x = x @ layer["kernel"] + layer["bias"][None]
        if i < len(params) - 1:
            x = jax.nn.leaky_relu(x, 0.2)
    return x


def update(
    adam: optax.GradientTransformation,
    gradient: Any,
    moments: Any,
    params: Any,
    rate: float | Array,
) -> tuple[Any, Any]:
    """Take one step down the gradient; return parameters and moments."""
    return take_step(adam, gradient, moments, params, -rate)
