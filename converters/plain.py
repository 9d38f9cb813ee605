"""Converts what the readers return to plain Python and NumPy arrays.

Every tensor becomes an array or, if NumPy cannot hold its values, an `Unreadable` with the reason.
It is refused by name if it belongs to the network that is converted, and ignored otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from converters import safe_pickle
from converters.stubs import Namespace, ZooConfig

if TYPE_CHECKING:
    import torch

# Most values that a sparse or expanded tensor may have: a tiny file can claim any number.
LARGEST = 2**26


class Unreadable(NamedTuple):
    """Stands in for a tensor whose values NumPy cannot hold.

    Attributes:
        reason: continues a message that starts with the tensor's name.
    """

    reason: str


def plain(value: Any) -> Any:
    """Return a file's content as dicts, lists, numbers, strings, arrays and `Unreadable`.

    Args:
        value: the result of torch's or our own unpickler.

    Returns:
        The content; the build records of modules are added beside them, under `settings`.
    """
    if isinstance(value, safe_pickle.Module):
        value = {"network": value}  # a pickled module without a dict around it
    return _plain(value, {})


def _plain(value: Any, seen: dict[int, Any]) -> Any:
    import torch

    # Shared objects stay shared: expanding them could take for ever. `seen` holds only objects that
    # the file's content keeps alive: the id of a temporary dict would be reused.
    key = id(value)
    if key in seen:
        return seen[key]
    if isinstance(value, torch.Tensor):
        seen[key] = to_array(value)
        return seen[key]
    if isinstance(value, safe_pickle.Array):
        return value.array
    if isinstance(value, safe_pickle.Module):
        value = value.tensors()
    elif isinstance(value, ZooConfig | Namespace):
        value = vars(value)
    if isinstance(value, Mapping):
        result: dict[Any, Any] = {}
        seen[key] = result
        for name, item in value.items():
            result[name] = _plain(item, seen)
        settings = {
            name: _plain(item.build_record(), {})
            for name, item in value.items()
            if isinstance(item, safe_pickle.Module)
        }
        if settings:
            result["settings"] = settings
        return result
    if isinstance(value, list | tuple):
        items: list[Any] = []
        seen[key] = items
        items += (_plain(item, seen) for item in value)
        return items
    return value


def to_array(tensor: torch.Tensor) -> np.ndarray | Unreadable:
    """Return a tensor's values; dtypes that NumPy lacks (bfloat16, float8) become float32."""
    import torch

    if tensor.is_meta:
        return Unreadable("has no values (a meta tensor)")
    if tensor.is_quantized:
        return Unreadable(f"is quantised ({tensor.dtype}); save it dequantised")
    try:
        tensor = tensor.detach()
        if tensor.layout != torch.strided or _is_expanded(tensor):
            if tensor.numel() > LARGEST:
                return Unreadable(f"is too large to unfold: {tuple(tensor.shape)}")
            tensor = tensor.to_dense()
        if tensor.is_floating_point() and tensor.dtype not in (
            torch.float16,
            torch.float32,
            torch.float64,
        ):
            tensor = tensor.to(torch.float32)
        return tensor.contiguous().numpy()
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        first = (str(error).splitlines() or [""])[0][:80]
        return Unreadable(f"is a tensor that NumPy cannot hold ({tensor.dtype}: {first})")


def _is_expanded(tensor: torch.Tensor) -> bool:
    """Whether a tensor has more values than its storage."""
    return tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()
