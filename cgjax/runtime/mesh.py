"""Meshes, sharding and several hosts: the only place that builds a mesh.

Everything runs on JAX's own runtime. A mesh here always has automatic axes: `jax.make_mesh` now
defaults to explicit ones, with which an array that is not yet sharded cannot enter `shard_map`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from cgjax.errors import UserError

DATA_AXIS = "data"

Tree = TypeVar("Tree")


def data_mesh(num_devices: int | None = None) -> Mesh:
    """Return a one-dimensional mesh over `num_devices` devices (default: all, of all hosts)."""
    devices = jax.devices()
    num = len(devices) if num_devices is None else num_devices
    if not 1 <= num <= len(devices):
        raise ValueError(f"num_devices={num}: expected 1 to {len(devices)} (the devices there are)")
    return _mesh_over(devices[:num])


def _mesh_over(devices: Sequence[jax.Device]) -> Mesh:
    shape, types = (len(devices),), (AxisType.Auto,)
    return jax.make_mesh(shape, (DATA_AXIS,), axis_types=types, devices=devices)


def accelerator_mesh() -> Mesh | None:
    """Return a mesh over all devices if there are several accelerators, else None.

    Several devices on one CPU share its cores, so using them gains nothing.
    """
    devices = jax.devices()
    return data_mesh() if len(devices) > 1 and devices[0].platform != "cpu" else None


def run_mesh(num_devices: int | None = None) -> Mesh | None:
    """Return the mesh that a run works on, or None if it works on one device.

    Args:
        num_devices: how many to use; by default all devices of several processes, or all
            accelerators of one process.

    Raises:
        UserError: there are not that many devices.
    """
    if num_devices is None:
        return data_mesh() if jax.process_count() > 1 else accelerator_mesh()
    if jax.process_count() > 1:
        raise UserError("--devices is for one process; several processes use all their devices")
    if not 1 <= num_devices <= jax.device_count():
        num, kind = jax.device_count(), jax.devices()[0].device_kind
        there_is = f"is 1 device ({kind})" if num == 1 else f"are {num} devices ({kind})"
        raise UserError(
            f"--devices={num_devices}: there {there_is}; "
            f"expected {'1' if num == 1 else f'1 to {num}'}, or leave --devices out"
        )
    return data_mesh(num_devices) if num_devices > 1 else None


def local_mesh(mesh: Mesh | None) -> Mesh | None:
    """Return a mesh over this process's devices in another mesh, or None for fewer than two."""
    index = jax.process_index()
    own = [] if mesh is None else [d for d in mesh.devices.flat if d.process_index == index]
    return _mesh_over(own) if len(own) > 1 else None


def process_mesh(mesh: Mesh | None) -> Mesh | None:
    """Return a mesh over one device per process of another mesh, or None for one process."""
    if mesh is None or not mesh.is_multi_process:
        return None
    first: dict[int, jax.Device] = {}
    for device in mesh.devices.flat:
        first.setdefault(device.process_index, device)
    return _mesh_over(list(first.values()))


def own_device(mesh: Mesh) -> jax.Device:
    """Return this process's device in a `process_mesh`."""
    index = jax.process_index()
    device: jax.Device = next(d for d in mesh.devices.flat if d.process_index == index)
    return device


@functools.cache
def over_processes(
    function: Callable[..., Any], mesh: Mesh | None, **static: Any
) -> Callable[..., Any]:
    """Jit a function of this process's own arrays that may sum over all processes.

    Each process calls it with its own arrays, of the same shapes in every process, and gets its own
    result: each process is one shard of the mesh.

    Args:
        function: takes trees of arrays, and `axis_name`: the axis to sum over, or None for one
            process.
        mesh: from `process_mesh`.
        static: further arguments, the same at every call.
    """
    if mesh is None:
        return jax.jit(functools.partial(function, axis_name=None, **static))
    sharding, device = NamedSharding(mesh, P(DATA_AXIS)), own_device(mesh)

    # With check_vma every argument would have to be marked as varying over the mesh or not.
    @jax.jit
    @functools.partial(
        jax.shard_map, mesh=mesh, in_specs=P(DATA_AXIS), out_specs=P(DATA_AXIS), check_vma=False
    )
    def run(stacked: Any) -> Any:
        args, kwargs = jax.tree.map(lambda x: x[0], stacked)
        result = function(*args, **kwargs, **static, axis_name=DATA_AXIS)
        return jax.tree.map(lambda x: x[None], result)

    def join(own: Any) -> Array:
        piece = jax.device_put(jnp.asarray(own)[None], device)
        shape = (mesh.size, *piece.shape[1:])
        return jax.make_array_from_single_device_arrays(shape, sharding, [piece])

    def call(*args: Any, **kwargs: Any) -> Any:
        result = run(jax.tree.map(join, (args, kwargs)))
        return jax.tree.map(lambda x: x.addressable_data(0)[0], result)

    return call


def all_sum(value: Tree, axis_name: str | None) -> Tree:
    """Sum over the shards of an axis; the value itself when there is no axis.

    Args:
        value: an array, or a tree of arrays of one dtype, which are sent as one message: a small
            sum costs as much as its message.
        axis_name: the axis.
    """
    if axis_name is None:
        return value
    flat, unflatten = ravel_pytree(value)
    total: Tree = unflatten(jax.lax.psum(flat, axis_name))
    return total


def all_min(value: Array, axis_name: str | None) -> Array:
    """Take the minimum over the shards of an axis; the value itself when there is no axis."""
    return value if axis_name is None else jax.lax.pmin(value, axis_name)


def all_max(value: Array, axis_name: str | None) -> Array:
    """Take the maximum over the shards of an axis; the value itself when there is no axis."""
    return value if axis_name is None else jax.lax.pmax(value, axis_name)


def from_shards(entries: Array, is_here: Array, axis_name: str | None) -> Array:
    """Combine entries, each of which is held by exactly one shard.

    Args:
        entries: (*i, ...), with any values where this shard does not hold the entry.
        is_here: (*i) bool, whether this shard holds the entry.
        axis_name: the axis, if any.
    """
    if axis_name is None:
        return entries
    mask = is_here.reshape(is_here.shape + (1,) * (entries.ndim - is_here.ndim))
    return all_sum(jnp.where(mask, entries, 0.0), axis_name)


def varying_like(value: Array, reference: Array) -> Array:
    """Mark a constant as varying over the mesh axes that a reference varies over.

    Inside `shard_map`, the first and later carries of a loop must vary over the same axes, and so
    must both branches of a condition; constants vary over none. Outside it has no effect.
    """
    axes = _axes(reference) - _axes(value)
    return jax.lax.pcast(value, tuple(sorted(axes)), to="varying") if axes else value


def _axes(value: Array) -> frozenset[str]:
    return jax.typeof(value).mat.varying


def replicate(value: Array, mesh: Mesh) -> Array:
    """Place one copy of an array on every device of the mesh."""
    return jax.device_put(value, NamedSharding(mesh, P()))


def shard_rows(value: Array | np.ndarray, mesh: Mesh) -> tuple[Array, Array]:
    """Split the rows of an array over the mesh, padding with zero rows to an equal number each.

    Every device gets its rows directly from the array, so that a large array on the host is never
    copied as a whole.

    Args:
        value: (n, ...), the same in every process of the mesh.
        mesh: from `data_mesh`.

    Returns:
        The padded (n', ...) array and (n',) float32, 1 for real rows and 0 for padding.
    """
    num = value.shape[0]
    padded = num + -num % mesh.size
    sharding = NamedSharding(mesh, P(DATA_AXIS))

    def piece(index: tuple[slice, ...] | None) -> Array | np.ndarray:
        assert index is not None
        begin, end, _ = index[0].indices(padded)
        rows = value[min(begin, num) : min(end, num)]
        missing = [(0, end - begin - len(rows))] + [(0, 0)] * (value.ndim - 1)
        return rows if len(rows) == end - begin else np.pad(np.asarray(rows), missing)

    weights = (np.arange(padded) < num).astype(np.float32)
    return (
        jax.make_array_from_callback((padded, *value.shape[1:]), sharding, piece),
        jax.device_put(weights, sharding),
    )


def is_split(value: object, mesh: Mesh) -> bool:
    """Whether the rows of an array are already split over the mesh."""
    return isinstance(value, jax.Array) and value.sharding.is_equivalent_to(
        NamedSharding(mesh, P(DATA_AXIS)), value.ndim
    )


def own_rows(num: int, mesh: Mesh) -> range:
    """Return which of n rows, padded to a multiple of the devices, belong to this process.

    They are contiguous, and every process has the same number: a mesh lists devices by process.
    """
    size = -(-num // mesh.size)
    index = jax.process_index()
    places = [i for i, device in enumerate(mesh.devices.flat) if device.process_index == index]
    return range(places[0] * size, (places[-1] + 1) * size)


def join_rows(own: np.ndarray, num: int, mesh: Mesh) -> tuple[Array, np.ndarray]:
    """Make one array from the rows that each process holds; no row is sent.

    Args:
        own: (len(own_rows(num, mesh)), ...), this process's rows.
        num: n, the total number of real rows.
        mesh: over the devices of all processes.

    Returns:
        The (n', ...) array, its rows split over the mesh, and (n',) float32, 1 for real rows and 0
        for padding.
    """
    padded = num + -num % mesh.size
    sharding = NamedSharding(mesh, P(DATA_AXIS))
    whole = jax.make_array_from_process_local_data(sharding, own, (padded, *own.shape[1:]))
    return whole, (np.arange(padded) < num).astype(np.float32)


def gather_rows(rows: Array, num: int) -> np.ndarray:
    """Return the first `num` rows of an array in every process, whether or not it is split."""
    if rows.is_fully_addressable:
        return np.asarray(rows)[:num]
    return np.asarray(multihost_utils.process_allgather(rows, tiled=True))[:num]
