"""Meshes, sharding and several hosts: the only place that builds a mesh.

Everything runs on JAX's own runtime. A mesh here always has automatic axes: `jax.make_mesh` now
defaults to explicit ones, with which an array that is not yet sharded cannot enter `shard_map`.
"""

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

DATA_AXIS = "data"


def data_mesh(num_devices: int | None = None) -> Mesh:
    """Return a one-dimensional mesh over `num_devices` devices (default: all, of all hosts)."""
    devices = jax.devices()
    num = len(devices) if num_devices is None else num_devices
    if not 1 <= num <= len(devices):
        raise ValueError(f"num_devices={num}: expected 1 to {len(devices)} (the devices there are)")
    return jax.make_mesh((num,), (DATA_AXIS,), axis_types=(AxisType.Auto,), devices=devices[:num])


def all_sum(value: Array, axis_name: str | None) -> Array:
    """Sum over the shards of an axis; the value itself when there is no axis."""
    return value if axis_name is None else jax.lax.psum(value, axis_name)


def all_min(value: Array, axis_name: str | None) -> Array:
    """Take the minimum over the shards of an axis; the value itself when there is no axis."""
    return value if axis_name is None else jax.lax.pmin(value, axis_name)


def axis_position(axis_name: str) -> Array:
    """Return this shard's position on an axis."""
    return jax.lax.axis_index(axis_name)


def varying_like(value: Array, reference: Array) -> Array:
    """Mark a constant as different in each shard wherever a reference is.

    Inside `shard_map` the carry of a loop and both branches of a condition must agree on the axes
    they vary over; constants vary over none. Outside of it this does nothing.
    """
    axes = _axes(reference) - _axes(value)
    return jax.lax.pcast(value, tuple(sorted(axes)), to="varying") if axes else value


def _axes(value: Array) -> frozenset[str]:
    return frozenset(getattr(jax.typeof(value), "vma", ()))


def replicate(value: Array, mesh: Mesh) -> Array:
    """Place one copy of an array on every device of the mesh."""
    return jax.device_put(value, NamedSharding(mesh, P()))


def shard_rows(value: Array, mesh: Mesh) -> tuple[Array, Array]:
    """Split the rows of an array over the mesh, padding with zero rows where they do not divide.

    Returns:
        The padded (n', ...) array and (n',) float32, 1 for real rows and 0 for padding.
    """
    num = value.shape[0]
    surplus = -num % mesh.size
    weights = jnp.ones((num,), jnp.float32)
    if surplus:
        value = jnp.pad(value, [(0, surplus)] + [(0, 0)] * (value.ndim - 1))
        weights = jnp.pad(weights, (0, surplus))
    sharding = NamedSharding(mesh, P(DATA_AXIS))
    return jax.device_put(value, sharding), jax.device_put(weights, sharding)
