"""From what the readers return to plain Python and NumPy arrays.

Every tensor becomes an array or, where it has no values that NumPy can hold, an `Unreadable` with
the reason: it is refused by name if it belongs to the network that is converted, and is in nobody's
way if it does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from converters import safe_pickle
from converters.stubs import Namespace, ZooConfig

if TYPE_CHECKING:
    import torch

# How many values a sparse or expanded tensor may unfold to: a tiny file can claim any number.
LARGEST = 2**26


class Unreadable(NamedTuple):
    """Stands in for a tensor without values that NumPy can hold.

    Attributes:
        reason: follows the tensor's name in a message.
    """

    reason: str


def plain(value: Any) -> Any:
    """Return a file's content as dicts, lists, numbers, strings, arrays and `Unreadable`.

    Args:
        value: what torch's or our own unpickler returned.

    Returns:
        The content; what a module was built with stands beside it, under `settings`.
    """
    if isinstance(value, safe_pickle.Module):
        value = {"network": value}  # a pickled module without a dict around it
    return _plain(value, {})


def _plain(value: Any, seen: dict[int, Any]) -> Any:
    import torch

    # What is shared in the file stays shared: unfolding it could take for ever. Only what the file
    # keeps alive is in `seen`: a dict made here would leave its id to the next.
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
            name: _plain(item.built(), {})
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
    """Return a tensor's values; what NumPy has no dtype for (bfloat16, float8) as float32."""
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
