"""Meshes, sharding and several hosts: the only place that builds a mesh.

Everything runs on JAX's own runtime. A mesh here always has automatic axes: `jax.make_mesh` now
defaults to explicit ones, with which an array that is not yet sharded cannot enter `shard_map`.
"""

import functools
from collections.abc import Callable
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
    return jax.make_mesh((num,), (DATA_AXIS,), axis_types=(AxisType.Auto,), devices=devices[:num])


def accelerator_mesh() -> Mesh | None:
    """Return a mesh over all devices where there are several accelerators, else None.

    The devices that a CPU may be divided into share its cores: nothing is gained by using them.
    """
    devices = jax.devices()
    return data_mesh() if len(devices) > 1 and devices[0].platform != "cpu" else None


def run_mesh(num_devices: int | None = None) -> Mesh | None:
    """Return the mesh a run works on, or None where it works on one device.

    Args:
        num_devices: how many to use; None takes all devices of several processes, and all
            accelerators of one.

    Raises:
        UserError: if there are not that many.
    """
    if num_devices is None:
        return data_mesh() if jax.process_count() > 1 else accelerator_mesh()
    if jax.process_count() > 1:
        raise UserError("--devices is for one process; of several every device is used")
    if not 1 <= num_devices <= jax.device_count():
        num, kind = jax.device_count(), jax.devices()[0].device_kind
        there_is = f"is 1 device ({kind})" if num == 1 else f"are {num} devices ({kind})"
        raise UserError(
            f"--devices={num_devices}: there {there_is}; "
            f"expected {'1' if num == 1 else f'1 to {num}'}, or leave --devices out"
        )
    return data_mesh(num_devices) if num_devices > 1 else None


def local_mesh(mesh: Mesh | None) -> Mesh | None:
    """Return a mesh of this process's devices of another mesh, or None for fewer than two."""
    index = jax.process_index()
    own = [] if mesh is None else [d for d in mesh.devices.flat if d.process_index == index]
    if len(own) < 2:
        return None
    return jax.make_mesh((len(own),), (DATA_AXIS,), axis_types=(AxisType.Auto,), devices=own)


def process_mesh(mesh: Mesh | None) -> Mesh | None:
    """Return a mesh of one device of each process of another mesh, or None for one process."""
    if mesh is None or not mesh.is_multi_process:
        return None
    first: dict[int, jax.Device] = {}
    for device in mesh.devices.flat:
        first.setdefault(device.process_index, device)
    shape, types = (len(first),), (AxisType.Auto,)
    return jax.make_mesh(shape, (DATA_AXIS,), axis_types=types, devices=list(first.values()))


def own_device(mesh: Mesh) -> jax.Device:
    """Return this process's device of a `process_mesh`."""
    index = jax.process_index()
    device: jax.Device = next(d for d in mesh.devices.flat if d.process_index == index)
    return device


@functools.cache
def over_processes(
    function: Callable[..., Any], mesh: Mesh | None, **static: Any
) -> Callable[..., Any]:
    """Return a function of this process's own arrays that may sum over all processes, jitted.

    Each process calls it with its own arrays, of the same shapes everywhere, and gets its own
    result: it is one shard of a mesh on which there is no other.

    Args:
        function: takes trees of arrays, and `axis_name`, the axis to sum over, None for one
            process.
        mesh: from `process_mesh`.
        static: further arguments, the same at every call.
    """
    if mesh is None:
        return jax.jit(functools.partial(function, axis_name=None, **static))
    sharding, device = NamedSharding(mesh, P(DATA_AXIS)), own_device(mesh)

    # What varies over the mesh and what does not would have to be said of every argument.
    @jax.jit
    @functools.partial(
        jax.shard_map, mesh=mesh, in_specs=P(DATA_AXIS), out_specs=P(DATA_AXIS), check_vma=False
    )
    def run(given: Any) -> Any:
        args, kwargs = jax.tree.map(lambda x: x[0], given)
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
        value: an array, or a tree of arrays of one dtype, which go in one message: what a small sum
            costs is the message.
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


def from_shards(picked: Array, is_here: Array, axis_name: str | None) -> Array:
    """Return what was picked, each entry from the one shard that has it.

    Args:
        picked: (*i, ...), of the entries that are not here anything.
        is_here: (*i) bool.
        axis_name: the axis, if any.
    """
    if axis_name is None:
        return picked
    mask = is_here.reshape(is_here.shape + (1,) * (picked.ndim - is_here.ndim))
    return all_sum(jnp.where(mask, picked, 0.0), axis_name)


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
    return jax.typeof(value).mat.varying


def replicate(value: Array, mesh: Mesh) -> Array:
    """Place one copy of an array on every device of the mesh."""
    return jax.device_put(value, NamedSharding(mesh, P()))


def shard_rows(value: Array | np.ndarray, mesh: Mesh) -> tuple[Array, Array]:
    """Split the rows of an array over the mesh, padding with zero rows where they do not divide.

    Every device gets its own rows straight from where they are: on the host a large array is never
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
    """Whether the rows of an array are split over the mesh already."""
    return isinstance(value, jax.Array) and value.sharding.is_equivalent_to(
        NamedSharding(mesh, P(DATA_AXIS)), value.ndim
    )


def own_rows(num: int, mesh: Mesh) -> range:
    """Return which of n rows, filled up to a multiple of the devices, are this process's.

    They lie together, and every process has as many: a mesh lists the devices by process.
    """
    size = -(-num // mesh.size)
    index = jax.process_index()
    places = [i for i, device in enumerate(mesh.devices.flat) if device.process_index == index]
    return range(places[0] * size, (places[-1] + 1) * size)


def join_rows(own: np.ndarray, num: int, mesh: Mesh) -> tuple[Array, np.ndarray]:
    """Make one array of the rows that each process has; no row is sent anywhere.

    Args:
        own: (len(own_rows(num, mesh)), ...), this process's rows.
        num: n, rows in all that count.
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
    """Return the first `num` rows of an array, split over processes or not, in each of them."""
    if rows.is_fully_addressable:
        return np.asarray(rows)[:num]
    return np.asarray(multihost_utils.process_allgather(rows, tiled=True))[:num]
