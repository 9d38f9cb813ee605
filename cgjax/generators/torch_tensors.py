"""Read and replace PyTorch tensors for `torch_module`: inside outputs, and to and from NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from cgjax.errors import UserError

# torch.nn.Module and torch.Tensor. torch is imported on demand; annotations would need it at once.
Module = Any
Tensor = Any


def import_torch() -> Any:
    """Import PyTorch when it is needed.

    Raises:
        UserError: if it cannot be imported.
    """
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"from_torch needs PyTorch, which cannot be imported ({error}); type: pip install "
            "'cgjax[torch]'"
        ) from error
    return torch


def device_and_dtype(module: Module) -> tuple[Any, Any]:
    """Return the device and dtype of a module's first floating-point tensor."""
    for tensors in (module.parameters(), module.buffers()):
        for tensor in tensors:
            if tensor.is_floating_point():
                return tensor.device, tensor.dtype
    torch = import_torch()
    return torch.device("cpu"), torch.float32


def _position(output: Any, element: int) -> int | None:
    """Return the index of the wanted tensor in a tuple or list: of the first one if it is 0."""
    is_tensor = [isinstance(entry, import_torch().Tensor) for entry in output]
    if element == 0 and any(is_tensor):
        return is_tensor.index(True)
    return element if -len(output) <= element < len(output) and is_tensor[element] else None


def select_tensor(output: Any, element: int, whose: str) -> Tensor:
    """Return the tensor of a module's output.

    Args:
        output: a tensor, or a tuple or list with tensors.
        element: index into a tuple or list; 0 for its first tensor.
        whose: the code that returned it, for messages.

    Raises:
        UserError: if there is no tensor.
    """
    if isinstance(output, import_torch().Tensor):
        return output
    if isinstance(output, tuple | list) and (i := _position(output, element)) is not None:
        return output[i]
    raise UserError(
        f"{whose} returned a {type(output).__name__} without a tensor at {element}; expected a "
        "tensor, or a tuple or list with one (if it is the module's own output, give a call= that "
        "returns its tensor)"
    )


def replace_tensor(output: Any, element: int, tensor: Tensor) -> Any:
    """Return a module's output with the tensor that `select_tensor` selects replaced."""
    if isinstance(output, import_torch().Tensor):
        return tensor
    entries = list(output)
    position = _position(output, element)
    assert position is not None
    entries[position] = tensor
    if isinstance(output, list):
        return entries
    return type(output)(*entries) if hasattr(output, "_fields") else tuple(entries)


def channels_first(x: Tensor) -> Tensor:
    """Move the channels of maps to axis 1; a sequence (n, tokens, dim) is unchanged."""
    return x.permute(0, -1, *range(1, x.ndim - 1)) if x.ndim >= 4 else x


def to_numpy(x: Tensor, whose: str) -> np.ndarray:
    """Convert to float32 with the channels of maps last; a sequence (n, tokens, dim) is unchanged.

    Raises:
        UserError: complex numbers.
    """
    if x.is_complex():
        raise UserError(
            f"{whose} returned complex numbers; expected real numbers, such as their absolute "
            "values"
        )
    if x.ndim >= 4:
        x = x.permute(0, *range(2, x.ndim), 1)
    return x.detach().float().contiguous().cpu().numpy()
