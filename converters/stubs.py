"""Inert stand-ins for what a checkpoint may hold besides tensors and plain containers.

Training scripts save their settings, counters and random states with the weights. A global that is
neither here, nor in torch's own list, nor in `safe_pickle`'s is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from converters import safe_pickle


class ZooConfig:
    """Stands in for the GAN zoo's `models.utils.config.BaseConfig`: attributes, no behaviour."""


class Namespace:
    """Stands in for `argparse.Namespace`: attributes, no behaviour."""


def _path(*parts: Any) -> str:
    return "/".join(map(str, parts))


def _default_dict(*_: Any) -> dict[Any, Any]:
    return {}


def _nothing(*_: Any) -> None:
    return None


def torch_stubs() -> list[tuple[Callable[..., Any], str]]:
    """Return the stand-ins for torch's restricted unpickler, with the globals they replace."""
    stubs: list[tuple[Callable[..., Any], str]] = [
        (ZooConfig, "models.utils.config.BaseConfig"),
        (Namespace, "argparse.Namespace"),
        (_default_dict, "collections.defaultdict"),
    ]
    for system in ("Posix", "Windows", "PurePosix", "PureWindows"):
        stubs += [(_path, f"pathlib.{system}Path"), (_path, f"pathlib._local.{system}Path")]
    # The factories of a defaultdict.
    stubs += [(_nothing, f"{m}.{n}") for m in _BUILTINS for n in ("dict", "list", "int", "float")]
    stubs += [(stub, name) for name, stub in safe_pickle.numpy_stubs().items()]
    return stubs


_BUILTINS = ("builtins", "__builtin__")
