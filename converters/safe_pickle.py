"""An unpickler that calls only a handful of functions defined here.

NVIDIA publishes its PyTorch networks as plain pickles that hold the *source code* of their modules,
which their loader executes. Here every name that such a file may ask for is on a list and stands
for something inert: a module becomes the dict of its attributes, a tensor is rebuilt from its
bytes, the source code is a string that is never used. Any other name is refused.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np

# Entries that `Module.build_record` adds to the constructor's arguments.
CLASS, VALUES = "(class)", "(values)"

# NVIDIA's classes, for files that name them instead of holding their source code.
_NETWORKS = ("networks", "networks_stylegan2", "networks_stylegan3")
_CLASSES = (
    *("Generator", "Discriminator", "MappingNetwork", "SynthesisNetwork", "SynthesisBlock"),
    *("SynthesisLayer", "SynthesisInput", "ToRGBLayer", "FullyConnectedLayer", "Conv2dLayer"),
    *("DiscriminatorBlock", "DiscriminatorEpilogue", "MinibatchStdLayer"),
)


class ForbiddenGlobal(pickle.UnpicklingError):
    """A pickle asked for a name that is not on the list."""

    def __init__(self, name: str):
        super().__init__(f"forbidden global {name}")
        self.name = name


class Bag(dict[str, Any]):
    """Stands in for a dict subclass (EasyDict)."""

    def __setstate__(self, state: Any) -> None:
        """Drop the instance's own attributes: only the items matter."""


class Module:
    """Stands in for a torch module: its attributes, no behaviour.

    Attributes:
        class_name: the name of its class, with its module's name if the file has that.
        attributes: its `__dict__`.
    """

    class_name = ""

    def __init__(self, class_name: str = "", attributes: Mapping[str, Any] | None = None):
        self.class_name = class_name or self.class_name
        self.attributes = dict(attributes or {})

    @property
    def children(self) -> dict[str, Module]:
        """The modules inside, by name."""
        modules = self.attributes.get("_modules")
        entries = modules.items() if isinstance(modules, Mapping) else ()
        return {str(name): child for name, child in entries if isinstance(child, Module)}

    def __setstate__(self, state: Any) -> None:
        self.attributes = dict(state) if isinstance(state, Mapping) else {}

    def tensors(self, prefix: str = "") -> dict[str, Any]:
        """Return parameters and buffers by dotted path, as in a state dict."""
        tensors: dict[str, Any] = {}
        for kind in ("_parameters", "_buffers"):
            entries = self.attributes.get(kind)
            for name, value in entries.items() if isinstance(entries, Mapping) else ():
                if value is not None:
                    tensors[prefix + str(name)] = value
        for name, child in self.children.items():
            tensors |= child.tensors(f"{prefix}{name}.")
        return tensors

    def build_record(self) -> dict[str, Any]:
        """Return the constructor's arguments by name, and two further entries.

        These are `CLASS`, the module's class, and `VALUES`, the numbers and words that it and the
        modules inside keep, by dotted path.
        """
        arguments = self.attributes.get("_init_kwargs")
        given = dict(arguments) if isinstance(arguments, Mapping) else {}
        return {**given, CLASS: self.class_name, VALUES: self._values("")}

    def _values(self, prefix: str) -> dict[str, Any]:
        values = {
            f"{prefix}{name}": value
            for name, value in self.attributes.items()
            if not str(name).startswith("_")
            and (value is None or isinstance(value, bool | int | float | str))
        }
        for name, child in self.children.items():
            values |= child._values(f"{prefix}{name}.")
        return values


def _reconstruct_persistent(meta: Any) -> Module:
    if not isinstance(meta, Mapping) or meta.get("type") != "class":
        raise pickle.UnpicklingError("a persistent object that is not a class")
    state = meta.get("state")
    name, module = str(meta.get("class_name")), meta.get("module_name")
    if isinstance(module, str) and "." not in name:
        name = f"{module}.{name}"
    return Module(name, state if isinstance(state, Mapping) else {})


def _module_class(name: str) -> type[Module]:
    """Return a stand-in for a class whose source the file does not hold."""
    return type("Module", (Module,), {"class_name": name})


def _load_storage(data: bytes) -> Any:
    # A storage is itself a torch file, in the old serialization.
    import torch

    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _rebuild_tensor(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> Any:
    import torch

    if not isinstance(storage, torch.storage.TypedStorage):
        raise pickle.UnpicklingError("a tensor without a storage")
    size, stride = tuple(map(int, size)), tuple(map(int, stride))
    # Otherwise torch would enlarge the storage with uninitialised memory.
    last = int(offset) + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if min((int(offset), *size, *stride)) < 0 or (0 not in size and last >= len(storage)):
        raise pickle.UnpicklingError("a tensor that reaches beyond its storage")
    empty = torch.tensor([], dtype=storage.dtype)
    return empty.set_(storage._untyped_storage, int(offset), size, stride)


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data


class _Dtype:
    """Stands in for numpy.dtype, numbers only."""

    def __init__(self, code: str = "f8", *_: Any):
        self.dtype = np.dtype(str(code))
        if self.dtype.kind not in "biufc":
            raise pickle.UnpicklingError(f"an array of dtype {code}")

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


def _numpy_scalar(dtype: _Dtype, data: bytes) -> Any:
    return np.frombuffer(data, dtype.dtype)[0].item()


class Array:
    """Stands in for numpy.ndarray, which a pickle first creates empty and then fills."""

    array: np.ndarray

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        flat = np.frombuffer(data, dtype.dtype)
        self.array = flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)


def _reconstruct_array(*_: Any) -> Array:
    return Array()


def _array_from_buffer(
    data: bytes | bytearray, dtype: _Dtype, shape: Any, order: str, axes: Any = None
) -> Array:
    # How arrays are written with protocol 5, pickle's highest.
    made = Array()
    made.array = np.frombuffer(data, dtype.dtype).reshape(shape, order="F" if order == "F" else "C")
    if axes is not None:
        made.array = made.array.transpose(axes)
    return made


def _encode(text: Any, encoding: Any = "") -> bytes:
    # Old protocols write bytes in this way.
    if encoding != "latin1" or not isinstance(text, str):
        raise pickle.UnpicklingError("bytes that are not latin1 text")
    return text.encode("latin1")


def _inert(*arguments: Any) -> tuple[Any, ...]:
    return arguments


def _allowed() -> dict[str, Callable[..., Any]]:
    allowed: dict[str, Callable[..., Any]] = {
        "collections.OrderedDict": OrderedDict,
        "builtins.set": set,
        "dnnlib.util.EasyDict": Bag,
        "torch_utils.persistence._reconstruct_persistent_obj": _reconstruct_persistent,
        "torch.storage._load_from_bytes": _load_storage,
        "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
        "torch._utils._rebuild_parameter": _rebuild_parameter,
        "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
        "torch.Size": tuple,
        "torch.device": _inert,
        "torch.nn.modules.container.ModuleList": Module,
        "torch.nn.modules.container.ModuleDict": Module,
        "torch.nn.modules.container.Sequential": Module,
        "training.augment.AugmentPipe": Module,
        "_codecs.encode": _encode,
        "numpy.dtype": _Dtype,
        "numpy.ndarray": Array,
    }
    for package in ("numpy.core", "numpy._core"):
        allowed[f"{package}.multiarray.scalar"] = _numpy_scalar
        allowed[f"{package}.multiarray._reconstruct"] = _reconstruct_array
        allowed[f"{package}.numeric._frombuffer"] = _array_from_buffer
    for module in _NETWORKS:
        for cls in _CLASSES:
            name = f"training.{module}.{cls}"
            allowed[name] = _module_class(name)
    for dtype in ("float16", "bfloat16", "float32", "float64", "uint8", "int32", "int64", "bool"):
        allowed[f"torch.{dtype}"] = _inert
    allowed["torch.memory_format"] = _inert
    return allowed


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO):
        super().__init__(file)
        self._allowed = _allowed()

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full not in self._allowed:
            raise ForbiddenGlobal(full)
        return self._allowed[full]

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("a reference to something outside the file")


def load(file: BinaryIO) -> Any:
    """Read a pickle; modules become `Module`, tensors torch tensors on the CPU.

    Args:
        file: open for reading in binary mode.

    Returns:
        The content.

    Raises:
        ForbiddenGlobal: it asks for a name that is not on the list, which is not called.
        Exception: of any type, if the pickle is damaged.
    """
    return _Unpickler(file).load()


def numpy_stubs() -> dict[str, Callable[..., Any]]:
    """Return the stand-ins for NumPy's numbers and arrays, by their names in a pickle."""
    return {name: stub for name, stub in _allowed().items() if name.startswith("numpy.")}
